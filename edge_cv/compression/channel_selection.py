"""Which channels to remove: importance of channels against the time that they cost.

Pruning Filters for Efficient ConvNets, Li et al. 2016, https://arxiv.org/abs/1608.08710 (`l1`: norm of the filters);
Learning Efficient Convolutional Networks through Network Slimming, Liu et al. 2017, https://arxiv.org/abs/1708.06519
(`batch_norm`: scales of batch normalization)
"""

from __future__ import annotations

import math

import numpy as np

from converters.errors import InputError
from edge_cv.compression.channel_graph import ChannelGraph, LayerChannels
from edge_cv.models.kernels import combining_kernel

CHANNEL_STEP = 8  # channels that are left come in multiples of 8, which suits fast kernels
MIN_SHARE = 0.25  # of a group's channels that is always kept
# The time that a removed channel saves is estimated in multiply-accumulates of a plain convolution. Those of a
# depthwise filter take longer, and so does each value that is written. MobileNetV2 at 224 pixels, pruned to half its
# MACs with these factors, ran in 0.53 of the time in float and 0.56 in int8; by MACs alone in 0.61 and 0.67 (LiteRT
# 2.3, x86).
DEPTHWISE_COST = 8.0
VALUE_COST = 48.0


def select_channels(graph: ChannelGraph, keep: float, importance: str | np.ndarray, name: str) -> np.ndarray:
    """Choose channels to remove until the MACs fall to a share of the original.

    Each step removes the eight least important channels of the group that loses the least importance per saved time.

    Args:
        graph: the dependent channels of a model.
        keep: share of the MACs that may remain, between 0 and 1.
        importance: `batch_norm` or `l1`, or a value for each channel.
        name: the model's name, for messages.

    Returns:
        bool `(channels,)`, true for the roots of the channels to remove.

    Raises:
        InputError: if there is nothing to remove, or the share cannot be reached.
    """
    selection = _Selection(graph, importance, name)
    while selection.macs > keep * selection.total_macs:
        if not selection.remove_step():
            raise InputError(
                f"the MACs of {name!r} can be pruned to a share of {selection.macs / selection.total_macs:.2f}, no "
                f"further, without leaving layers of fewer than {CHANNEL_STEP} channels or a quarter. "
                f"Received: {keep:g}"
            )
    return selection.removed


class _Selection:
    """Groups of channels with their importance, and the costs of the layers that they belong to.

    Attributes:
        removed: which roots are removed so far.
        macs: of the layers with kernels, without the removed channels.
        total_macs: the same at the beginning.
    """

    def __init__(self, graph: ChannelGraph, importance: str | np.ndarray, name: str) -> None:
        groups = [group for group in graph.groups() if len(group) > CHANNEL_STEP]
        if not groups:
            raise InputError(
                f"channel pruning needs layers of more than {CHANNEL_STEP} channels. Received: {name!r} without one"
            )
        self.removed = np.zeros(graph.size, bool)
        self._importance = channel_importance(graph, importance) if isinstance(importance, str) else importance
        self._cost = _Cost(graph)
        self._layers = [self._cost.layers_with(group) for group in groups]  # of each group
        self._queues = [group[np.argsort(self._importance[group], kind="stable")] for group in groups]
        self._counts = [0] * len(groups)  # removed channels of each group
        self._costs = {layer: self._cost(layer, self.removed) for layer in self._cost.layers}
        self.macs = self.total_macs = sum(macs for macs, _ in self._costs.values())
        self._candidates = [self._candidate(index) for index in range(len(groups))]

    def _candidate(self, index: int) -> tuple[float, np.ndarray] | None:
        """The next channels of a group and the importance lost per saved cost; None when the group is small enough."""
        queue, count = self._queues[index], self._counts[index]
        remaining = len(queue) - count
        step = remaining % CHANNEL_STEP or CHANNEL_STEP
        if remaining - step < max(CHANNEL_STEP, MIN_SHARE * len(queue)):
            return None
        channels = queue[count : count + step]
        self.removed[channels] = True
        saved = sum(self._costs[layer][1] - self._cost(layer, self.removed)[1] for layer in self._layers[index])
        self.removed[channels] = False
        # The fewer channels are left, the more each of them matters.
        lost = float(self._importance[channels].sum()) * len(queue) / remaining
        return lost / max(saved, 1.0), channels

    def remove_step(self) -> bool:
        """Remove the best candidate; False if there is none."""
        candidates = {index: candidate for index, candidate in enumerate(self._candidates) if candidate is not None}
        if not candidates:
            return False
        best = min(candidates, key=lambda index: (candidates[index][0], index))
        _, channels = candidates[best]
        self.removed[channels] = True
        self._counts[best] += len(channels)
        for layer in self._layers[best]:
            self.macs -= self._costs[layer][0]
            self._costs[layer] = self._cost(layer, self.removed)
            self.macs += self._costs[layer][0]
        changed = set(self._layers[best])
        for index, layers in enumerate(self._layers):
            if changed & set(layers):
                self._candidates[index] = self._candidate(index)
        return True


class _Cost:
    """Cost of the layers with kernels, without the removed channels."""

    def __init__(self, graph: ChannelGraph) -> None:
        self.layers = {name: layer for name, layer in graph.layers.items() if layer.has_kernel}
        self._roots = {
            name: (graph.roots(layer.inputs), graph.roots(layer.outputs)) for name, layer in self.layers.items()
        }

    def layers_with(self, channels: np.ndarray) -> list[str]:
        """Names of the layers that read or compute one of the channels."""
        members = set(channels.tolist())
        return [name for name in self.layers if any(members & set(roots.tolist()) for roots in self._roots[name])]

    def __call__(self, name: str, removed: np.ndarray) -> tuple[float, float]:
        """`(MACs, estimated time)` of a layer, the time in MACs of a plain convolution."""
        layer: LayerChannels = self.layers[name]
        inputs, outputs = (float(np.count_nonzero(~removed[roots])) for roots in self._roots[name])
        operation, values = layer.operation, layer.positions * outputs
        if layer.kind == "Dense":
            return values * inputs, values * (inputs + VALUE_COST)
        taps = math.prod(operation.kernel_size)
        if layer.kind == "DepthwiseConv2D":
            return values * taps, values * (taps * DEPTHWISE_COST + VALUE_COST)
        if layer.kind == "SeparableConv2D":
            between = layer.positions * inputs * operation.depth_multiplier
            filters = between * taps
            points = between * outputs
            return filters + points, filters * DEPTHWISE_COST + points + (between + values) * VALUE_COST
        macs = values * taps * inputs / operation.groups
        return macs, macs + values * VALUE_COST


def channel_importance(graph: ChannelGraph, measure: str) -> np.ndarray:
    """The importance of each root: relative to the mean of a layer, summed over the layers that compute the channel.

    Args:
        graph: the dependent channels of a model.
        measure: `batch_norm`, the absolute scales of the normalization behind a layer where there is one, or `l1`, the
            sum of the absolute weights of the filter.

    Returns:
        float `(channels,)`.
    """
    importance = np.zeros(graph.size)
    scales: dict[int, np.ndarray] = {}  # by the first channel of the normalized layer
    if measure == "batch_norm":
        for layer in graph.layers.values():
            if layer.kind == "BatchNormalization" and layer.operation.scale:
                scales.setdefault(int(layer.inputs[0]), np.abs(np.asarray(layer.operation.gamma)))
    for layer in graph.layers.values():
        variable = combining_kernel(layer.operation)
        if variable is None:
            continue
        kernel = np.asarray(variable)
        size = np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0)
        scale = scales.get(int(layer.outputs[0]))
        if scale is not None and len(scale) == len(size):
            size = np.where(size == 0, 0, scale)
        np.add.at(importance, graph.roots(layer.outputs), size / max(float(size.mean()), 1e-12))
    return importance
