"""Cross-layer equalization: channels that share one quantized tensor get the same centre and range.

An activation tensor has one scale for all channels, so a channel of small range is stored with few levels. The layer
before can scale it up and the layer after scale it down, by weights and biases alone: outputs and operators stay the
same (https://arxiv.org/abs/1906.04721). Each channel's mean can be shifted the same way
(https://arxiv.org/abs/2304.09145). It is applied where it is exact: to tensors between convolutions, dense layers,
sums, poolings and RELU. RELU6 clips at 6 whatever the channel: equalized on 100 photos, channels that respond to few
classes were clipped on other photos (EfficientNet-Lite0's float outputs fell to 21 dB), so tensors after a RELU6 are
left alone here; `relu6_gains` judges them on other images than those that make the gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.quantization.ranges import ChannelStatistics
from converters.tflite.channels import ChannelMap
from converters.tflite.graph import WEIGHTED, Graph, Operator

_NONE, _RELU = 0, 1  # the schema's fused activations that commute with a channel's scaling
_RELU6 = 3
MAX_GAIN = 64.0
ROUNDING_SHARE = 0.25  # of the noise of rounding to nearest that GPTQ leaves
EXPONENTS = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors whose channels can only be scaled together.

    Attributes:
        writers: the operators that write them, in order.
        readers: the layers that read them.
        shiftable: whether the channels' means may be shifted too.
    """

    writers: tuple[Operator, ...]
    readers: tuple[Operator, ...]
    shiftable: bool

    @property
    def tensors(self) -> tuple[int, ...]:
        return tuple(writer.outputs[0] for writer in self.writers)


def equalizable(content: bytes) -> frozenset[str]:
    """The names of the tensors whose channels `equalized` may change, and whose statistics it needs."""
    graph = Graph(content)
    return frozenset(graph.name(tensor) for group in channel_groups(graph) for tensor in group.tensors)


def equalized(
    content: bytes,
    statistics: Mapping[str, ChannelStatistics],
    gains: Mapping[str, np.ndarray] | None = None,
    *,
    centre: str = "mean",
) -> tuple[bytes, dict[str, ChannelMap]]:
    """A float graph with the same outputs that quantizes better.

    Args:
        content: a float TFLite file.
        statistics: of the channels of its `equalizable` tensors, by name.
        gains: factors, `(channels,)`, of tensors between layers, by name, in the place of those that are chosen here,
            or of tensors after a RELU6, see `relu6_gains`.
        centre: what becomes 0 in each channel that can be shifted: its `mean`, or the `middle` of its range.

    Returns:
        The file, and how the channels of each changed tensor were mapped, by name.
    """
    graph = Graph(content)
    by_tensor = {t: statistics[graph.name(t)] for t in range(len(graph.tensors)) if graph.name(t) in statistics}
    maps: dict[int, ChannelMap] = {}
    for group in channel_groups(graph):
        if all(np.isfinite(by_tensor[t].variance).all() for t in group.tensors):
            given = (gains or {}).get(graph.name(group.tensors[0]))
            maps.update(_maps(graph, group, by_tensor, given, middle=centre == "middle"))
    by_name = {graph.name(tensor): tensor for operator in graph.operators() for tensor in operator.outputs}
    for name, gain in (gains or {}).items():
        maps.setdefault(by_name[name], ChannelMap(gain, np.zeros_like(gain)))
    if not maps:
        return content, {}
    for operator in graph.operators():
        if operator.name in WEIGHTED:
            _rewrite(graph, operator, maps.get(operator.inputs[0]), maps.get(operator.outputs[0]))
    names = {tensor: graph.name(tensor) for tensor in maps}  # before packing renumbers the tensors
    return graph.to_bytes(), {names[tensor]: map_ for tensor, map_ in maps.items()}


def channel_groups(graph: Graph) -> list[ChannelGroup]:
    operators = list(graph.operators())
    computed = {t for operator in operators for t in operator.outputs}
    joined = {t: t for t in computed}

    def root(tensor: int) -> int:
        while joined[tensor] != tensor:
            tensor = joined[tensor]
        return tensor

    fixed, unshiftable = set(graph.outputs), set()
    readers: dict[int, list[Operator]] = {}
    for operator in operators:
        options = graph.subgraph.operators[operator.index].builtinOptions
        activation = getattr(options, "fusedActivationFunction", _NONE)
        read, output = [t for t in operator.inputs if t in computed], operator.outputs[0]
        if activation != _NONE or operator.name in ("PAD", "RELU"):
            unshiftable.add(output)
        if activation not in (_NONE, _RELU):
            fixed.add(output)
        if operator.name in WEIGHTED and _plain(graph, operator):
            for tensor in read:
                readers.setdefault(tensor, []).append(operator)
                unshiftable.update([tensor] if _pads(graph, operator) else [])
        elif _by_channel(graph, operator) and len(read) == (2 if operator.name == "ADD" else 1):
            for tensor in read:
                joined[root(tensor)] = root(output)
        else:
            fixed.update(read, operator.outputs)
    members: dict[int, list[Operator]] = {}
    for operator in operators:
        for tensor in operator.outputs:
            members.setdefault(root(tensor), []).append(operator)
    groups = []
    for writers in members.values():
        tensors = [writer.outputs[0] for writer in writers]
        reading = tuple(reader for t in tensors for reader in readers.get(t, ()))
        if fixed.isdisjoint(tensors) and reading:
            groups.append(ChannelGroup(tuple(writers), reading, unshiftable.isdisjoint(tensors)))
    return groups


def centres(group: ChannelGroup, of_layers: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """What becomes 0 in each channel of a group's tensors, `(channels,)`; 0 where a shift would change a padding.

    Args:
        group: the tensors.
        of_layers: the wanted value for each layer's output, by tensor; sums and poolings follow from them.
    """
    found: dict[int, np.ndarray] = {}
    for writer in group.writers:
        output = writer.outputs[0]
        if not group.shiftable:
            found[output] = np.zeros_like(of_layers[output])
        elif writer.name in WEIGHTED:
            found[output] = of_layers[output]
        else:
            found[output] = np.sum([found[t] for t in writer.inputs if t in found], axis=0)
    return found


def relu6_layers(graph: Graph) -> dict[Operator, list[Operator]]:
    """The layers whose fused RELU6 is read by layers alone, each with those readers."""
    readers, layers = graph.readers(), {}
    for operator in graph.operators():
        output = operator.outputs[0]
        options = graph.options(operator)
        if operator.name in WEIGHTED and options.fusedActivationFunction == _RELU6 and _plain(graph, operator):
            reading = readers.get(output, [])
            if (
                reading
                and output not in graph.outputs
                and all(r.name in WEIGHTED and _plain(graph, r) for r in reading)
            ):
                layers[operator] = reading
    return layers


def _plain(graph: Graph, operator: Operator) -> bool:
    """Whether the layer has constant float weights and bias, and weights for each input channel."""
    if len(operator.inputs) < 3 or min(operator.inputs[:3]) < 0:
        return False
    weights, bias = (graph.constant(t) for t in operator.inputs[1:3])
    return (
        weights is not None
        and bias is not None
        and weights.dtype == np.float32
        and weights.shape[-1] == graph.shape(operator.inputs[0])[-1]
    )


def _pads(graph: Graph, operator: Operator) -> bool:
    """Whether the layer may read zeros as padding, which a shift would change."""
    if operator.name == "FULLY_CONNECTED":
        return False
    same = graph.subgraph.operators[operator.index].builtinOptions.padding == 0
    return same and graph.shape(operator.inputs[1])[1:3] != (1, 1)


def _by_channel(graph: Graph, operator: Operator) -> bool:
    """Whether each channel of the operator's output is proportional to that channel of its inputs."""
    output = graph.shape(operator.outputs[0])
    if operator.name == "ADD":
        return all(graph.shape(t) == output for t in operator.inputs)
    if operator.name == "MEAN":
        axes, rank = graph.constant(operator.inputs[1]), len(graph.shape(operator.inputs[0]))
        return axes is not None and all(0 < axis % rank < rank - 1 for axis in axes.reshape(-1))
    if operator.name == "PAD":
        return graph.shape(operator.inputs[0])[-1] == output[-1]
    return operator.name in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "RELU")


def _maps(
    graph: Graph,
    group: ChannelGroup,
    statistics: Mapping[int, ChannelStatistics],
    given: np.ndarray | None,
    *,
    middle: bool,
) -> dict[int, ChannelMap]:
    """The gain of a group, given or with the least expected noise after its readers, and each tensor's shift."""
    middles = {t: (statistics[t].low + statistics[t].high) / 2 if middle else statistics[t].mean for t in group.tensors}
    centre = centres(group, middles)
    low = {t: np.minimum(statistics[t].low - centre[t], 0) for t in group.tensors}
    high = {t: np.maximum(statistics[t].high - centre[t], 0) for t in group.tensors}
    room = np.full(len(statistics[group.tensors[0]].mean), MAX_GAIN)
    for t in group.tensors:
        for ends in (-low[t], high[t]):
            most = ends.max()
            room = np.minimum(room, np.where(ends > most / MAX_GAIN, most / np.maximum(ends, 1e-30), MAX_GAIN))
    silent = np.all([high[t] - low[t] <= 1e-6 * (high[t] - low[t]).max() for t in group.tensors], axis=0)
    room[silent] = 1.0  # the channel is constant on these images, but may vary on others
    candidates = [np.maximum(room, 1) ** exponent for exponent in EXPONENTS]

    def noise(gain: np.ndarray) -> float:
        total = 0.0
        for reader in group.readers:
            t = reader.inputs[0]
            step = ((gain * high[t]).max() - (gain * low[t]).min()) / 255
            weights = graph.constant(reader.inputs[1]) / gain
            squares = np.square(weights).reshape(-1, weights.shape[-1]).sum(0)
            total += float(squares.sum()) * step**2
            if reader.name != "DEPTHWISE_CONV_2D":  # whose weights have a scale for each channel
                rows = np.abs(weights).reshape(len(weights), -1).max(1)
                rows = np.full_like(rows, rows.max()) if reader.name == "FULLY_CONNECTED" else rows
                power = (statistics[t].variance + np.square(statistics[t].mean - centre[t])) * gain**2
                window = weights[0].size // weights.shape[-1]
                total += ROUNDING_SHARE * float(np.square(rows / 127).sum() * power.sum() * window)
        return total

    gain = min(candidates, key=noise) if given is None else given
    return {t: ChannelMap(gain, -gain * centre[t]) for t in group.tensors}


def _rewrite(graph: Graph, operator: Operator, of_input: ChannelMap | None, of_output: ChannelMap | None) -> None:
    """Change a layer's weights and bias for its mapped input and its mapped output."""
    if of_input is None and of_output is None:
        return
    constants = [graph.constant(t) for t in operator.inputs[1:3]]
    weights, bias = (np.asarray(values, np.float64) for values in constants)
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    if of_input is not None:
        weights = weights / of_input.gain
        moved = weights * of_input.shift
        bias = bias - (moved.sum((0, 1, 2)) if depthwise else moved.reshape(len(bias), -1).sum(1))
    if of_output is not None:
        weights = weights * (of_output.gain if depthwise else of_output.gain.reshape(-1, *[1] * (weights.ndim - 1)))
        bias = bias * of_output.gain + of_output.shift
    replace_constants(graph, operator, weights, bias, "equalized")


def replace_constants(graph: Graph, operator: Operator, weights: np.ndarray, bias: np.ndarray, change: str) -> None:
    """Give a layer weights and a bias of its own, named after the old ones and the change: layers may share those."""
    inputs = [operator.inputs[0]]
    for old, values in zip(operator.inputs[1:3], (weights, bias), strict=True):
        name = f"{graph.name(old)}/{change}_{operator.index}"
        inputs.append(graph.add_tensor(name, "FLOAT32", values.shape, values=values.astype(np.float32)))
    graph.set_inputs(operator, inputs)
