"""Masks of attention: logits that are set far below all others, so that the softmax makes 0 of them.

A mask adds -1e9, or writes it. With it in a tensor's range, one step is four million, and the other logits are lost.
The softmax makes nearly 0 of every value that is some units below the largest of its row: int8 takes a range that ends
there, and the masked values saturate at its low end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from converters.tflite.graph import Graph, Operator
from converters.tflite.layers import MASKED_BELOW

MASKED = -MASKED_BELOW  # what a mask adds or writes is below
STEPS = {8: 256, 16: 32768}  # of the softmax's output, 0..1; all masked values of a row together get less than one step


@dataclass(frozen=True)
class _Mask:
    """An operator that masks the input of a softmax.

    Attributes:
        operator: an ADD of a constant, or a SELECT of a constant.
        logits: the tensor that it masks.
        constant: the position of the constant among its inputs.
        results: its output, and the same values in other shapes, up to the softmax's input.
        softmax: the operator that reads them.
    """

    operator: Operator
    logits: int
    constant: int
    results: tuple[int, ...]
    softmax: Operator


def fit_masks(graph: Graph, ranges: dict[str, tuple[float, float]], activation_bits: int) -> None:
    """Narrow the ranges of masked logits, and the masks, to values whose softmax is not far below a step.

    Args:
        graph: a float graph; its masks are changed.
        ranges: minimum and maximum of each computed tensor, by name; changed too.
        activation_bits: 8 or 16.
    """
    for mask in _masks(graph):
        name, values = graph.name(mask.logits), graph.values(mask.operator.inputs[mask.constant])
        if name not in ranges or not np.isfinite(ranges[name]).all():
            continue
        adds = mask.operator.name == "ADD"
        kept = values[values > MASKED] if adds else np.zeros(1)
        low, high = ranges[name][0] + float(kept.min(initial=0)), ranges[name][1] + float(kept.max(initial=0))
        row = graph.shape(mask.softmax.inputs[0])[-1]
        low -= math.log(row * STEPS[activation_bits])
        masked = low - ranges[name][1] if adds else low
        if values.min() > masked:
            continue
        tensor = graph.add_tensor(f"{name}/mask_{mask.operator.index}", "FLOAT32", values.shape)
        graph.set_constant(tensor, np.maximum(values, masked).astype(np.float32))
        inputs = list(mask.operator.inputs)
        inputs[mask.constant] = tensor
        graph.set_inputs(mask.operator, inputs)
        ranges.update({graph.name(result): (low, high) for result in mask.results})


def _masks(graph: Graph) -> list[_Mask]:
    makers = {tensor: operator for operator in graph.operators() for tensor in operator.outputs}
    readers, found = graph.readers(), []
    for softmax in makers.values():
        results = [softmax.inputs[0]] if softmax.name == "SOFTMAX" else []
        while results and (maker := makers.get(results[-1])) is not None:
            if len(readers[results[-1]]) != 1 or results[-1] in graph.outputs:
                break
            if maker.name == "RESHAPE":
                results.append(maker.inputs[0])
                continue
            found += [_Mask(maker, *ends, tuple(results), softmax) for ends in _masking(graph, maker)]
            break
    return found


def _masking(graph: Graph, operator: Operator) -> list[tuple[int, int]]:
    """The tensor that an operator masks, and the position of the constant that does; empty where it masks none."""
    if operator.name not in ("ADD", "SELECT", "SELECT_V2"):
        return []
    last = len(operator.inputs) - 1
    for constant, logits in ((last, last - 1), (last - 1, last)):
        values = graph.constant(operator.inputs[constant])
        if values is None or graph.constant(operator.inputs[logits]) is not None or not values.size:
            continue
        masked = values <= MASKED
        if masked.all() if operator.name != "ADD" else masked.any():
            return [(operator.inputs[logits], constant)]
    return []
