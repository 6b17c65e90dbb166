"""Fake quantization in a float TFLite graph: pairs of QUANTIZE and DEQUANTIZE, and the ranges that they learned.

They round activations to learned ranges, and weights. Both are removed: weights keep their rounded values, and the
ranges are returned, from which an int8 file is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from converters.tflite.graph import Graph, Operator


@dataclass(frozen=True)
class _Pair:
    """A QUANTIZE of a float tensor and a DEQUANTIZE of its result."""

    quantize: Operator
    dequantize: Operator

    @property
    def given(self) -> int:
        return self.quantize.inputs[0]

    @property
    def quantized(self) -> int:
        return self.quantize.outputs[0]

    @property
    def rounded(self) -> int:
        return self.dequantize.outputs[0]


def rounded_tensors(graph: Graph) -> frozenset[int]:
    """The integer tensors of a graph that are only the middle of a fake quantization."""
    return frozenset(pair.quantized for pair in _pairs(graph))


def remove_fake_quantization(graph: Graph) -> dict[int, tuple[float, float]]:
    """Remove every fake quantization from a graph.

    Returns:
        The learned range, the smallest and the largest value, of each activation by its tensor; empty where the graph
        has none.
    """
    ranges: dict[int, tuple[float, float]] = {}
    replaced: dict[int, int] = {}
    removed: set[int] = set()
    for pair in list(_pairs(graph)):
        values = graph.constant(pair.given)
        if values is None:
            ranges[pair.given] = _range(graph, pair.quantized)
            replaced[pair.rounded] = pair.given
        else:
            constant = graph.add_tensor(graph.name(pair.rounded), "FLOAT32", values.shape)
            graph.set_constant(constant, _rounded(graph, pair.quantized, values))
            replaced[pair.rounded] = constant
        removed |= {pair.quantize.index, pair.dequantize.index}
    for operator in list(graph.operators()):
        if operator.index not in removed and not replaced.keys().isdisjoint(operator.inputs):
            graph.set_inputs(operator, [replaced.get(tensor, tensor) for tensor in operator.inputs])
    for tensor in graph.outputs:
        if tensor in replaced:
            graph.replace_output(tensor, replaced[tensor])
    graph.remove_operators(sorted(removed))
    return ranges


def _pairs(graph: Graph) -> Iterator[_Pair]:
    readers = graph.readers()
    for operator in graph.operators():
        if operator.name != "QUANTIZE" or graph.dtype(operator.inputs[0]) != np.float32:
            continue
        reading = readers.get(operator.outputs[0], [])
        if operator.outputs[0] in graph.outputs or not all(reader.name == "DEQUANTIZE" for reader in reading):
            continue
        for reader in reading:
            if graph.dtype(reader.outputs[0]) == np.float32:
                yield _Pair(operator, reader)


def _range(graph: Graph, tensor: int) -> tuple[float, float]:
    """The smallest and the largest value of a quantized tensor of one scale."""
    scales, zeros = graph.parameters(tensor)
    limits = np.iinfo(graph.dtype(tensor) or np.dtype(np.int8))
    scale, zero = float(scales[0]), int(zeros[0])
    return scale * (limits.min - zero), scale * (limits.max - zero)


def _rounded(graph: Graph, tensor: int, values: np.ndarray) -> np.ndarray:
    """Values as they are after they were quantized as `tensor` and dequantized."""
    scales, zeros = graph.parameters(tensor)
    limits = np.iinfo(graph.dtype(tensor) or np.dtype(np.int8))
    if len(scales) > 1:
        shape = [1] * values.ndim
        shape[graph.tensors[tensor].quantization.quantizedDimension] = len(scales)
        scales, zeros = scales.reshape(shape), zeros.reshape(shape)
    integers = np.clip(np.rint(values / scales) + zeros, limits.min, limits.max)
    return ((integers - zeros) * scales).astype(np.float32)
