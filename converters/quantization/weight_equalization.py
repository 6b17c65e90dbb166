"""Equalization for weights with one scale a tensor: gains of channels that bring the weights of a layer to one range.

A channel whose weights are far smaller than the layer's largest is stored with few integers where all share a scale.
The layer before can scale the channel up and the layer after scale it down again, so that both keep about the same part
of their range for it (https://arxiv.org/abs/1906.04721, section 4.1). Through RELU6 only gains of 1 and more are exact,
up to 6 divided by the channel's largest value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.quantization.equalization import MAX_GAIN, ChannelGroup, channel_groups, relu6_layers
from converters.quantization.ranges import ChannelStatistics
from converters.quantization.relu6_gains import HEADROOM, LIMIT
from converters.tflite.graph import WEIGHTED, Graph, Operator

SWEEPS = 12  # over all layers: each changes the ranges of its neighbours
LEAST_RANGE = 1e-6  # of a channel's weights, as a share of the largest: below, the channel is as good as empty
SHIFTS = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)  # quantiles of the channels that get a gain of 1 at most, after RELU6
LEAST_SHARE = 1e-3  # of the range: keeps the cost of empty channels finite


@dataclass(frozen=True, eq=False)
class _Place:
    """Tensors that share gains.

    Attributes:
        group: the tensors, their writers and readers.
        limit: the largest gains, `(channels,)`, after a RELU6; None where any gain is exact.
    """

    group: ChannelGroup
    limit: np.ndarray | None


def weight_gains(
    content: bytes,
    statistics: Mapping[str, ChannelStatistics],
    *,
    strength: float,
    fixed: frozenset[str] = frozenset(),
) -> dict[str, np.ndarray]:
    """The gains of the tensors between layers that equalize the ranges of the layers' weights.

    Args:
        content: a float TFLite file.
        statistics: of the channels of its `relu6_tensors`, by name.
        strength: exponent of the gains, above 0 and up to 1: lower ones change the activations' ranges less.
        fixed: the names of tensors that get no gains.

    Returns:
        `(channels,)` by name of tensor.
    """
    graph = Graph(content)
    places = [p for p in _places(graph, statistics) if fixed.isdisjoint(map(graph.name, p.group.tensors))]
    places.sort(key=lambda place: place.group.writers[0].index)
    weights = {o.index: graph.values(o.inputs[1]) for place in places for o in _layers(place.group)}
    gains: dict[int, np.ndarray] = {}
    for _ in range(SWEEPS):
        for place in places:
            written = [_ranges(o, weights, gains, of_output=True) for o in place.group.writers if o.index in weights]
            if not written:
                continue
            read = [_ranges(o, weights, gains, of_output=False) for o in place.group.readers]
            gain = _gain(np.max(written, axis=0), np.max(read, axis=0), place.limit, strength)
            gains.update(dict.fromkeys(place.group.tensors, gain))
    return {graph.name(tensor): gain for tensor, gain in gains.items()}


def _places(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> list[_Place]:
    places = [_Place(group, None) for group in channel_groups(graph)]
    for operator, readers in relu6_layers(graph).items():
        high = np.minimum(statistics[graph.name(operator.outputs[0])].high * HEADROOM, LIMIT)
        limit = np.clip(LIMIT / np.maximum(high, 1e-9), 1, MAX_GAIN)
        places.append(_Place(ChannelGroup((operator,), tuple(readers), False), limit))
    return places


def _layers(group: ChannelGroup) -> list[Operator]:
    return [operator for operator in (*group.writers, *group.readers) if operator.name in WEIGHTED]


def _ranges(
    operator: Operator, weights: Mapping[int, np.ndarray], gains: Mapping[int, np.ndarray], *, of_output: bool
) -> np.ndarray:
    """The largest weight of each channel, without that channel's own gain, as a share of the layer's largest."""
    values = np.abs(weights[operator.index]).astype(np.float64)
    last, first = (values.ndim - 1,), (-1, *[1] * (values.ndim - 1))
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    of_input, of_result = gains.get(operator.inputs[0]), gains.get(operator.outputs[0])
    scaled = values if of_input is None else values / of_input
    if of_result is not None:
        scaled = scaled * (of_result if depthwise else of_result.reshape(first))
    own = of_result if of_output else of_input
    by_first = of_output and not depthwise
    axes = tuple(range(1, values.ndim)) if by_first else tuple(set(range(values.ndim)) - set(last))
    ranges = scaled.max(axes) / max(float(scaled.max()), 1e-30)
    if own is None:
        return ranges
    return ranges / own if of_output else ranges * own


def _gain(written: np.ndarray, read: np.ndarray, limit: np.ndarray | None, strength: float) -> np.ndarray:
    """The gains for the ranges of the weights that write and that read each channel."""
    wanted = np.sqrt(np.maximum(read, LEAST_RANGE * read.max()) / np.maximum(written, LEAST_RANGE * written.max()))
    wanted = wanted**strength
    if limit is None:
        return np.clip(wanted / np.exp(np.log(wanted).mean()), 1 / MAX_GAIN, MAX_GAIN)

    def cost(gain: np.ndarray) -> float:
        total = 1.0
        for ranges in (written * gain, read / gain):
            shares = ranges / max(float(ranges.max()), 1e-30)
            total *= float(np.mean(1 / (shares + LEAST_SHARE) ** 2))
        return total

    candidates = [np.clip(wanted * shift, 1, limit) for shift in np.quantile(1 / wanted, SHIFTS)]
    return min(candidates, key=cost)
