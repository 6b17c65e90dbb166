"""Channel pruning: whole channels are removed, with everything that depends on them, and a smaller network remains.

Pruning Filters for Efficient ConvNets, Li et al. 2016, https://arxiv.org/abs/1608.08710 (L1 of the filters);
Learning Efficient Convolutional Networks through Network Slimming, Liu et al. 2017, https://arxiv.org/abs/1708.06519
(scales of batch normalization); DepGraph, Fang et al. 2023, https://arxiv.org/abs/2301.12900 (what depends on what).

Each channel that a layer makes is a number. The graph is walked with arrays of these numbers in the place of tensors:
a depthwise filter hands its input's on, a concatenation puts them one behind the other, flattening repeats them for
each position, and where two tensors are added or multiplied their channels become one, which stays or goes whole.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.fine_tuning import fine_tune, settle_statistics
from edge_cv.compression.keras_graph import functional_form, walk

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import ChannelPrune

STEP = 8  # channels are removed so that a multiple of 8 remains, which fast kernels want
LEAST_SHARE = 0.25  # of a group's channels that stays in any case
# What a removed channel saves is counted in multiply-accumulates of a plain convolution. A depthwise filter's are
# dearer, and each value that is written costs like many of them. MobileNetV2 at 224 pixels, pruned to half its MACs by
# these numbers, ran in 0.53 of the time in float and 0.56 in int8; by MACs alone in 0.61 and 0.67 (LiteRT 2.3, x86).
DEPTHWISE_COST = 8.0
VALUE_COST = 48.0
LATENCY_RUNS = 60  # single inferences of a candidate
LATENCY_STEPS = 6  # bisections of the share of MACs

# fmt: off
PASSING = frozenset(
    [
        "Activation", "AveragePooling2D", "Dropout", "ELU", "GaussianNoise", "GlobalAveragePooling2D",
        "GlobalMaxPooling2D", "Identity", "LeakyReLU", "MaxPooling2D", "ReLU", "SpatialDropout2D",
        "StochasticDepth", "UpSampling2D", "Absolute", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu",
        "LeakyRelu", "Log", "Negative", "Relu", "Relu6", "Rsqrt", "Selu", "Sigmoid", "Silu", "Softplus", "Sqrt",
        "Square", "Tanh",
    ]
)
# fmt: on
BY_CHANNEL = frozenset(["BatchNormalization", "LayerScale", "PReLU"])  # weights whose last axis is the channels
JOINING = frozenset(["Add", "Average", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"])
MAKING = frozenset(["Conv2D", "Dense", "DepthwiseConv2D", "SeparableConv2D"])


@dataclass(frozen=True, eq=False)
class Use:
    """One layer or operation as the walk met it.

    Attributes:
        operation: of the model.
        inputs, outputs: the channels' numbers along the last axis of what it reads first, and of what it makes.
    """

    operation: Any
    inputs: np.ndarray
    outputs: np.ndarray

    @property
    def kind(self) -> str:
        return type(self.operation).__name__

    @property
    def positions(self) -> int:
        """Values of one output channel for one image."""
        return math.prod(self.operation.output.shape[1:-1])


class Channels:
    """Which channels of a model depend on each other.

    Attributes:
        uses: each operation of the model by its name.
    """

    def __init__(self, model: keras.Model, exclude: Sequence[str] = ()) -> None:
        self.uses: dict[str, Use] = {}
        self._parent: list[int] = []
        self._kept: set[int] = set()
        form = functional_form(model)
        for layer in form.inputs:
            if None in layer.shape[1:]:
                raise InputError(f"channel pruning needs a model of fixed input size. Received: {tuple(layer.shape)}")
        inputs = [self._fresh(tensor.shape[-1], kept=True) for tensor in form.inputs]
        for outputs in walk(model, inputs, self._meet):
            self._keep(outputs)
        for pattern in exclude:
            matching = [name for name in fnmatch.filter(self.uses, pattern) if self.uses[name].kind in MAKING]
            if not matching:
                raise InputError(f"exclude must name convolutions or dense layers. Received: {pattern!r}")
            for name in matching:
                self._keep(self.uses[name].outputs)

    def roots(self, channels: np.ndarray) -> np.ndarray:
        """For each channel the one that stands for all that stay or go with it."""
        return np.array([self._root(int(channel)) for channel in channels], np.int64)

    def groups(self) -> list[np.ndarray]:
        """The channels that may go, as roots: one array for all that the same layers make."""
        makers: dict[int, list[str]] = {}
        for name, use in self.uses.items():
            if use.kind in MAKING and use.kind != "DepthwiseConv2D":
                for root in set(self.roots(use.outputs).tolist()):
                    makers.setdefault(root, []).append(name)
        kept = {self._root(channel) for channel in self._kept}
        groups: dict[tuple[str, ...], list[int]] = {}
        for root, names in makers.items():
            if root not in kept:
                groups.setdefault(tuple(names), []).append(root)
        return [np.array(roots) for roots in groups.values()]

    # the walk

    def _fresh(self, count: int, *, kept: bool = False) -> np.ndarray:
        channels = np.arange(len(self._parent), len(self._parent) + count)
        self._parent.extend(channels.tolist())
        if kept:
            self._keep(channels)
        return channels

    def _keep(self, channels: np.ndarray) -> None:
        self._kept.update(int(channel) for channel in channels)

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

    def _meet(self, operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> np.ndarray:
        import keras

        inputs = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, np.ndarray)]
        inputs = [value for value in inputs if value.dtype == np.int64] or inputs
        outputs = self._through(operation, name, inputs, args)
        self.uses[name] = Use(operation, inputs[0], outputs)
        return outputs

    def _through(self, operation: Any, name: str, inputs: list[np.ndarray], args: tuple) -> np.ndarray:
        kind, channels = type(operation).__name__, inputs[0]
        along_channels = getattr(operation, "data_format", None) == "channels_first"
        if kind in ("Cropping2D", "ZeroPadding2D"):
            before, after = (operation.cropping if kind == "Cropping2D" else operation.padding)[1]
            if not along_channels:
                return channels
            if kind == "Cropping2D":
                return channels[before : len(channels) - after]
            pad = self._fresh(before + after, kept=True)
            return np.concatenate([pad[:before], channels, pad[before:]])
        if along_channels:
            raise InputError(f"channel pruning needs channels last. Received: layer {name!r} with channels first")
        if kind in ("Conv2D", "SeparableConv2D", "Dense"):
            outputs = self._fresh(operation.units if kind == "Dense" else operation.filters)
            groups = getattr(operation, "groups", 1)
            if groups > 1:  # so many of each group must go that all stay equally large
                for tied in (channels, outputs):
                    parts = tied.reshape(groups, -1)
                    for part in parts[1:]:
                        self._tie(parts[0], part)
            return outputs
        if kind == "DepthwiseConv2D":
            return np.repeat(channels, operation.depth_multiplier)
        if kind in PASSING or kind in BY_CHANNEL:
            return channels
        if kind in ("Rescaling", "Normalization"):
            return channels
        if kind in ("LayerNormalization", "Softmax"):  # a value depends on all channels, also on those that are 0
            self._keep(channels)
            return channels
        if kind in JOINING:
            return self._join(inputs, name)
        if kind == "Concatenate":
            shape = operation.output.shape if hasattr(operation, "output") else ()
            if operation.axis in (-1, len(shape) - 1):
                return np.concatenate(inputs)
            return self._join(inputs, name)
        if kind == "Flatten":
            return np.tile(channels, math.prod(operation.input.shape[1:-1]))
        if kind == "Reshape" and operation.output.shape[-1] == len(channels):
            return channels
        if kind == "Mean" and -1 not in _axes(operation.axis) and 3 not in _axes(operation.axis):
            return channels
        raise InputError(
            f"channel pruning must know what an operation does to channels. Received: {name!r}, of kind {kind}"
        )

    def _join(self, inputs: list[np.ndarray], name: str) -> np.ndarray:
        widest = max(inputs, key=len)
        for other in inputs:
            if len(other) == len(widest):
                self._tie(widest, other)
            elif len(other) == 1:
                self._keep(other)
            else:
                raise InputError(f"channel pruning needs equal channels. Received: {name!r} of unequal ones")
        return widest


def _axes(axis: Any) -> tuple[int, ...]:
    return tuple(axis) if isinstance(axis, tuple | list) else (axis,)


def remove_channels(
    model: keras.Model, keep: float, *, importance: str = "batch_norm", exclude: Sequence[str] = ()
) -> keras.Model:
    """The model without its least important channels, as many as bring its MACs under a share of what they were.

    Nothing is trained. Where the removed channels were zero the outputs are what they were.

    Args:
        model: a Keras 3 model; it stays as it is.
        keep: the share of multiply-accumulates, above 0 and under 1, that may remain.
        importance: `batch_norm` or `l1`; see `ChannelPrune`.
        exclude: patterns of the names of layers whose outputs keep all channels.

    Raises:
        InputError: the share cannot be reached, there is nothing to remove, or the model cannot be carried.
    """
    channels = Channels(model, exclude)
    return _without(model, channels, _choose(channels, keep, importance, model.name))


def channel_prune(
    model: keras.Model,
    part: ChannelPrune,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """A smaller model, fine-tuned: `remove_channels` down to the part's target.

    Args:
        model: a Keras 3 model; it stays as it is.
        part: how much, by what measure, and where not.
        batches: the images to fine-tune on.
        teacher: what the part distills from; None is the model itself.
        checkpoint: where a stopped run left its state.
        progress: told the steps.

    Raises:
        InputError: as `remove_channels`.
    """
    share = part.keep
    if part.target == "latency":
        share = _share_of_macs(model, part, progress)
    smaller = remove_channels(model, share, importance=part.importance, exclude=part.exclude)
    fine_tune(
        smaller,
        batches,
        part.fine_tuning,
        teacher=teacher or model,
        checkpoint=checkpoint,
        title="fine-tuning without the removed channels",
        progress=progress,
    )
    settle_statistics(smaller, batches)
    return smaller


def _share_of_macs(model: keras.Model, part: ChannelPrune, progress: Progress | None) -> float:
    """The largest share of MACs that was seen to run in the part's share of the latency."""
    import tempfile

    from converters import to_tflite
    from edge_cv.evaluation import measure_in_turns
    from edge_cv.progress import silent

    low, high, found = 0.0, 1.0, None
    with tempfile.TemporaryDirectory() as folder, (progress or silent)("looking for the share of MACs") as update:
        dense = Path(folder, "dense.tflite")
        dense.write_bytes(to_tflite(model, "float32").content)
        for step in range(LATENCY_STEPS):
            share = part.keep if step == 0 else (low + high) / 2
            try:
                smaller = remove_channels(model, share, importance=part.importance, exclude=part.exclude)
            except InputError:
                if step == 0 or high - low < 0.05:
                    raise
                low = share
                continue
            candidate = Path(folder, "candidate.tflite")
            candidate.write_bytes(to_tflite(smaller, "float32").content)
            measured = measure_in_turns({"dense": dense, "candidate": candidate}, threads=(1,), runs=LATENCY_RUNS)
            ratio = measured["candidate"].latency[0].p50_ms / measured["dense"].latency[0].p50_ms
            if ratio <= part.keep:
                low = found = share
            else:
                high = share
            update(step + 1, LATENCY_STEPS)
    if found is None:
        raise InputError(f"ChannelPrune.keep={part.keep:g} of the latency could not be reached on this machine")
    return found


class _Cost:
    """What the model costs with some channels gone: its MACs, and the time that they take in equal MACs."""

    def __init__(self, channels: Channels) -> None:
        self.roots = {
            name: (channels.roots(use.inputs), channels.roots(use.outputs)) for name, use in channels.uses.items()
        }
        self.uses = {name: use for name, use in channels.uses.items() if use.kind in MAKING}

    def __call__(self, name: str, gone: np.ndarray) -> tuple[float, float]:
        """`(MACs, equal MACs)` of a layer; `gone[root]` says which channels are."""
        use = self.uses[name]
        inputs, outputs = (float(np.count_nonzero(~gone[roots])) for roots in self.roots[name])
        layer, kind = use.operation, use.kind
        values = use.positions * outputs
        if kind == "Dense":
            return values * inputs, values * (inputs + VALUE_COST)
        taps = math.prod(layer.kernel_size)
        if kind == "DepthwiseConv2D":
            return values * taps, values * (taps * DEPTHWISE_COST + VALUE_COST)
        if kind == "SeparableConv2D":
            middle = use.positions * inputs * layer.depth_multiplier
            filters = middle * taps
            points = middle * outputs
            return filters + points, filters * DEPTHWISE_COST + points + (middle + values) * VALUE_COST
        macs = values * taps * inputs / layer.groups
        return macs, macs + values * VALUE_COST


def _choose(channels: Channels, keep: float, importance: str, name: str) -> np.ndarray:
    """`gone[channel]`, true for the roots of what is to be removed.

    Again and again the eight least important channels go of that group where their importance, against the time that
    they cost, is least.
    """
    groups = [group for group in channels.groups() if len(group) > STEP]
    if not groups:
        raise InputError(f"channel pruning needs layers of more than {STEP} channels. Received: {name!r} without one")
    worth = _importance(channels, importance)
    cost = _Cost(channels)
    gone = np.zeros(len(channels._parent), bool)
    touching = []
    for group in groups:
        members = set(group.tolist())
        touching.append([n for n in cost.uses if any(members & set(r.tolist()) for r in cost.roots[n])])
    queues = [group[np.argsort(worth[group], kind="stable")] for group in groups]
    removed = [0] * len(groups)
    current = {layer: cost(layer, gone) for layer in cost.uses}
    total = sum(macs for macs, _ in current.values())
    left = total

    def offer(index: int) -> tuple[float, np.ndarray] | None:
        """The importance lost for what is saved by the group's next step, and the channels of it."""
        remaining = len(queues[index]) - removed[index]
        step = remaining % STEP or STEP
        if remaining - step < max(STEP, LEAST_SHARE * len(queues[index])):
            return None
        chosen = queues[index][removed[index] : removed[index] + step]
        gone[chosen] = True
        saved = sum(current[layer][1] - cost(layer, gone)[1] for layer in touching[index])
        gone[chosen] = False
        lost = float(worth[chosen].sum()) * len(queues[index]) / remaining  # the fewer are left the more each matters
        return lost / max(saved, 1.0), chosen

    offers = [offer(index) for index in range(len(groups))]
    while left > keep * total:
        open_offers = [(found[0], index) for index, found in enumerate(offers) if found is not None]
        if not open_offers:
            raise InputError(
                f"the MACs of {name!r} can be pruned to a share of {left / total:.2f}, no further, without leaving "
                f"layers of fewer than {STEP} channels or a quarter. Received: {keep:g}"
            )
        _, index = min(open_offers)
        gone[offers[index][1]] = True
        removed[index] += len(offers[index][1])
        for layer in touching[index]:
            left -= current[layer][0]
            current[layer] = cost(layer, gone)
            left += current[layer][0]
        changed = set(touching[index])
        for other in range(len(groups)):
            if changed & set(touching[other]):
                offers[other] = offer(other)
    return gone


def _importance(channels: Channels, measure: str) -> np.ndarray:
    """How much each root matters, in multiples of the mean of the layers that make it, summed over these layers."""
    worth = np.zeros(len(channels._parent))
    normalized: dict[int, np.ndarray] = {}  # by the first channel of a layer's outputs
    if measure == "batch_norm":
        for use in channels.uses.values():
            if use.kind == "BatchNormalization" and use.operation.scale:
                gamma = np.abs(np.asarray(use.operation.gamma))
                for first in {int(use.inputs[0])}:
                    normalized.setdefault(first, gamma)
    for use in channels.uses.values():
        if use.kind not in MAKING or use.kind == "DepthwiseConv2D":
            continue
        kernel = np.asarray(use.operation.pointwise_kernel if use.kind == "SeparableConv2D" else use.operation.kernel)
        size = np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0)
        gamma = normalized.get(int(use.outputs[0]))
        if gamma is not None and len(gamma) == len(size):
            size = np.where(size == 0, 0, gamma)
        np.add.at(worth, channels.roots(use.outputs), size / max(float(size.mean()), 1e-12))
    return worth


def _without(model: keras.Model, channels: Channels, gone: np.ndarray) -> keras.Model:
    """The model with these channels removed."""
    import keras

    form = functional_form(model)
    kept = {
        name: tuple(np.flatnonzero(~gone[channels.roots(ids)]) for ids in (use.inputs, use.outputs))
        for name, use in channels.uses.items()
    }

    def rebuild(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        inputs, outputs = kept[name]
        config = operation.get_config() | _narrower(channels.uses[name], inputs, outputs)
        if isinstance(operation, keras.layers.Layer):
            config["name"] = name
        again = type(operation).from_config(config)
        result = again(*args, **kwargs)
        if getattr(operation, "weights", ()):
            again.set_weights(_weights(channels.uses[name], inputs, outputs))
        return result

    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name) for tensor in form.inputs]
    smaller = keras.Model(inputs[0], walk(model, inputs, rebuild)[0], name=model.name)
    if hasattr(model, "preprocessing"):
        smaller.preprocessing = model.preprocessing
    return smaller


def _narrower(use: Use, inputs: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
    """What changes in an operation's configuration when these positions of its inputs and outputs stay."""
    operation, kind = use.operation, use.kind
    if kind in ("Conv2D", "SeparableConv2D"):
        return {"filters": len(outputs)}
    if kind == "Dense":
        return {"units": len(outputs)}
    if kind == "Reshape":
        return {"target_shape": (*operation.target_shape[:-1], len(outputs))}
    if kind == "Rescaling":
        return {
            key: np.asarray(value).reshape(-1)[inputs].tolist() if np.size(value) == len(use.inputs) > 1 else value
            for key, value in (("scale", operation.scale), ("offset", operation.offset))
        }
    if kind == "Cropping2D" and operation.data_format == "channels_first":
        start, end = operation.cropping[1][0], len(use.inputs) - operation.cropping[1][1]
        before, after = np.count_nonzero(inputs < start), np.count_nonzero(inputs >= end)
        return {"cropping": (operation.cropping[0], (int(before), int(after)))}
    return {}


def _weights(use: Use, inputs: np.ndarray, outputs: np.ndarray) -> list[np.ndarray]:
    """The weights that belong to these positions."""
    weights = use.operation.get_weights()
    kind = use.kind
    if kind == "Conv2D":
        within = inputs[inputs < len(use.inputs) // use.operation.groups]  # of the first group; the others are alike
        return [weights[0][:, :, within][..., outputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "Dense":
        return [weights[0][inputs][:, outputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "DepthwiseConv2D":
        return [weights[0][:, :, inputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "SeparableConv2D":
        middle = (inputs[:, None] * use.operation.depth_multiplier + np.arange(use.operation.depth_multiplier)).reshape(
            -1
        )
        return [
            weights[0][:, :, inputs],
            weights[1][:, :, middle][..., outputs],
            *(bias[outputs] for bias in weights[2:]),
        ]
    return [weight[..., inputs] if weight.shape[-1:] == (len(use.inputs),) else weight for weight in weights]
