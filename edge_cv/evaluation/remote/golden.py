"""Golden inputs: a few images in an artifact's own input type, which every machine gets, so that answers compare."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv.evaluation import inference, runner
from edge_cv.evaluation.measurement import outputs_of
from edge_cv.evaluation.runner_events import RunnerEvents, runner_events

IMAGES = 8


@dataclass(frozen=True)
class DescribedModel:
    """What this machine's runtime says of an artifact, in a process of its own.

    Attributes:
        path: the file.
        sha256: of its content.
        inputs, outputs: its tensors.
        runtime: what ran it here.
    """

    path: Path
    sha256: str
    inputs: tuple[runner.Tensor, ...]
    outputs: tuple[runner.Tensor, ...]
    runtime: str

    @property
    def single(self) -> bool:
        """Whether there is one input and one output, so that golden inputs say something."""
        return len(self.inputs) == len(self.outputs) == 1


def describe(path: Path) -> DescribedModel:
    """The artifact as it is here; InputError when it is missing or cannot be run."""
    if not path.is_file():
        raise InputError(f"{path} must be a .tflite or .onnx file. Received: no such file")
    gathered = _here(path)
    inputs, outputs = (tuple(runner.Tensor(**t) for t in gathered.model[name]) for name in ("inputs", "outputs"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DescribedModel(path, digest, inputs, outputs, gathered.model["runtime"])


def golden_inputs(artifact: DescribedModel, images: int = IMAGES) -> bytes:
    """So many inputs, raw tensors one after the other: sample photos where it is known how a photo becomes an input and
    the photos are installed, else random pixels, the same ones on every machine."""
    tensor = artifact.inputs[0]
    values = _photos(artifact, images)
    if values is None:
        values = np.stack([runner.random_input(tensor, seed) for seed in range(images)])
    return np.ascontiguousarray(values, tensor.dtype.newbyteorder("<")).tobytes()


def golden_outputs(artifact: DescribedModel, inputs: bytes) -> np.ndarray:
    """What the artifact answers to them here, `(images, classes)`."""
    with tempfile.NamedTemporaryFile(prefix="edge-cv-", suffix=".bin") as file:
        file.write(inputs)
        file.flush()
        return outputs_of(_here(artifact.path, "--golden", file.name).golden, "golden's outputs")


def _here(path: Path, *options: str) -> RunnerEvents:
    gathered = RunnerEvents((1,), 0)
    for event in runner_events(path, "--runs", 0, *options):
        gathered.add(event)
    return gathered


def _photos(artifact: DescribedModel, images: int) -> np.ndarray | None:
    from edge_cv import data

    tensor, metadata = artifact.inputs[0], inference.metadata_of(artifact.path)
    preprocessing = metadata.preprocessing
    if preprocessing is None or tensor.shape != (1, preprocessing.image_size, preprocessing.image_size, 3):
        return None
    try:
        photos = data.sample().take(images)
    except InputError:  # not installed
        return None
    pixels = np.stack([pixels for pixels, _ in photos.pixels(preprocessing)])
    scale, zero_point = tensor.scale, tensor.zero_point
    feed = inference.Feed(tensor.dtype.name, scale, zero_point, metadata.pixel_offset, preprocessing)
    return feed(pixels)
