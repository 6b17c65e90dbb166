"""The quantization schemes, one frozen dataclass each: its options, and how it is made of a float model.

A new scheme is one more dataclass here with a `name`, the limits that its result must keep, and `convert`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from converters.calibration import activation_ranges
from converters.correction import METHODS, corrected
from converters.errors import InputError, unknown
from converters.float_model import FloatModel, split_body
from converters.preprocessing import Preprocessing
from converters.quantization import dynamic_int8_weights, float16_weights, full_int8, with_io

IO_TYPES = ("int8", "uint8", "float32")


@dataclass(frozen=True)
class Converted:
    """What a scheme made: the TFLite file, and how a pixel becomes its input's integer (None: it does not)."""

    content: bytes
    pixel_offset: int | None = None


@dataclass(frozen=True)
class Float32:
    """The model as it is.

    Attributes:
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
    """

    min_sqnr_db: float = 60.0
    name: ClassVar[str] = "float32"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(model.content)


@dataclass(frozen=True)
class Float16:
    """Weights stored as float16: half the size, the speed of float32 on a CPU, and what a GPU delegate computes in."""

    min_sqnr_db: float = 30.0
    name: ClassVar[str] = "float16"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(float16_weights(model.content))


@dataclass(frozen=True)
class DynamicInt8:
    """int8 weights with float activations, which need no calibration; a quarter of the size, seldom faster for CNNs."""

    min_sqnr_db: float = 3.0
    name: ClassVar[str] = "dynamic_int8"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(dynamic_int8_weights(model.content))


@dataclass(frozen=True)
class Int8:
    """int8 weights, activations, input and output.

    Weights have a scale a channel (dense layers one scale), activations a scale and a zero point a tensor, from their
    smallest and largest value on the calibration images (https://arxiv.org/abs/1712.05877). Then weights and biases
    are chosen anew, layer by layer, so that each layer answers as the float one does on these images: GPTQ
    (https://arxiv.org/abs/2210.17323, https://arxiv.org/abs/2504.02692) and bias correction
    (https://arxiv.org/abs/1906.04721). The operators, the size and the latency stay those of the plain file.

    Attributes:
        correction: `rounding`, weights and biases; `bias`, biases only, in a third of the time; or `none`. Where it
            does not help on images held out, a weaker one is taken.
        damping: how little `rounding` trusts the images, above 0; more for images unlike those to come.
        io: `int8`; `uint8`, what MediaPipe and camera bytes want; or `float32`, quantized and dequantized inside.
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
        min_integer_share: it fails as well when a smaller share of the operators, 0..1, is integer.
    """

    io: str = "int8"
    correction: str = "rounding"
    damping: float = 4.0
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int8"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.io not in IO_TYPES:
            raise unknown("io of an int8 scheme", self.io, IO_TYPES)
        if self.correction not in METHODS:
            raise unknown("correction of an int8 scheme", self.correction, METHODS)
        if not 0 < self.damping < float("inf"):
            raise InputError(f"damping must be above 0. Received: {self.damping}")
        if not 0 <= self.min_integer_share <= 1:
            raise InputError(f"min_integer_share must be in 0..1. Received: {self.min_integer_share}")

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        body = split_body(model, preprocessing)
        inputs = body.feed(images)
        if body.zero_point is None:
            input_range = float(inputs.min()), float(inputs.max())
        else:
            input_range = tuple(body.scale * (q - body.zero_point) for q in (-128, 127))
        ranges = model.once(f"ranges {body.zero_point}", images, lambda: activation_ranges(body.content, inputs))
        content = full_int8(body, ranges, input_range)
        if self.correction != "none":
            content = model.once(
                f"corrected {body.zero_point} {self.correction} {self.damping}",
                images,
                lambda: corrected(body.content, content, inputs, method=self.correction, damping=self.damping),
            )
        content = with_io(content, self.io, body)
        offset = {"int8": -128, "uint8": 0, "float32": None}[self.io]
        return Converted(content, None if body.zero_point is None else offset)


SCHEMES = (Float32, Float16, DynamicInt8, Int8)
Scheme = Float32 | Float16 | DynamicInt8 | Int8


def names() -> tuple[str, ...]:
    """The schemes' names, from the widest to the narrowest."""
    return tuple(scheme.name for scheme in SCHEMES)


def parse(scheme: str | Scheme) -> Scheme:
    """The scheme with its default options for a name; a scheme as it is. Raises InputError for anything else."""
    if hasattr(scheme, "convert"):
        return scheme
    for known in SCHEMES:
        if scheme == known.name:
            return known()
    raise unknown("scheme", scheme, names())
