"""A weighted layer as matrices: patches of its input, and its float and int8 weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.quantization.activations import Activations
from converters.tflite.graph import Graph, Operator

VALUES_AT_ONCE = 2**20  # of patches that are gathered together; all at once they take several times the memory


@dataclass(frozen=True)
class Geometry:
    """Which inputs a layer computes each output from; a dense layer has no window.

    A patch is the input of one output of one group: window * channels / groups values; of a dense layer its `inputs`,
    which it may take at each of many positions.
    """

    groups: int
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same: bool = False
    inputs: int = 0

    def outputs(self, size: int, axis: int) -> tuple[int, int]:
        """The number of outputs along an axis for `size` inputs, and the padding before the first input."""
        window = (1, 1) if self.window is None else self.window
        extent = (window[axis] - 1) * self.dilation[axis] + 1
        if not self.same:
            return (size - extent) // self.stride[axis] + 1, 0
        count = -(-size // self.stride[axis])
        return count, max((count - 1) * self.stride[axis] + extent - size, 0) // 2

    def patches(self, values: np.ndarray | Activations, count: int, seed: int, dequantize: Dequantizer) -> np.ndarray:
        """Patches of randomly drawn outputs.

        Args:
            values: the layer's input, `(n, height, width, channels)`, or `(n, ..., inputs)` for a dense layer.
            count: the least number of samples, if there are as many outputs.
            seed: of the random choice.
            dequantize: for the values.

        Returns:
            `(groups, samples, patch)`, a new array.
        """
        images = len(values)
        if self.window is None:
            rows = np.asarray(values).reshape(-1, self.inputs)
            if len(rows) > max(images, count):  # a dense layer at each position, as in attention
                rows = rows[np.random.default_rng(seed).choice(len(rows), max(images, count), replace=False)]
            return np.array(dequantize(rows[None]))
        (height, above), (width, before) = (self.outputs(values.shape[1 + axis], axis) for axis in (0, 1))
        random = np.random.default_rng(seed)
        each = min(height * width, -(-count // images))
        picked = np.concatenate([random.choice(height * width, each, replace=False) for _ in range(images)])
        image, window, channels = np.repeat(np.arange(images), each), self.window[0] * self.window[1], values.shape[3]
        top, left = picked // width * self.stride[0] - above, picked % width * self.stride[1] - before
        result = np.empty((self.groups, len(picked), window, channels // self.groups), np.float32)
        step = max(1, VALUES_AT_ONCE // (window * channels))
        for some in (slice(start, start + step) for start in range(0, len(picked), step)):
            rows = np.arange(self.window[0])[:, None] * self.dilation[0] + top[some]
            columns = np.arange(self.window[1])[:, None] * self.dilation[1] + left[some]
            rows, columns = rows[:, None], columns[None]
            inside = (rows >= 0) & (rows < values.shape[1]) & (columns >= 0) & (columns < values.shape[2])
            taken = values[image[some], rows.clip(0, values.shape[1] - 1), columns.clip(0, values.shape[2] - 1)]
            if not inside.all():
                taken[~inside] = dequantize.zero_point
            taken = taken.reshape(window, -1, self.groups, channels // self.groups)
            result[:, some] = dequantize(taken).transpose(2, 1, 0, 3)
        return result.reshape(self.groups, len(picked), -1)

    def mean_patch(self, values: np.ndarray | Activations, dequantize: Dequantizer) -> np.ndarray:
        """The mean patch over all outputs of all images, `(groups, 1, patch)`."""
        if isinstance(values, Activations):
            mean = values.mean()
        elif values.dtype.kind == "f":
            mean = values.mean(0)
        else:  # integers of 8 and 16 bits are summed in 32: as exact as float64, in less than half of the time
            mean = values.sum(0, dtype=np.int32) / len(values)
        mean = dequantize(mean)
        if self.window is None:
            return mean.reshape(-1, self.inputs).mean(0).reshape(1, 1, -1)
        counts, pads = zip(*(self.outputs(mean.shape[axis], axis) for axis in (0, 1)), strict=True)
        spans = [(counts[axis] - 1) * self.stride[axis] + 1 for axis in (0, 1)]
        behind = [max(0, spans[a] + (self.window[a] - 1) * self.dilation[a] - pads[a] - mean.shape[a]) for a in (0, 1)]
        mean = np.pad(mean, [(pads[0], behind[0]), (pads[1], behind[1]), (0, 0)])
        taps = [
            mean[y : y + spans[0] : self.stride[0], x : x + spans[1] : self.stride[1]].mean((0, 1))
            for y in range(0, self.window[0] * self.dilation[0], self.dilation[0])
            for x in range(0, self.window[1] * self.dilation[1], self.dilation[1])
        ]
        return np.array(taps).reshape(len(taps), self.groups, -1).transpose(1, 0, 2).reshape(self.groups, 1, -1)


@dataclass(frozen=True)
class Dequantizer:
    """From a tensor's stored values to real ones, float32."""

    scale: float = 1.0
    zero_point: int = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self == Dequantizer():
            return values.astype(np.float32, copy=False)
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True)
class QuantizedLayer:
    """A convolution or dense layer, float and int8.

    Attributes:
        geometry: see Geometry.
        shape: of the weights in the file.
        weights: float, `(groups, outputs / groups, patch)`.
        bias: float, `(groups, 1, outputs / groups)`.
        integers: the int8 weights, shaped as `weights`.
        integer_bias: `(outputs,)`.
        scale: of the integer weights, `(groups, outputs / groups, 1)`.
        dequantize: for the layer's int8 input.
    """

    geometry: Geometry
    shape: tuple[int, ...]
    weights: np.ndarray
    bias: np.ndarray
    integers: np.ndarray
    integer_bias: np.ndarray
    scale: np.ndarray
    dequantize: Dequantizer


def quantized_layer(graph: Graph, operator: Operator, float_graph: Graph, twin: Operator) -> QuantizedLayer | None:
    """The layer; None where its weights or its bias are computed, missing or not integers."""
    if min(len(operator.inputs), len(twin.inputs)) < 3 or min(*operator.inputs, *twin.inputs) < 0:
        return None
    integers, integer_bias = (graph.constant(t) for t in operator.inputs[1:3])
    weights, bias = (float_graph.constant(t) for t in twin.inputs[1:3])
    quantization, of_input = graph.quantization(operator.inputs[1]), graph.quantization(operator.inputs[0])
    if integers is None or integer_bias is None or weights is None or bias is None:
        return None
    if quantization is None or of_input is None or integers.dtype != np.int8 or integer_bias.dtype.kind != "i":
        return None
    geometry = _geometry(graph, operator)
    scale = np.broadcast_to(quantization[0], len(bias)).astype(np.float64).reshape(geometry.groups, -1, 1)
    return QuantizedLayer(
        geometry,
        integers.shape,
        _grouped(weights, operator, geometry.groups),
        bias.reshape(geometry.groups, 1, -1),
        _grouped(integers, operator, geometry.groups),
        integer_bias,
        scale,
        Dequantizer(float(of_input[0][0]), int(of_input[1][0])),
    )


def _geometry(graph: Graph, operator: Operator) -> Geometry:
    if operator.name == "FULLY_CONNECTED":
        return Geometry(1, inputs=graph.shape(operator.inputs[1])[1])
    options = graph.subgraph.operators[operator.index].builtinOptions
    weights, channels = graph.shape(operator.inputs[1]), graph.shape(operator.inputs[0])[-1]
    return Geometry(
        channels if operator.name == "DEPTHWISE_CONV_2D" else channels // weights[3],
        (weights[1], weights[2]),
        (options.strideH, options.strideW),
        (options.dilationHFactor, options.dilationWFactor),
        options.padding == 0,  # SAME
    )


def _grouped(weights: np.ndarray, operator: Operator, groups: int) -> np.ndarray:
    if operator.name == "DEPTHWISE_CONV_2D":  # stored as (1, height, width, outputs), outputs of a channel together
        return weights.reshape(-1, groups, weights.shape[3] // groups).transpose(1, 2, 0)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def ungrouped(weights: np.ndarray, operator: Operator, shape: tuple[int, ...]) -> np.ndarray:
    return (weights.transpose(2, 0, 1) if operator.name == "DEPTHWISE_CONV_2D" else weights).reshape(shape)
