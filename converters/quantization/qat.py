"""What quantization-aware training simulates: the tensors that an int8 file rounds, with their ranges.

Training must round where the device will. The converted graph shows where: `fake_quant_ranges` names its tensors.
After training, the scheme `Int8FromQat` makes the file with the learned ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.float_model import FloatModel
from converters.images.preprocessing import Preprocessing
from converters.quantization.normalization import NormalizedGraph, strip_normalization
from converters.quantization.ranges import activation_ranges
from converters.quantization.rewrite import full_integer
from converters.tflite.graph import WEIGHTED, Graph
from converters.tflite.runtime import visit

# These operators' outputs have a range of their own; any other operator may keep its input's.
OWN_RANGE = (*WEIGHTED, "ADD", "DIV", "MUL", "SUB")
EQUAL_TOLERANCE = 1e-3  # largest difference of an output from a tensor, relative to the tensor's largest value
FIXED_RANGE = ("LOGISTIC", "LOG_SOFTMAX", "SOFTMAX", "TANH")


@dataclass(frozen=True)
class FakeQuantRange:
    """One tensor that the int8 file rounds to 256 values.

    Attributes:
        low, high: the smallest and the largest of these values.
        fixed: whether the operator that writes it requires this range.
        follows: the tensor whose range it keeps, as after a pooling; None for one with a range of its own.
    """

    low: float
    high: float
    fixed: bool = False
    follows: str | None = None


def fake_quant_ranges(
    model: FloatModel, images: np.ndarray, preprocessing: Preprocessing | None
) -> dict[str, FakeQuantRange]:
    """Each computed tensor that the plain int8 file of a float model rounds, by name, with its calibrated range.

    Args:
        model: the float model.
        images: `(n, height, width, 3)` in the range that it takes.
        preprocessing: as in `to_tflite`.
    """
    normalized = strip_normalization(model, preprocessing)
    graph = Graph(nearest_int8(normalized, images, {}))
    ranges: dict[str, FakeQuantRange] = {}
    for operator in graph.operators():
        for tensor in operator.outputs:
            quantization = graph.quantization(tensor)
            if quantization is None or graph.dtype(tensor) != np.int8:
                continue
            scale, zero = float(quantization[0][0]), int(quantization[1][0])
            source = operator.inputs[0] if operator.inputs else -1
            of_source = graph.quantization(source)
            same = of_source is not None and (float(of_source[0][0]), int(of_source[1][0])) == (scale, zero)
            follows = graph.name(source) if same and operator.name not in OWN_RANGE + FIXED_RANGE else None
            ranges[graph.name(tensor)] = FakeQuantRange(
                scale * (-128 - zero), scale * (127 - zero), operator.name in FIXED_RANGE, follows
            )
    return ranges


def tensor_values(model: FloatModel, image: np.ndarray) -> dict[str, np.ndarray]:
    """The value of each tensor of the float graph for one image `(height, width, 3)`, by name."""
    graph = Graph(model.content)
    graph.set_outputs([tensor for operator in graph.operators() for tensor in operator.outputs])
    values: dict[str, np.ndarray] = {}

    def look(index: int, at: Any) -> None:
        for detail in at.get_output_details():
            values[detail["name"]] = at.get_tensor(detail["index"])

    visit([(graph.to_bytes(), None)], image[None], look)
    return values


def equal_tensors(values: Mapping[str, np.ndarray], output: Any) -> list[str]:
    """The tensors that an output of the source model is, by their values.

    Args:
        values: of the tensors, by name.
        output: of an operation, for the same image.
    """
    flat = np.asarray(output).reshape(-1)
    return [
        name
        for name, value in values.items()
        if value.size == flat.size and np.abs(value.reshape(-1) - flat).max() <= EQUAL_TOLERANCE * np.abs(value).max()
    ]


def input_gain(model: FloatModel, preprocessing: Preprocessing | None) -> np.ndarray | None:
    """`(3,)`, the factors by which the int8 file multiplies the first convolution's weights of R, G and B.

    None where it does not: where all channels are normalized alike, or by operators of their own.
    """
    return strip_normalization(model, preprocessing).gain


def int8_of_fake_quantized(model: FloatModel, normalized: NormalizedGraph, images: np.ndarray) -> bytes:
    """The int8 file of a model that was trained with fake quantization, by its learned ranges.

    Args:
        model: with `learned_ranges`.
        normalized: its graph.
        images: as in `nearest_int8`.
    """
    graph = Graph(normalized.content)
    computed = {graph.name(tensor) for operator in graph.operators() for tensor in operator.outputs}
    learned = {name: ends for name, ends in model.learned_ranges.items() if name in computed}
    return nearest_int8(normalized, images, learned, model.learned_ranges.get(graph.name(graph.inputs[0])))


def nearest_int8(
    normalized: NormalizedGraph,
    images: np.ndarray,
    learned: Mapping[str, tuple[float, float]],
    input_range: tuple[float, float] | None = None,
) -> bytes:
    """The int8 file with weights rounded to the nearest.

    Args:
        normalized: the float graph.
        images: `(n, height, width, 3)` in the range that the whole model takes; they give the ranges of all tensors
            that are not in `learned`.
        learned: ranges by name of tensor.
        input_range: the learned range of the input, which a model that takes pixels does not need.

    Raises:
        InputError: a learned range is of a tensor that the graph does not have.
    """
    inputs = normalized.normalize(images)
    ranges = activation_ranges(normalized.content, inputs)
    unknown = sorted(set(learned) - set(ranges))
    if unknown:
        raise InputError(f"learned ranges must be of the model's tensors. Received: a range of {unknown[0]!r}")
    if input_range is None or normalized.zero_point is not None:
        input_range = normalized.input_range(inputs)
    return full_integer(normalized.content, ranges | dict(learned), input_range)
