"""Which channels of a model depend on each other, so that they can only be removed together.

DepGraph: Towards Any Structural Pruning, Fang et al. 2023, https://arxiv.org/abs/2301.12900

Each channel that a layer computes has a number. The graph is walked with arrays of these numbers in the place of
tensors: a depthwise filter passes on its input's numbers, a concatenation joins them, flattening repeats them for each
position. Where two tensors are added or multiplied their channels become one, which is kept or removed as a whole.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.keras_graph import check_called_once, functional_form, is_augmentation, walk
from edge_cv.models.kernels import KERNELS

if TYPE_CHECKING:
    import keras

# fmt: off
ELEMENTWISE = frozenset(
    [
        "Activation", "AveragePooling2D", "Dropout", "ELU", "GaussianNoise", "GlobalAveragePooling2D",
        "GlobalMaxPooling2D", "Identity", "LeakyReLU", "MaxPooling2D", "ReLU", "SpatialDropout2D",
        "StochasticDepth", "UpSampling2D", "Absolute", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu",
        "LeakyRelu", "Log", "Negative", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid", "Silu", "Softplus", "Sqrt",
        "Square", "Tanh",
    ]
)
# fmt: on
PER_CHANNEL = frozenset(["BatchNormalization", "LayerScale", "PReLU"])  # weights whose last axis is the channels
JOINING = frozenset(["Add", "Average", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"])


@dataclass(frozen=True, eq=False)
class LayerChannels:
    """The channels that one layer or operation reads and computes.

    Attributes:
        operation: the layer or raw operation.
        inputs: numbers of the channels along the last axis of its first input.
        outputs: numbers of the channels along the last axis of its output.
    """

    operation: Any
    inputs: np.ndarray
    outputs: np.ndarray

    @property
    def kind(self) -> str:
        """Name of the operation's class."""
        return type(self.operation).__name__

    @property
    def has_kernel(self) -> bool:
        """Whether the layer has a kernel: a convolution or a dense layer."""
        return self.kind in KERNELS

    @property
    def combines(self) -> bool:
        """Whether each output channel is computed from all input channels and is therefore a new channel."""
        return any(not kernel.depthwise for kernel in KERNELS.get(self.kind, ()))

    @property
    def positions(self) -> int:
        """Number of values of one output channel for one image."""
        return math.prod(self.operation.output.shape[1:-1])


class ChannelGraph:
    """The dependent channels of a model.

    Attributes:
        layers: the channels of each layer and operation, by its name in `walk`.
    """

    def __init__(self, model: keras.Model, exclude: Sequence[str] = ()) -> None:
        """
        Args:
            model: a functional or Sequential Keras 3 model of fixed input size, channels last.
            exclude: patterns of names of layers whose output channels are all kept.

        Raises:
            InputError: if a pattern matches no convolution or dense layer, or an operation is not supported.
        """
        self.layers: dict[str, LayerChannels] = {}
        self._parent: list[int] = []
        self._kept: set[int] = set()
        form = functional_form(model)
        check_called_once(model)
        for tensor in form.inputs:
            if None in tensor.shape[1:]:
                raise InputError(f"channel pruning needs a model of fixed input size. Received: {tuple(tensor.shape)}")
        inputs = [self._new_channels(tensor.shape[-1], kept=True) for tensor in form.inputs]
        for outputs in walk(model, inputs, self._visit):
            self._keep(outputs)
        for pattern in exclude:
            matching = [name for name in fnmatch.filter(self.layers, pattern) if self.layers[name].has_kernel]
            if not matching:
                raise InputError(f"exclude must name convolutions or dense layers. Received: {pattern!r}")
            for name in matching:
                self._keep(self.layers[name].outputs)

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self._parent)

    def roots(self, channels: np.ndarray) -> np.ndarray:
        """For each channel the representative of all channels that are kept or removed together with it."""
        return np.array([self._root(int(channel)) for channel in channels], np.int64)

    def kept_positions(self, channels: np.ndarray, removed: np.ndarray) -> np.ndarray:
        """The positions of the channels that stay when those whose roots are true in `removed` are removed."""
        return np.flatnonzero(~removed[self.roots(channels)])

    def groups(self) -> list[np.ndarray]:
        """The removable channels, as roots: one array for all channels that the same layers compute."""
        sources: dict[int, list[str]] = {}
        for name, layer in self.layers.items():
            if layer.combines:
                for root in set(self.roots(layer.outputs).tolist()):
                    sources.setdefault(root, []).append(name)
        kept = {self._root(channel) for channel in self._kept}
        groups: dict[tuple[str, ...], list[int]] = {}
        for root, names in sources.items():
            if root not in kept:
                groups.setdefault(tuple(names), []).append(root)
        return [np.array(roots) for roots in groups.values()]

    def _new_channels(self, count: int, *, kept: bool = False) -> np.ndarray:
        channels = np.arange(len(self._parent), len(self._parent) + count)
        self._parent.extend(channels.tolist())
        if kept:
            self._keep(channels)
        return channels

    def _keep(self, channels: np.ndarray) -> None:
        self._kept.update(int(channel) for channel in channels)

    def _all_kept(self, channels: np.ndarray) -> bool:
        return {self._root(int(channel)) for channel in channels} <= {self._root(channel) for channel in self._kept}

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def _tie(self, first: np.ndarray, second: np.ndarray) -> None:
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parent[b] = a
                if b in self._kept:
                    self._kept.add(a)

    def _visit(self, operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> np.ndarray:
        import keras

        inputs = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, np.ndarray)]
        inputs = [value for value in inputs if value.dtype == np.int64] or inputs
        outputs = self._outputs(operation, name, inputs)
        self.layers[name] = LayerChannels(operation, inputs[0], outputs)
        return outputs

    def _outputs(self, operation: Any, name: str, inputs: list[np.ndarray]) -> np.ndarray:
        """The channels of an operation's output."""
        kind, channels = type(operation).__name__, inputs[0]
        channels_first = getattr(operation, "data_format", None) == "channels_first"
        if kind in ("Cropping2D", "ZeroPadding2D"):  # with channels first they crop and pad channels
            return self._cropped_or_padded(operation, channels) if channels_first else channels
        if channels_first:
            raise InputError(f"channel pruning needs channels last. Received: layer {name!r} with channels first")
        if kind in ("Conv2D", "SeparableConv2D", "Dense"):
            return self._computed(operation, channels)
        if kind == "DepthwiseConv2D":
            return np.repeat(channels, operation.depth_multiplier)
        if (
            kind in ELEMENTWISE
            or kind in PER_CHANNEL
            or kind in ("Rescaling", "Normalization")
            or is_augmentation(operation)
        ):
            return channels
        if kind in ("LayerNormalization", "Softmax"):  # each value depends on all channels, even on those that are 0
            self._keep(channels)
            return channels
        if kind in JOINING:
            return self._joined(inputs, name)
        if kind == "Concatenate":
            rank = len(operation.output.shape) if hasattr(operation, "output") else 0
            return np.concatenate(inputs) if operation.axis in (-1, rank - 1) else self._joined(inputs, name)
        if kind == "Flatten":
            return np.tile(channels, math.prod(operation.input.shape[1:-1]))
        if kind == "Reshape" and operation.output.shape[-1] == len(channels):
            return channels
        if kind in ("Reshape", "ExpandDims") and self._all_kept(channels):  # such as of a grey image without channels
            return self._new_channels(operation.output.shape[-1], kept=True)
        if kind == "Mean" and not {-1, 3} & set(_axes(operation.axis)):
            return channels
        raise InputError(
            f"channel pruning does not support every operation. Received: {name!r}, of the unsupported kind {kind}"
        )

    def _cropped_or_padded(self, operation: Any, channels: np.ndarray) -> np.ndarray:
        crops = type(operation).__name__ == "Cropping2D"
        before, after = (operation.cropping if crops else operation.padding)[1]
        if crops:
            return channels[before : len(channels) - after]
        pad = self._new_channels(before + after, kept=True)
        return np.concatenate([pad[:before], channels, pad[before:]])

    def _computed(self, operation: Any, channels: np.ndarray) -> np.ndarray:
        """The new channels of a convolution or dense layer."""
        outputs = self._new_channels(operation.units if hasattr(operation, "units") else operation.filters)
        groups = getattr(operation, "groups", 1)
        if groups > 1:  # every group must lose equally many channels
            for tied in (channels, outputs):
                parts = tied.reshape(groups, -1)
                for part in parts[1:]:
                    self._tie(parts[0], part)
        return outputs

    def _joined(self, inputs: list[np.ndarray], name: str) -> np.ndarray:
        widest = max(inputs, key=len)
        for other in inputs:
            if len(other) == len(widest):
                self._tie(widest, other)
            elif len(other) == 1:
                self._keep(other)
            else:
                widths = ", ".join(str(len(channels)) for channels in inputs)
                raise InputError(
                    f"channel pruning needs inputs of equally many channels. Received: {name!r} with {widths} channels"
                )
        return widest


def _axes(axis: Any) -> tuple[int, ...]:
    return tuple(axis) if isinstance(axis, tuple | list) else (axis,)
