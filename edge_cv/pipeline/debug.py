"""Compare a quantized file with its float file, layer by layer: `edge-cv debug`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.record import read_record
from edge_cv.progress import Progress, silent

if TYPE_CHECKING:
    from converters.tflite.layers import LayerError


@dataclass(frozen=True)
class LayerComparison:
    """The errors of each layer, in the order of execution, and the number of images that they were measured on."""

    errors: tuple[LayerError, ...]
    images: int


def compare_layers(
    reference: Path,
    quantized: Path,
    data: str,
    *,
    limit: int,
    declaration: Declaration = NOTHING,
    progress: Progress = silent,
) -> LayerComparison:
    """Compare each layer's output and weights in two `.tflite` files.

    Args:
        reference: the float file.
        quantized: a file converted from the same model.
        data: the images, by name or folder.
        limit: largest number of images.
        declaration: what the caller says about files that do not declare it.
        progress: shows what is being done.

    Raises:
        InputError: a file cannot be used, does not declare its preprocessing, or the files have no layers in common.
    """
    import numpy as np

    from converters.declared import declared_record, undeclared
    from converters.tflite.layers import layer_errors
    from converters.tflite.trial import try_once
    from edge_cv.data import open_samples

    for path in (reference, quantized):
        if path.suffix != ".tflite":
            raise InputError(f"two .tflite files are compared layer by layer. Received: {path}")
    records = [declared_record(path, declaration) for path in (reference, quantized)]
    preprocessing = records[0].preprocessing
    if read_record(quantized) is not None or preprocessing is None:
        preprocessing = records[1].preprocessing or preprocessing
    if preprocessing is None or (read_record(reference) is None and records[0].preprocessing is None):
        raise undeclared(reference)
    samples = open_samples(data).take(limit)
    for path in (reference, quantized):
        try:
            try_once(path.read_bytes())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    with progress(f"comparing layer by layer on {len(samples)} photos"):
        photos = np.stack([pixels for pixels, _ in samples.pixels(preprocessing)])
        images = preprocessing.to_input(photos[..., ::-1] if declaration.channels == "bgr" else photos)
        errors = layer_errors(
            reference.read_bytes(),
            quantized.read_bytes(),
            images,
            pixel_offset=records[1].input.pixel_offset if preprocessing.takes_pixels else None,
            limit=limit,
        )
    if not errors:
        raise InputError(f"the two files must have layers of the same names. Received: {reference} and {quantized}")
    return LayerComparison(tuple(errors), len(images))
