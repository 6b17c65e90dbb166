"""int8 with ranges that training found: which tensors an int8 file rounds, and a file made with given ranges for them.

Quantization-aware training has to round where the device will. Where that is, the converted graph says: `roundings`
names its tensors. When the training is done, `Int8FromQat` makes the file with what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import ClassVar

import numpy as np

from converters.calibration import activation_ranges
from converters.errors import InputError, unknown
from converters.float_model import FloatModel, NormalizedGraph, strip_normalization
from converters.images.preprocessing import Preprocessing
from converters.quantization.rewrite import full_integer, with_io
from converters.schemes import IO_TYPES, Converted
from converters.tflite.graph import Graph
from converters.tflite.runtime import visit

# The grid of what these put out is in no relation to their inputs'; any other operator may hand its input's on.
OWN_GRID = ("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV", "FULLY_CONNECTED", "MUL", "SUB")
FIXED_GRID = ("LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH")


@dataclass(frozen=True)
class FakeQuantRange:
    """One tensor that the int8 file rounds to 256 values.

    Attributes:
        low, high: the smallest and the largest of these values.
        fixed: whether the operator that makes it allows no others.
        follows: the tensor whose values it takes over, as after a pooling; None for one with a range of its own.
    """

    low: float
    high: float
    fixed: bool = False
    follows: str | None = None


def roundings(model: FloatModel, images: np.ndarray, preprocessing: Preprocessing | None) -> dict[str, FakeQuantRange]:
    """Each computed tensor that the plain int8 file of a float model rounds, by its name, with calibrated ranges.

    Args:
        model: the float model.
        images: `(n, height, width, 3)` in the range that it takes.
        preprocessing: as `to_tflite` takes it.
    """
    body = strip_normalization(model, preprocessing)
    graph = Graph(_plain(body, images, {}))
    found: dict[str, FakeQuantRange] = {}
    for operator in graph.operators():
        for tensor in operator.outputs:
            quantization = graph.quantization(tensor)
            if quantization is None or graph.dtype(tensor) != np.int8:
                continue
            scale, zero = float(quantization[0][0]), int(quantization[1][0])
            source = operator.inputs[0] if operator.inputs else -1
            given = graph.quantization(source) if source >= 0 else None
            same = given is not None and (float(given[0][0]), int(given[1][0])) == (scale, zero)
            follows = graph.name(source) if same and operator.name not in OWN_GRID + FIXED_GRID else None
            found[graph.name(tensor)] = FakeQuantRange(
                scale * (-128 - zero), scale * (127 - zero), operator.name in FIXED_GRID, follows
            )
    return found


def tensor_values(model: FloatModel, image: np.ndarray) -> dict[str, np.ndarray]:
    """What each tensor of the float graph holds for one image `(height, width, 3)`, by the tensor's name."""
    graph = Graph(model.content)
    graph.set_outputs([tensor for operator in graph.operators() for tensor in operator.outputs])
    values: dict[str, np.ndarray] = {}

    def look(index: int, at: object) -> None:
        for detail in at.get_output_details():
            values[detail["name"]] = at.get_tensor(detail["index"])

    visit([(graph.to_bytes(), None)], image[None], look)
    return values


def input_gain(model: FloatModel, preprocessing: Preprocessing | None) -> np.ndarray | None:
    """By how much the int8 file multiplies the weights of the first convolution, one number for each of R, G and B.

    None where it does not: where all channels are normalized alike, or by operators of their own.
    """
    body, normalization = strip_normalization(model, preprocessing), model.normalization
    if normalization is None or normalization.by_channel is None or body.content == model.content:
        return None
    return normalization.by_channel[0] / normalization.scale


@dataclass(frozen=True)
class Int8FromQat:
    """int8 as `Int8` makes it, with weights rounded to the nearest and ranges that were learned.

    Attributes:
        ranges: smallest and largest value of computed tensors, by the names of `roundings`; others are calibrated. Not
            part of the record: they are in the file, as the tensors' scales.
        io, min_sqnr_db, min_integer_share: as `Int8` has them.
    """

    ranges: InitVar[Mapping[str, tuple[float, float]]]
    io: str = "int8"
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int8"
    integer: ClassVar[bool] = True

    def __post_init__(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        if self.io not in IO_TYPES:
            raise unknown("io of an int8 scheme", self.io, IO_TYPES)
        object.__setattr__(self, "_ranges", dict(ranges))

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        body = strip_normalization(model, preprocessing)
        content = with_io(_plain(body, images, self._ranges), self.io, body)
        offset = {"int8": -128, "uint8": 0, "float32": None}[self.io]
        return Converted(content, None if body.zero_point is None else offset)


def _plain(body: NormalizedGraph, images: np.ndarray, learned: Mapping[str, tuple[float, float]]) -> bytes:
    """The body in int8, weights rounded to the nearest."""
    inputs = body.feed(images)
    ranges = activation_ranges(body.content, inputs)
    strange = set(learned) - set(ranges)
    if strange:
        raise InputError(f"learned ranges must be of the model's tensors. Received: one of {sorted(strange)[0]!r}")
    return full_integer(body.content, ranges | dict(learned), body.range_of(inputs))
