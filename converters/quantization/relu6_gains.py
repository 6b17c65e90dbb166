"""Equalization through RELU6: gains of channels below 6, chosen by their effect on the model's outputs.

A channel that stays below 6 can be scaled up until it reaches the range of the tensor's largest channels; its values
then round to finer steps, and RELU6 clips it at 6 divided by its gain. A strong gain is precise and clips values that
the calibration images do not show, a weak one the reverse; which is better is measured, for each channel first and
then for the tensor with the layers that read it, on images that did not make the gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.quantization.equalization import MAX_GAIN, ROUNDING_SHARE, relu6_layers
from converters.quantization.ranges import ChannelStatistics
from converters.quantization.sensitivity import Error, channel_error, noise, rounded
from converters.quantization.tensorflow_graph import TensorflowGraph
from converters.tflite.graph import Graph, Operator

# Exponents of the largest gain of each channel, each with shares of the range that remains, which is searched more
# closely afterwards: the more equal the ranges of the channels, the less is gained by clipping the tensor.
CANDIDATES = {0.0: (1.0, 0.8, 0.6, 0.45), 0.25: (1.0, 0.8, 0.6), 0.5: (1.0, 0.8), 0.75: (1.0, 0.8), 1.0: (1.0,)}
HEADROOM = 1.3  # a channel's largest value on other images, as a multiple of that on these
LIMITS = (HEADROOM, 1.15, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of a channel's largest value: where it may be clipped
LIMIT = 6.0


def relu6_tensors(content: bytes) -> frozenset[str]:
    """The names of the tensors that `least_noise_gains` may scale, and whose channels' statistics it needs."""
    graph = Graph(content)
    return frozenset(graph.name(operator.outputs[0]) for operator in relu6_layers(graph))


def least_noise_gains(
    graph: TensorflowGraph, statistics: Mapping[str, ChannelStatistics], inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """The gains of each tensor after a RELU6 that change the outputs least, once it is rounded.

    Args:
        graph: the float graph.
        statistics: of the channels of its `relu6_tensors`, by name.
        inputs: `(n, height, width, channels)`, other images than those of the statistics.

    Returns:
        `(channels,)` by name of tensor, 1 or more; tensors that are best as they are have no entry.
    """
    errors: dict[int, list[Error]] = {}
    weight_errors: dict[int, list[Error]] = {}
    gains: dict[int, list[np.ndarray]] = {}
    reading: dict[int, list[Operator]] = {}
    limits = _least_noise_limits(graph, statistics, inputs)
    for operator, readers in relu6_layers(graph.graph).items():
        tensor = operator.outputs[0]
        if tensor not in limits:
            continue
        high = limits[tensor]
        room = np.clip(high.max() / np.maximum(high, 1e-30), 1, MAX_GAIN)
        seen = statistics[graph.graph.name(tensor)].high
        room[seen <= 1e-6 * seen.max()] = 1.0  # silent on these images, but perhaps not on others
        gains[tensor] = [(room**exponent).astype(np.float32) for exponent in CANDIDATES]
        errors[tensor] = [
            _activation_error(tensor, gain, share * float((gain * high).max()))
            for gain, shares in zip(gains[tensor], CANDIDATES.values(), strict=True)
            for share in shares
        ]
        reading[tensor] = [reader for reader in readers if reader.name != "DEPTHWISE_CONV_2D"]
        for reader in reading[tensor]:  # whose weights have one scale for all input channels
            weight_errors[reader.outputs[0]] = [_weight_error(graph, reader, gain) for gain in gains[tensor]]
    # One after the other, with the same random v: both at once take half a gigabyte more. A tensor may be in both.
    costs, weight_costs = noise(graph, inputs, errors), noise(graph, inputs, weight_errors)
    chosen: dict[str, np.ndarray] = {}
    first = np.cumsum([0, *map(len, CANDIDATES.values())])[:-1]  # of the shares of each exponent
    for tensor, candidates in gains.items():
        cost = np.minimum.reduceat(costs[tensor], first)
        cost = cost + sum(weight_costs[reader.outputs[0]] for reader in reading[tensor])
        best = int(np.argmin(cost))
        if best:
            chosen[graph.graph.name(tensor)] = candidates[best].astype(np.float64)
    return chosen


def _least_noise_limits(
    graph: TensorflowGraph, statistics: Mapping[str, ChannelStatistics], inputs: np.ndarray
) -> dict[int, np.ndarray]:
    """The limit of each channel after a RELU6 that has the least noise if all steps are below it; `(channels,)`."""
    candidates: dict[int, list[np.ndarray]] = {}
    for operator in relu6_layers(graph.graph):
        high = statistics[graph.graph.name(operator.outputs[0])].high
        if high.max() > 0:
            least = 1e-6 * high.max()
            candidates[operator.outputs[0]] = [np.clip(high * share, least, LIMIT) for share in LIMITS]
    errors = {
        t: [channel_error(t, np.zeros_like(limit), limit) for limit in limits] for t, limits in candidates.items()
    }
    costs = noise(graph, inputs, errors, by_channel=True)
    return {t: np.take_along_axis(np.array(candidates[t]), costs[t].argmin(0)[None], 0)[0] for t in candidates}


def _activation_error(tensor: int, gain: np.ndarray, high: float) -> Error:
    return lambda values: rounded(values[tensor] * gain, 0.0, high) / gain - values[tensor]


def _weight_error(graph: TensorflowGraph, reader: Operator, gain: np.ndarray) -> Error:
    """The error of a reader's output by the rounding of its weights, which GPTQ reduces; its mean is corrected."""
    weights = graph.graph.values(reader.inputs[1])
    scaled = weights / gain
    rows = np.abs(scaled).reshape(len(scaled), -1).max(1)
    rows = np.full_like(rows, rows.max()) if reader.name == "FULLY_CONNECTED" else rows
    step = np.maximum(rows, 1e-30).reshape(-1, *[1] * (weights.ndim - 1)) / 127
    wrong = ((np.rint(scaled / step) * step - scaled) * gain * np.sqrt(ROUNDING_SHARE)).astype(np.float32)

    def error(values: Mapping[int, Any]) -> Any:
        import tensorflow as tf

        change = graph.linear(reader, values[reader.inputs[0]], wrong)
        change -= tf.reduce_mean(change, list(range(len(change.shape) - 1)), keepdims=True)
        if graph.graph.options(reader).fusedActivationFunction:  # where the activation is flat, nothing changes
            inside = tf.logical_and(values[reader.outputs[0]] > 0, values[reader.outputs[0]] < LIMIT)
            change = tf.where(inside, change, 0.0)
        return change

    return error
