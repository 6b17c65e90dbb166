"""Post-training int8 whose answers stay near the float model's: weights and biases chosen layer by layer.

The plain int8 file is walked operator by operator beside its float graph, on calibration images. What an int8 layer
really gets, after all that went wrong before it, and what the float layer answers are both known there, so the layer's
integers are chosen anew: the weights by GPTQ (https://arxiv.org/abs/2210.17323) on the grid that they already have,
towards the float layer's answers (https://arxiv.org/abs/2504.02692), then the bias so that each channel's mean is the
float layer's (https://arxiv.org/abs/1906.04721). Operators, scales, size and latency stay as they are.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from converters.parity import sqnr_db
from converters.quantization.equalization import ChannelMap
from converters.tflite.graph import Graph, Operator
from converters.tflite.runtime import interpreter, predict, to_input

METHODS = ("rounding", "bias", "none")  # the best first
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
HELD_OUT = 5  # every fifth image does not correct: it decides whether correcting helped
MIN_IMAGES = 2 * HELD_OUT  # of fewer, one image would decide: the plain file is taken
MEMORY_BYTES = 1_000_000_000  # of activations held at once; fewer images correct a model whose activations are larger
# By so much another file must beat the plain one, and by so much more divided by the images that say so: less is
# chance, and may be a loss on other images. What correction brings where it works is some 5 dB.
MARGIN_DB, MARGIN_OF_FEW_DB = 1.5, 4.0
HOPELESS_DB = 1.0  # so much worse than the plain file before it is corrected, another one is not worth the time
DAMPINGS = (4.0, 16.0)  # tried until one helps on the images held out
# Positions to look at, for each value that an output is computed from: 16, or 4 where that is very many.
MIN_SAMPLES, SAMPLES_PER_VALUE, MANY_SAMPLES, LEAST_PER_VALUE = 512, 16, 4096, 4
MAX_PATCH = 4800  # values that one output is computed from; the weights of a layer with more stay: too slow
# Of a layer of as many inputs as there are images: the moments' condition stays below 1e5, right for float32.
LEAST_DAMPING = 1e-5
BLOCK = 32  # columns whose errors are carried on together


@dataclass(frozen=True)
class Candidate:
    """An integer file that may be corrected, and the float graph that it was made of.

    Tensors are matched by name; the file's input tensor's scale and zero point say what its integers stand for.

    Attributes:
        float_content, content: the float graph and the integer file.
        channels: how equalization mapped the float graph's channels, by tensor name.
    """

    float_content: bytes
    content: bytes
    channels: Mapping[str, ChannelMap] = field(default_factory=dict)


def corrected(
    makers: Sequence[Callable[[np.ndarray], Candidate]], inputs: np.ndarray, *, method: str, damping: float | None
) -> tuple[bytes, Candidate]:
    """The first file that clearly beats the plain one, on images that none of them was made of.

    Args:
        makers: each makes a file of the same model from images; the most promising first, the plain one last.
        inputs: `(n, height, width, 3)` float32, what the float graphs take.
        method: `rounding` (weights and biases), `bias` or `none`.
        damping: see `correct`; None tries `DAMPINGS`.

    Returns:
        The file, and its start: corrected by the method, by a weaker one, or the plain one as it is, made of all
        images. Its operators, scales and size are the start's.
    """
    if len(inputs) < MIN_IMAGES:
        plain = makers[-1](inputs)
        return plain.content, plain
    held_out = np.arange(len(inputs)) % HELD_OUT == HELD_OUT - 1
    given = inputs[~held_out]
    plain = makers[-1](given)
    wanted = predict(plain.float_content, inputs[held_out])

    def score(content: bytes) -> float:
        return sqnr_db(wanted, predict(content, inputs[held_out]))

    def attempt(start: Candidate, way: str, how: float | None) -> bytes:
        images = given[: max(1, MEMORY_BYTES // _bytes_an_image(Graph(start.float_content)))]
        return start.content if way == "none" else correct(start.float_content, start.content, images, damping=how)

    dampings = DAMPINGS if damping is None else (damping,)
    ways = [("rounding", how) for how in dampings] + [("bias", None), ("none", None)]
    ways = [(way, how) for way, how in ways if METHODS.index(way) >= METHODS.index(method)]
    least = score(plain.content)
    margin = MARGIN_DB + MARGIN_OF_FEW_DB / held_out.sum()
    seen = set()
    for make in makers:
        start = plain if make is makers[-1] else make(given)
        if start.content in seen or score(start.content) < least - HOPELESS_DB:
            continue
        seen.add(start.content)
        for way, how in ways:
            tried = attempt(start, way, how)
            if score(tried) > least + margin:
                return tried, start
    plain = makers[-1](inputs)
    return plain.content, plain


def correct(float_content: bytes, content: bytes, inputs: np.ndarray, *, damping: float | None) -> bytes:
    """The file with the integers of its convolutions and dense layers chosen anew on these images.

    Args:
        float_content, content: as in `Candidate`.
        inputs: `(n, height, width, 3)` float32, what the float graph takes.
        damping: how little the images are trusted: what is added to the variance of a layer's inputs, as a multiple
            of it for a layer of as many inputs as there are images. None leaves the weights and sets biases only.
    """
    float_graph, graph = Graph(float_content), Graph(content)
    detail = interpreter(content).get_input_details()[0]
    reference, walk = _Walk(float_graph, inputs), _Walk(graph, to_input(inputs, detail, None))
    twins = {float_graph.name(twin.outputs[0]): twin for twin in reference.operators}
    for operator in walk.operators:
        twin = twins.get(graph.name(operator.outputs[0]))
        if twin is not None and operator.name == twin.name and operator.name in WEIGHTED:
            reference.run_until(twin.index)
            layer = _layer_of(graph, operator, float_graph, twin)
            given, wanted = walk.values.get(operator.inputs[0]), reference.values.get(twin.inputs[0])
            if layer is not None and given is not None and wanted is not None:
                _set_integers(graph, operator, layer, given, wanted, damping)
        walk.run_until(operator.index + 1)
    return graph.to_bytes()


class _Walk:
    """A graph run operator by operator on all images; a tensor is kept until its last reader has run."""

    def __init__(self, graph: Graph, inputs: np.ndarray) -> None:
        self.graph = graph
        self.operators = list(graph.operators())
        self.values = {graph.inputs[0]: inputs}
        self._position = 0
        self._last_reader = {t: operator.index for operator in self.operators for t in operator.inputs}

    def run_until(self, position: int) -> None:
        """Run the operators before this position that have not run."""
        while self._position < position:
            part = self.graph.part([self._position])
            feeds = [self.values[t] for t in part.inputs]
            outputs = list(self.operators[self._position].outputs)
            self.values.update(zip(outputs, _run(part.to_bytes(), feeds), strict=True))
            self._position += 1
            for tensor in [t for t in self.values if self._last_reader.get(t, -1) < self._position]:
                del self.values[tensor]


def _run(content: bytes, feeds: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph, each `(n, ...)`, for inputs `(n, ...)` that it takes one image at a time.

    The converter drops the batch of what is 1 x 1 pixel large: such a tensor `(channels,)` is `(n, channels)` here.
    """
    count = len(feeds[0])
    interpreters = [interpreter(content) for _ in range(max(1, min(os.cpu_count() or 1, count)))]
    results = [
        np.empty((count, *(shape[1:] if shape[:1] == [1] else shape)), detail["dtype"])
        for detail in interpreters[0].get_output_details()
        for shape in [detail["shape"].tolist()]
    ]

    def every(first: int) -> None:
        at = interpreters[first]
        inputs, outputs = at.get_input_details(), at.get_output_details()
        for image in range(first, count, len(interpreters)):
            for detail, feed in zip(inputs, feeds, strict=True):
                at.set_tensor(detail["index"], feed[image].reshape(detail["shape"]))
            at.invoke()
            for detail, result in zip(outputs, results, strict=True):
                result[image] = at.get_tensor(detail["index"]).reshape(result.shape[1:])

    with ThreadPoolExecutor(len(interpreters)) as pool:
        list(pool.map(every, range(len(interpreters))))
    return results


def _bytes_an_image(graph: Graph) -> int:
    """The most memory that one image's activations take while a float graph and its int8 form are walked."""
    operators = list(graph.operators())
    last_reader = {t: operator.index for operator in operators for t in operator.inputs}
    alive, most = {graph.inputs[0]}, 1
    for operator in operators:
        alive.update(operator.outputs)
        most = max(most, sum(5 * int(np.prod(graph.shape(t))) for t in alive))
        alive = {t for t in alive if last_reader.get(t, -1) > operator.index}
    return most


@dataclass(frozen=True)
class _Geometry:
    """How a layer's outputs are made of its inputs; a dense layer has no window.

    A patch is what one output of one group is computed from: window * channels / groups values.
    """

    groups: int
    window: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    same: bool = False

    def outputs(self, size: int, axis: int) -> tuple[int, int]:
        """Along an axis: how many outputs there are for so many inputs, and how much padding before the first."""
        extent = (self.window[axis] - 1) * self.dilation[axis] + 1
        if not self.same:
            return (size - extent) // self.stride[axis] + 1, 0
        count = -(-size // self.stride[axis])
        return count, max((count - 1) * self.stride[axis] + extent - size, 0) // 2

    def patches(self, values: np.ndarray, count: int, seed: int, read: Reader) -> np.ndarray:
        """`(groups, samples, patch)` of outputs drawn at random, at least `count` if there are so many."""
        images = len(values)
        if self.window is None:
            return read(values.reshape(1, images, -1))
        (height, top), (width, left) = (self.outputs(values.shape[1 + axis], axis) for axis in (0, 1))
        random = np.random.default_rng(seed)
        each = min(height * width, -(-count // images))
        picked = np.concatenate([random.choice(height * width, each, replace=False) for _ in range(images)])
        image = np.repeat(np.arange(images), each)
        rows = np.arange(self.window[0])[:, None] * self.dilation[0] + picked // width * self.stride[0] - top
        columns = np.arange(self.window[1])[:, None] * self.dilation[1] + picked % width * self.stride[1] - left
        rows, columns = rows[:, None], columns[None]
        inside = (rows >= 0) & (rows < values.shape[1]) & (columns >= 0) & (columns < values.shape[2])
        taken = values[image, rows.clip(0, values.shape[1] - 1), columns.clip(0, values.shape[2] - 1)]
        if not inside.all():
            taken[~inside] = read.zero_point
        taken = taken.reshape(-1, len(picked), self.groups, values.shape[3] // self.groups)
        return read(np.ascontiguousarray(taken.transpose(2, 1, 0, 3)).reshape(self.groups, len(picked), -1))

    def mean_patch(self, values: np.ndarray, read: Reader) -> np.ndarray:
        """`(groups, 1, patch)`, the mean over all outputs of all images."""
        mean = read(values.mean(0, dtype=np.float64 if values.dtype.kind == "i" else None))
        if self.window is None:
            return mean.reshape(1, 1, -1)
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
class Reader:
    """What stored numbers stand for."""

    scale: float = 1.0
    zero_point: int = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self == Reader():
            return values.astype(np.float32, copy=False)
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True)
class _Layer:
    """A convolution or dense layer, float and int8. Weights are `(groups, outputs / groups, patch)`.

    Attributes:
        scale: `(groups, outputs / groups, 1)`, of an integer weight.
    """

    geometry: _Geometry
    weights: np.ndarray
    bias: np.ndarray
    integers: np.ndarray
    integer_bias: np.ndarray
    scale: np.ndarray
    reader: Reader


def _layer_of(graph: Graph, operator: Operator, float_graph: Graph, twin: Operator) -> _Layer | None:
    """The layer; None where its weights or its bias are computed, missing or not integers."""
    if min(len(operator.inputs), len(twin.inputs)) < 3 or min(*operator.inputs, *twin.inputs) < 0:
        return None
    (integers, integer_bias), (weights, bias) = (
        [g.constant(t) for t in op.inputs[1:3]] for g, op in ((graph, operator), (float_graph, twin))
    )
    quantization, of_input = graph.quantization(operator.inputs[1]), graph.quantization(operator.inputs[0])
    known = all(x is not None for x in (integers, integer_bias, weights, bias, quantization, of_input))
    if not known or integers.dtype != np.int8 or integer_bias.dtype.kind != "i":
        return None
    geometry = _geometry(graph, operator)
    scale = np.broadcast_to(quantization[0], len(bias)).astype(np.float64).reshape(geometry.groups, -1, 1)
    return _Layer(
        geometry,
        _grouped(weights, operator, geometry.groups),
        bias.reshape(geometry.groups, 1, -1),
        _grouped(integers, operator, geometry.groups),
        integer_bias,
        scale,
        Reader(float(of_input[0][0]), int(of_input[1][0])),
    )


def _geometry(graph: Graph, operator: Operator) -> _Geometry:
    if operator.name == "FULLY_CONNECTED":
        return _Geometry(1)
    options = graph.subgraph.operators[operator.index].builtinOptions
    weights, channels = graph.shape(operator.inputs[1]), graph.shape(operator.inputs[0])[-1]
    return _Geometry(
        channels if operator.name == "DEPTHWISE_CONV_2D" else channels // weights[3],
        weights[1:3],
        (options.strideH, options.strideW),
        (options.dilationHFactor, options.dilationWFactor),
        options.padding == 0,  # SAME
    )


def _grouped(weights: np.ndarray, operator: Operator, groups: int) -> np.ndarray:
    if operator.name == "DEPTHWISE_CONV_2D":  # stored as (1, height, width, outputs), outputs of a channel together
        return weights.reshape(-1, groups, weights.shape[3] // groups).transpose(1, 2, 0)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def _ungrouped(weights: np.ndarray, operator: Operator, shape: tuple[int, ...]) -> np.ndarray:
    return (weights.transpose(2, 0, 1) if operator.name == "DEPTHWISE_CONV_2D" else weights).reshape(shape)


def _set_integers(
    graph: Graph, operator: Operator, layer: _Layer, given: np.ndarray, wanted: np.ndarray, damping: float | None
) -> None:
    """Choose one layer's integers for `given`, its int8 inputs, and `wanted`, the float layer's inputs."""
    geometry, transposed = layer.geometry, layer.weights.transpose(0, 2, 1)
    mean_given, mean_wanted = geometry.mean_patch(given, layer.reader), geometry.mean_patch(wanted, Reader())
    integers, patch = layer.integers, layer.weights.shape[2]
    if damping is not None and patch <= MAX_PATCH:
        count = max(MIN_SAMPLES, LEAST_PER_VALUE * patch, min(SAMPLES_PER_VALUE * patch, MANY_SAMPLES))
        x = geometry.patches(given, count, operator.index, layer.reader)
        x -= mean_given
        departure = geometry.patches(wanted, count, operator.index, Reader()) - mean_wanted
        departure -= x
        integers = _round(x, departure, layer, damping * patch / len(given))
        stored = _ungrouped(integers, operator, graph.shape(operator.inputs[1])).astype(np.int8)
        graph.set_constant(_own(graph, operator, 1), stored)
    answer = np.matmul(mean_wanted, transposed) + layer.bias
    bias = (answer - np.matmul(mean_given, (integers * layer.scale).transpose(0, 2, 1))).reshape(-1)
    bias = np.rint(bias / (layer.reader.scale * layer.scale.reshape(-1)))
    fits = np.abs(bias) < np.iinfo(layer.integer_bias.dtype).max / 2  # the products are added to it
    bias = np.where(fits, bias, layer.integer_bias)
    graph.set_constant(_own(graph, operator, 2), bias.astype(layer.integer_bias.dtype))


def _own(graph: Graph, operator: Operator, position: int) -> int:
    """The constant that the operator reads there, as a tensor that no other operator reads."""
    tensor = operator.inputs[position]
    if len(graph.readers(tensor)) > 1:
        graph.tensors.append(copy.copy(graph.tensors[tensor]))
        own = len(graph.tensors) - 1
        graph.rename(own, f"{graph.name(tensor)}#{own}")
        inputs = graph.subgraph.operators[operator.index].inputs.copy()
        inputs[position] = tensor = own
        graph.subgraph.operators[operator.index].inputs = inputs
    return tensor


def _round(x: np.ndarray, departure: np.ndarray, layer: _Layer, damping: float) -> np.ndarray:
    """GPTQ: the weights are rounded one input after the other, each error made good by the inputs not yet rounded.

    Args:
        x: `(groups, samples, patch)`, what the int8 layer gets, less its mean.
        departure: the same shape: by how much what the float layer gets, less its mean, is more.
        damping: added to the variance of the inputs, as a multiple of their mean variance.

    Returns:
        `(groups, outputs / groups, patch)`: whole numbers -127..127.
    """
    size, samples = x.shape[2], x.shape[1]
    transposed, weights = x.transpose(0, 2, 1), layer.weights.transpose(0, 2, 1)
    moments = np.matmul(transposed, x) / samples
    missing = np.matmul(transposed, np.matmul(departure, weights)) / samples
    variance = np.einsum("gkk->gk", moments)
    order = np.argsort(variance, axis=1)[:, ::-1]
    # What moves less than rounding does is not trusted either.
    ridge = max(damping, LEAST_DAMPING * size) * (variance.mean(1) + layer.reader.scale**2 / 12)
    moments[:, range(size), range(size)] += ridge[:, None]
    moments = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None], 2)
    factor = _inverse_factor(moments)
    missing = np.take_along_axis(missing, order[:, :, None], 1)
    left = np.take_along_axis(weights, order[:, :, None], 1) + np.matmul(
        factor, np.matmul(factor.transpose(0, 2, 1), missing)
    )
    left = (left / layer.scale.transpose(0, 2, 1)).astype(np.float32)
    chosen = np.empty_like(left)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty_like(left[:, start:stop])
        for k in range(start, stop):
            chosen[:, k] = np.clip(np.rint(left[:, k]), -127, 127)
            errors[:, k - start] = (left[:, k] - chosen[:, k]) / factor[:, k, k, None]
            left[:, k:stop] -= factor[:, k:stop, k, None] * errors[:, None, k - start]
        if stop < size:
            left[:, stop:] -= np.matmul(factor[:, stop:, start:stop], errors)
    rounded = np.empty_like(chosen)
    np.put_along_axis(rounded, np.broadcast_to(order[:, :, None], chosen.shape), chosen, 1)
    rounded = rounded.transpose(0, 2, 1)
    return np.where(np.any(layer.weights, axis=2, keepdims=True), rounded, layer.integers)


def _inverse_factor(moments: np.ndarray) -> np.ndarray:
    """Lower triangular `(groups, size, size)` L with `L L^T` the inverse of the moments, a stack of such matrices."""
    backwards = _inverse_of_cholesky(moments[:, ::-1, ::-1])
    return np.ascontiguousarray(backwards[:, ::-1, ::-1].transpose(0, 2, 1))


def _inverse_of_cholesky(moments: np.ndarray) -> np.ndarray:
    """The inverse of the lower Cholesky factor of each matrix of `(groups, size, size)`, by products of halves."""
    size = moments.shape[1]
    if size <= BLOCK:
        return np.linalg.inv(np.linalg.cholesky(moments))
    half, inverse = size // 2, np.zeros(moments.shape, moments.dtype)
    first = inverse[:, :half, :half] = _inverse_of_cholesky(moments[:, :half, :half])
    below = np.matmul(moments[:, half:, :half], first.transpose(0, 2, 1))
    rest = moments[:, half:, half:] - np.matmul(below, below.transpose(0, 2, 1))
    second = inverse[:, half:, half:] = _inverse_of_cholesky(rest)
    inverse[:, half:, :half] = -np.matmul(second, np.matmul(below, first))
    return inverse
