"""Golden inputs: a few images in a model's own input type, the same for every machine, to compare outputs."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.files import file_sha256
from edge_cv.evaluation import runner
from edge_cv.evaluation.measurement import outputs_of
from edge_cv.evaluation.open_model import InputEncoder, IOMetadata, io_metadata
from edge_cv.evaluation.runner_events import RunnerEvents, runner_events

IMAGES = 8


@dataclass(frozen=True)
class DescribedModel:
    """A model as this machine's runtime describes it, from a process of its own.

    Attributes:
        path: the file.
        sha256: of the file.
        inputs, outputs: its tensors.
        runtime: the program that ran it on this machine.
    """

    path: Path
    sha256: str
    inputs: tuple[runner.Tensor, ...]
    outputs: tuple[runner.Tensor, ...]
    runtime: str

    @property
    def single(self) -> bool:
        """Whether there is one input and one output, as golden inputs require."""
        return len(self.inputs) == len(self.outputs) == 1


@dataclass(frozen=True)
class GoldenInputs:
    """Raw input tensors one after the other, little-endian."""

    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def describe(path: Path) -> DescribedModel:
    """The description of a model on this machine; InputError if it is missing or cannot be run."""
    if not path.is_file():
        raise InputError(f"{path} must be a .tflite or .onnx file. Received: no such file")
    model = _run_here(path).model
    inputs, outputs = (tuple(runner.Tensor(**tensor) for tensor in model[name]) for name in ("inputs", "outputs"))
    return DescribedModel(path, file_sha256(path), inputs, outputs, model["runtime"])


def golden_inputs(model: DescribedModel, images: int = IMAGES, declaration: Declaration = NOTHING) -> GoldenInputs:
    """The golden inputs of a model.

    These are sample photos if the model's metadata holds its preprocessing and the photos are installed, else random
    pixels from fixed seeds.

    Args:
        model: a model with one input.
        images: number of inputs.
        declaration: what the caller says about a file that does not declare it.
    """
    tensor = model.inputs[0]
    values = _sample_inputs(model, images, declaration)
    if values is None:
        values = np.stack([runner.random_input(tensor, seed) for seed in range(images)])
    return GoldenInputs(np.ascontiguousarray(values, tensor.dtype.newbyteorder("<")).tobytes())


def golden_outputs(model: DescribedModel, inputs: GoldenInputs) -> np.ndarray:
    """The outputs of the model on this machine, `(images, classes)`, not dequantized."""
    with tempfile.NamedTemporaryFile(prefix="edge-cv-", suffix=".bin") as file:
        file.write(inputs.content)
        file.flush()
        return outputs_of(_run_here(model.path, "--golden", file.name).golden, "golden's outputs")


def stored_threshold(model: DescribedModel) -> float:
    """The value, as the model stores it, above which a single output decides for its class."""
    metadata = _metadata(model, NOTHING)
    tensor, value = model.outputs[0], 0.0 if metadata is None else metadata.meaning.threshold
    return value if tensor.scale is None else value / tensor.scale + (tensor.zero_point or 0)


def _metadata(model: DescribedModel, declaration: Declaration) -> IOMetadata | None:
    """The metadata of a model of images; None for another model, about which nothing is declared."""
    try:
        return io_metadata(model.path, declaration)
    except InputError:
        if declaration != NOTHING:
            raise
        return None


def _run_here(path: Path, *options: str) -> RunnerEvents:
    events = RunnerEvents((1,), 0)
    for event in runner_events(path, "--runs", 0, *options):
        events.add(event)
    return events


def _sample_inputs(model: DescribedModel, images: int, declaration: Declaration) -> np.ndarray | None:
    from edge_cv import data

    tensor, metadata = model.inputs[0], _metadata(model, declaration)
    preprocessing = None if metadata is None else metadata.preprocessing
    if metadata is None or preprocessing is None or tensor.shape != (1, *preprocessing.shape):
        return None
    try:
        photos = data.sample().take(images)
    except InputError:  # the package with the photos is not installed
        return None
    pixels = np.stack([pixels for pixels, _ in photos.pixels(preprocessing)])
    encoder = InputEncoder(
        tensor.dtype.name, tensor.scale, tensor.zero_point, metadata.pixel_offset, preprocessing, metadata.bgr
    )
    return encoder(pixels)
