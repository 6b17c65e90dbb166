"""A trained model of one's own made smaller, each stage converted and measured beside the dense model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from edge_cv.progress import Progress, silent
from edge_cv.recipe import ChannelPrune, Fit, Prune, Qat, WeightClustering, check_together

if TYPE_CHECKING:
    from converters.images.preprocessing import Preprocessing
    from edge_cv.evaluation.scores import Score

CALIBRATION_IMAGES = 100


@dataclass(frozen=True)
class Made:
    """One TFLite file.

    Attributes:
        name: `dense_float32`, `dense_int8`, or the stage's with `_int8`, such as `pruned_int8`.
        path: of the file.
        size_bytes, gzip_bytes: of the file, and of the file after gzip.
        macs: multiply-accumulates of an inference.
        sparsity: share of zeros, 0..1, in the weights of its convolutions and dense layers.
        score: on photos that nothing was learned from.
        images: how many photos these are.
    """

    name: str
    path: Path
    size_bytes: int
    gzip_bytes: int
    macs: int
    sparsity: float
    score: Score
    images: int


def compress_file(
    model: Any,
    data: str,
    out_dir: str | os.PathLike,
    parts: dict[str, ChannelPrune | Prune | WeightClustering | Qat],
    fit: Fit,
    *,
    name: str,
    preprocessing: Preprocessing,
    labels: Sequence[str] | None = None,
    progress: Progress = silent,
) -> list[Made]:
    """Compress a model and measure what each stage made of it, as int8 files, beside the dense model.

    Args:
        model: a Keras 3 model that takes pixels 0..255.
        data: labelled photos, by name or folder: some to fine-tune on, others to measure on.
        out_dir: for the models and the files; a second run goes on from what is there.
        parts: the stages by the names that `edge_cv.compression.compress` gives them.
        fit: of it the batch size, the augmentation and the seed.
        name: which the files' names begin with.
        preprocessing: what the model sees of a photo.
        labels: the model's class names in order; None takes the data's own.
        progress: told what is being done.

    Returns:
        The files: the dense float32 and int8 ones, then one for each stage.

    Raises:
        InputError: before anything is trained, for what cannot be done.
    """
    import numpy as np

    from converters import to_tflite
    from edge_cv.compression.compression_stages import compress
    from edge_cv.compression.pruning import total_sparsity
    from edge_cv.data.split import split_for_training
    from edge_cv.evaluation import evaluate
    from edge_cv.models import IMAGENET_CLASSES
    from edge_cv.pipeline.inputs import samples_key
    from edge_cv.pipeline.model import batches_of

    outputs = int(model.outputs[0].shape[-1]) if getattr(model, "outputs", None) else None
    classes = tuple(labels) if labels else None if outputs == IMAGENET_CLASSES else ()
    check_together(**{name: part for name, part in parts.items() if name != "channel_prune"})
    shares = split_for_training(data, None, CALIBRATION_IMAGES, classes=classes, seed=fit.seed)
    if outputs is not None and len(shares.train.classes) != outputs:
        raise InputError(
            f"the photos must be of the model's {outputs} classes. Received: {len(shares.train.classes)} in {data}"
        )
    batches, _ = batches_of(shares, fit, preprocessing)
    key = [samples_key(shares.train), asdict(fit.augment), fit.batch_size, fit.seed]
    folder = Path(out_dir)
    stages = compress(model, batches, folder, **parts, key=key, progress=progress)
    with progress("decoding calibration photos"):
        calibration = np.stack([pixels for pixels, _ in shares.calibration.pixels(preprocessing)])
    wanted: list[tuple[str, Any, Any]] = [("dense_float32", model, "float32"), ("dense_int8", model, "int8")]
    wanted += [(f"{stage.name}_int8", stage.model, stage.int8) for stage in stages]
    files = {}
    for row, source, scheme in wanted:
        with progress(f"converting to {row}"):
            conversion = to_tflite(
                source,
                scheme,
                calibration=calibration,
                labels=labels or shares.train.classes,
                preprocessing=preprocessing,
            )
            files[row] = conversion, conversion.save(folder / f"{name}_{row}.tflite"), total_sparsity(source)
    with progress(f"evaluating on {len(shares.test)} photos") as update:
        found = evaluate(
            {row: path for row, (_, path, _) in files.items()},
            shares.test,
            preprocessing,
            reference="dense_float32",
            on_progress=update,
        )
    return [
        Made(
            row,
            path,
            conversion.size_bytes,
            conversion.gzip_bytes,
            conversion.metadata["macs"],
            sparsity,
            found.scores[row],
            found.images,
        )
        for row, (conversion, path, sparsity) in files.items()
    ]
