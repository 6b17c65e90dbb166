"""Weights that share a few values, as clustering leaves them: recognized, and kept few in an int8 file.

An int8 file is compressed well only if its integers stay few, too. So such a layer gets one scale for all its channels,
its weights are rounded to the nearest, and channels are not equalized.
"""

from __future__ import annotations

import numpy as np

from converters.quantization.weight_scales import set_scale
from converters.tflite.graph import WEIGHTED, Graph

MAX_VALUES = 256
WEIGHTS_PER_VALUE = 4  # at least, on average: fewer repetitions may be chance


def is_clustered(weights: np.ndarray, *, channel_axis: int = 0) -> bool:
    """Whether a layer's weights have few different values, in all or in each channel: batch norm scales each channel.

    Args:
        weights: float, of any shape.
        channel_axis: the axis of the layer's outputs.
    """
    given = weights[weights != 0]  # zeros are pruning's
    values = len(np.unique(given))
    if values <= MAX_VALUES and WEIGHTS_PER_VALUE * values <= given.size:
        return values > 1
    rows = np.sort(np.moveaxis(weights, channel_axis, 0).reshape(weights.shape[channel_axis], -1), axis=1)
    different = len(rows) + np.count_nonzero(np.diff(rows, axis=1)) - np.count_nonzero((rows == 0).any(1))
    return bool(WEIGHTS_PER_VALUE * different <= given.size and different > len(rows))


def has_clusters(content: bytes) -> bool:
    """Whether a float graph has a layer of clustered weights."""
    graph = Graph(content)
    for operator in graph.operators():
        weights = graph.constant(operator.inputs[1]) if operator.name in WEIGHTED else None
        if weights is not None and is_clustered(weights, channel_axis=_channel_axis(operator.name)):
            return True
    return False


def with_shared_scales(float_content: bytes, content: bytes) -> bytes:
    """An int8 file whose clustered layers have one scale for all channels, so that equal weights stay equal.

    Args:
        float_content: the float graph.
        content: its int8 file.
    """
    twins = Graph(float_content)
    by_output = twins.by_output()
    graph = Graph(content)
    for operator in list(graph.operators()):
        twin = by_output.get(graph.name(operator.outputs[0]))
        if operator.name not in WEIGHTED or twin is None or twin.name != operator.name or len(operator.inputs) < 2:
            continue
        weights, parameters = twins.constant(twin.inputs[1]), graph.quantization(operator.inputs[1])
        if weights is None or parameters is None or len(parameters[0]) == 1:
            continue
        few = len(np.unique(weights)) <= MAX_VALUES and is_clustered(weights, channel_axis=_channel_axis(operator.name))
        if not few or len(graph.readers()[operator.inputs[1]]) > 1:
            continue
        bias = twins.constant(twin.inputs[2]) if len(twin.inputs) > 2 else None
        set_scale(graph, operator, weights, bias, float(parameters[0].max()))
    return graph.to_bytes()


def _channel_axis(operator: str) -> int:
    return 3 if operator == "DEPTHWISE_CONV_2D" else 0
