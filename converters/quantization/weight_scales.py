"""The scale of int8 weights that have one for the whole tensor: of the least error, or a power of two.

The largest weight of a layer sets its scale. Where it is far above the others, a smaller scale that clips it rounds all
others to finer steps (https://arxiv.org/abs/1810.05723). A scale for each channel leaves little of that to gain.
"""

from __future__ import annotations

import numpy as np

from converters.quantization.rewrite import MAX_BIAS_STEPS
from converters.tflite.graph import WEIGHTED, Graph, Operator

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)  # of the scale that clips no weight
POWERS = (1.0, 0.5, 0.25)  # the same for powers of two


def with_fitted_scales(float_content: bytes, content: bytes, *, narrow: bool, powers_of_two: bool) -> bytes:
    """The file with its weights rounded again, where one scale holds for all of a layer's weights.

    Args:
        float_content: the float graph that the file was made from.
        content: a file of int8 weights.
        narrow: whether the scale may clip weights, where that has the least mean square error.
        powers_of_two: whether scales must be powers of two, for processors that requantize by shifting bits.
    """
    float_graph, graph = Graph(float_content), Graph(content)
    twins, readers = float_graph.by_output(), graph.readers()
    for operator in graph.operators():
        twin = twins.get(graph.name(operator.outputs[0]))
        if operator.name not in WEIGHTED or twin is None or twin.name != operator.name:
            continue
        scales, of_input = graph.quantization(operator.inputs[1]), graph.quantization(operator.inputs[0])
        weights, biases = float_graph.constant(twin.inputs[1]), [t for t in twin.inputs[2:3] if t >= 0]
        bias = float_graph.constant(biases[0]) if biases else None
        if scales is None or of_input is None or weights is None or (biases and bias is None) or len(scales[0]) > 1:
            continue
        if graph.constant(operator.inputs[1]) is None:
            continue
        scale, least = float(scales[0][0]), 0.0
        alone = len(readers[operator.inputs[1]]) == 1  # layers may share the weights
        shares = (POWERS if powers_of_two else SHARES) if narrow and alone else SHARES[:1]
        if powers_of_two:
            scale = float(2.0 ** np.ceil(np.log2(scale)))
        if bias is not None:  # it must not overflow with a smaller scale
            most = MAX_BIAS_STEPS[16 if graph.dtype(operator.inputs[2]) == np.int64 else 8]
            least = float(np.abs(bias).max()) / (most * float(of_input[0][0]))
        candidates = [share * scale for share in shares if share == 1 or share * scale >= least]
        scale = min(candidates, key=lambda candidate: _error(weights, candidate))
        if scale != scales[0][0]:
            set_scale(graph, operator, weights, bias, scale)
    return graph.to_bytes()


def set_scale(graph: Graph, operator: Operator, weights: np.ndarray, bias: np.ndarray | None, scale: float) -> None:
    """Round a layer's weights and bias again, with one scale for all weights.

    Args:
        graph: of int8 weights; changed in place.
        operator: the layer.
        weights, bias: the float ones, shaped as the layer's; a layer without bias has None.
        scale: of the weights.
    """
    of_weights = np.float32(scale)
    graph.set_constant(operator.inputs[1], _rounded(weights, of_weights).astype(np.int8))
    _set_scale(graph, operator.inputs[1], of_weights)
    if bias is not None:
        steps = np.float32(graph.parameters(operator.inputs[0])[0][0] * of_weights)
        kind = graph.values(operator.inputs[2]).dtype
        graph.set_constant(operator.inputs[2], np.rint(bias / np.float64(steps)).astype(kind))
        _set_scale(graph, operator.inputs[2], steps)


def _set_scale(graph: Graph, tensor: int, scale: np.float32) -> None:
    quantization = graph.tensors[tensor].quantization
    quantization.scale = np.full(len(quantization.scale), scale, np.float32)


def _rounded(weights: np.ndarray, scale: np.float32) -> np.ndarray:
    return np.clip(np.rint(weights / scale), -127, 127)


def _error(weights: np.ndarray, scale: float) -> float:
    of_weights = np.float32(scale)
    return float(np.square(_rounded(weights, of_weights) * of_weights - weights).sum(dtype=np.float64))
