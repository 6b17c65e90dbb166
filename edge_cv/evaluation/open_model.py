"""A model that is open for inference, on this machine or on a device, and the encoding of pixels as its input."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.decisions import OutputMeaning
from converters.declared import NOTHING, Declaration, declared_record
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.record import read_record
from edge_cv.evaluation import runner


@dataclass(frozen=True)
class IOMetadata:
    """What a model's metadata declares about its input and output.

    Attributes:
        preprocessing: crop, size and input range; None if not declared.
        pixel_offset: an integer input is pixel + this; None if not declared.
        meaning: of the outputs.
        bgr: whether the input's channels are blue, green and red.
        background: whether the first output is a background class, which no label names.
    """

    preprocessing: Preprocessing | None
    pixel_offset: int | None
    meaning: OutputMeaning
    bgr: bool = False
    background: bool = False

    def class_columns(self, outputs: np.ndarray) -> np.ndarray:
        """The outputs `(n, outputs)` without that of the background."""
        return outputs[:, 1:] if self.background else outputs


def io_metadata(
    file: Path, declaration: Declaration = NOTHING, preprocessing: Preprocessing | None = None
) -> IOMetadata:
    """The metadata of a model file, of edge_cv or of another converter; InputError if it is invalid.

    Args:
        file: the model.
        declaration: replaces what the file declares.
        preprocessing: of a file without a record, where the declaration does not say it.
    """
    if preprocessing is not None and not declaration.fields and read_record(file) is None:
        names = ("resize_to", "rule", "interpolation", "mean", "std")
        declaration = replace(declaration, fields={name: getattr(preprocessing, name) for name in names})
    record = declared_record(file, declaration)
    offset, meaning = record.input.pixel_offset, record.output.meaning
    return IOMetadata(record.preprocessing, offset, meaning, bgr=declaration.channels == "bgr")


@dataclass(frozen=True)
class InputEncoder:
    """Encodes pixels as the input of a model: by adding `pixel_offset`, else in the range of `preprocessing`.

    Attributes:
        dtype: the input's numpy type.
        scale, zero_point: of a quantized input, else None.
        pixel_offset: as in `IOMetadata`.
        preprocessing: its mean and std are the input's range.
        bgr: whether the channels are blue, green and red.
    """

    dtype: str
    scale: float | None
    zero_point: int | None
    pixel_offset: int | None
    preprocessing: Preprocessing
    bgr: bool = False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The inputs in the model's type for uint8 pixels, both `(n, height, width, channels)`."""
        dtype = np.dtype(self.dtype)
        pixels = pixels[..., ::-1] if self.bgr else pixels
        if dtype.kind in "iu" and self.pixel_offset is not None:
            return _clipped(pixels.astype(np.int32) + self.pixel_offset, dtype)
        values = self.preprocessing.to_input(pixels)
        if dtype.kind == "f":
            return values.astype(dtype, copy=False)
        if self.scale is not None:
            values = np.rint(values / np.float32(self.scale)) + (self.zero_point or 0)
        return _clipped(values, dtype)


class Classifier(ABC):
    """An open model with one image input and one output, on any machine.

    Attributes:
        file: the model file, for messages.
        input, output: its tensors.
        classes: number of values in one image's output.
        runtime: the program that runs the model.
    """

    def __init__(
        self, file: str, inputs: Sequence[runner.Tensor], outputs: Sequence[runner.Tensor], runtime: str
    ) -> None:
        for what, tensors in (("input", inputs), ("output", outputs)):
            if len(tensors) != 1:
                raise InputError(f"{file} must have one {what}. Received: {len(tensors)}")
        self.file, self.runtime = file, runtime
        self.input, self.output = inputs[0], outputs[0]
        self._channels_first = len(self.input.shape) == 4 and self.input.shape[3] not in (1, 3)
        if self._channels_first:
            batch, channels, height, width = self.input.shape
            tensor = self.input
            self.input = runner.Tensor((batch, height, width, channels), tensor.dtype, tensor.scale, tensor.zero_point)
        self._own_shape = self.input.shape
        if len(self._own_shape) == 3:  # a grey image without an axis of channels
            tensor = self.input
            self.input = runner.Tensor((*tensor.shape, 1), tensor.dtype, tensor.scale, tensor.zero_point)
        shape = self.input.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
            raise InputError(
                f"{file} must take one image, (1, height, width, 3), or (1, height, width, 1) if it is grey. "
                f"Received: {shape}"
            )
        self.classes = int(np.prod(self.output.shape))

    def encoder(self, metadata: IOMetadata, preprocessing: Preprocessing) -> InputEncoder:
        """The model's encoder. A range in its metadata has precedence over the range of `preprocessing`."""
        tensor = self.input
        return InputEncoder(
            tensor.dtype.name,
            tensor.scale,
            tensor.zero_point,
            metadata.pixel_offset,
            metadata.preprocessing or preprocessing,
            metadata.bgr,
        )

    @abstractmethod
    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        """Run the model.

        Args:
            inputs: in the model's shape and type.

        Returns:
            Outputs `(n, classes)` in the model's type, and the seconds spent in inferences.
        """

    def own_shape(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs `(n, height, width, channels)` in the order of axes that the model has."""
        if self._channels_first:
            return np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        return inputs[..., 0] if len(self._own_shape) == 3 else inputs

    def logits(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        """As `stored`, with dequantized outputs in float32, for inputs `(n, height, width, channels)`."""
        stored, seconds = self.stored(self.own_shape(inputs))
        values, tensor = stored.astype(np.float32), self.output
        if tensor.scale is None:
            return values, seconds
        return (values - (tensor.zero_point or 0)) * np.float32(tensor.scale), seconds


class OpenModel(Classifier):
    """A model that is open in this process."""

    def __init__(self, file: str, path: str | None = None, runtime: str = "interpreter") -> None:
        """
        Args:
            file: the file, for messages.
            path: where it is, if that is elsewhere.
            runtime: of a .tflite file, a key of the runner's `RUNTIMES`.
        """
        try:
            self.model = runner.open_model(path or file, threads=1, runtime=runtime)
        except runner.ModelError as error:
            raise InputError(f"{file} cannot be opened: {error}") from error
        super().__init__(file, self.model.inputs, self.model.outputs, self.model.runtime)

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        stored = np.empty((len(inputs), self.classes), self.output.dtype)
        seconds = 0.0
        for i in range(len(inputs)):
            self.model.set_input(inputs[i : i + 1])
            start = time.perf_counter()
            self.model.invoke()
            seconds += time.perf_counter() - start
            stored[i] = self.model.output().ravel()
        return stored, seconds


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(values, limits.min, limits.max).astype(dtype)
