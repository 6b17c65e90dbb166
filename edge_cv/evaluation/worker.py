"""The work of a worker process of an evaluation: open the models once, decode images, classify them.

A worker keeps its interpreters between chunks of images and never imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.evaluation.open_model import Classifier, IOMetadata, OpenModel

if TYPE_CHECKING:
    from edge_cv.data import Sample


@dataclass(frozen=True)
class Task:
    """What a worker needs to know about the models.

    Attributes:
        artifacts: the file and the metadata of each model.
        reference: index of the model that the others are compared with; None without one.
        preprocessing: crop and size of the images.
    """

    artifacts: tuple[tuple[str, IOMetadata], ...]
    reference: int | None
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Description:
    """Input shape, number of classes and runtime of a model."""

    shape: tuple[int, ...]
    classes: int
    runtime: str


_opened: dict[str, OpenModel] = {}  # a worker lives for one evaluation and keeps its interpreters
_runtime = "interpreter"
_provided: dict[str, bytes] = {}  # SHA-256 of the content of each model that `provide` opened


def use_runtime(runtime: str) -> None:
    """Open .tflite files from now on with this key of the runner's `RUNTIMES`."""
    global _runtime
    _runtime = runtime


def provide(contents: Mapping[str, bytes]) -> None:
    """Open models from their content, by the names of their files on another machine."""
    for file, content in contents.items():
        digest = hashlib.sha256(content).digest()
        if _provided.get(file) == digest:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(file).name)
            path.write_bytes(content)
            _opened[file], _provided[file] = OpenModel(file, str(path)), digest


def describe(file: str) -> Description:
    """Open a model and run it once, so that a corrupt file is found here: by an error, or by this process's death."""
    model = _model(file)
    try:
        model.logits(np.zeros(model.input.shape, model.input.dtype))
    except Exception as error:  # onnxruntime's exceptions derive from Exception directly
        raise InputError(f"{file} cannot be run: {' '.join(str(error).split())[:300]}") from error
    return Description(model.input.shape, model.classes, model.runtime)


def decode(task: Task, samples: Sequence[Sample]) -> tuple[np.ndarray, tuple[str | None, ...]]:
    """Decode, crop and resize images.

    Returns:
        Pixels uint8 `(n, height, width, channels)` of the n readable images, and for each sample None or why it is
        unreadable.
    """
    from edge_cv.data import load_pixels

    pixels = np.empty((len(samples), *task.preprocessing.shape), np.uint8)
    reasons: list[str | None] = []
    count = 0
    for sample in samples:
        try:
            pixels[count] = load_pixels(sample.place, task.preprocessing)
            count += 1
            reasons.append(None)
        except InputError as error:
            reasons.append(str(error))
    return pixels[:count], tuple(reasons)


def readable(samples: Sequence[Sample], reasons: Sequence[str | None]) -> list[Sample]:
    """The samples that `decode` could read."""
    return [sample for sample, reason in zip(samples, reasons, strict=True) if reason is None]


def _model(file: str) -> OpenModel:
    if file not in _opened:
        _opened[file] = OpenModel(file, runtime=_runtime)
    return _opened[file]


def classify(
    task: Task, pixels: np.ndarray, samples: Sequence[Sample], model_of: Callable[[str], Classifier] = _model
) -> tuple[list[np.ndarray], np.ndarray]:
    """Run every model on the same images.

    Args:
        task: the models.
        pixels: uint8 `(n, height, width, channels)`.
        samples: the n samples of the pixels, for messages.
        model_of: returns the open model of a file. Default: one of this process.

    Returns:
        Outputs `(n, classes)`, float32, of each model, and the seconds that each spent in inferences.

    Raises:
        InputError: an output is NaN or infinite.
    """
    outputs, seconds, inputs = [], [], {}
    for file, metadata in task.artifacts:
        model = model_of(file)
        encoder = model.encoder(metadata, task.preprocessing)
        if encoder not in inputs:
            inputs[encoder] = encoder(pixels)
        values, spent = model.logits(inputs[encoder])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            sample = samples[int(np.argmin(finite))]
            raise InputError(f"{file} must give finite logits. Received: NaN or infinity for {sample.path}")
        outputs.append(metadata.class_columns(values))
        seconds.append(spent)
    return outputs, np.array(seconds)
