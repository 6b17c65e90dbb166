"""The error of a converted model layer by layer, and whether its ranges fit.

Tensors are matched by name. Equalized channels are mapped back to the float model's first; tensors whose channels are
mixed are like none of the float model's and are left out.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.parity import LayerError, ratio_db, sqnr_db
from converters.tflite.channels import ChannelMap, read_channels
from converters.tflite.graph import Graph, Operator
from converters.tflite.runtime import dequantize, visit

LAYER_IMAGES = 16  # a layer's error hardly differs between images
MASKED_BELOW = 30.0  # the largest of a row of logits; exp(-30) is 1e-13
DEPARTS_DB = 20.0  # below, a layer's noise is more than a tenth of its signal


@dataclass
class _Sums:
    """What is summed over the images for one layer.

    Attributes:
        signal, noise: the squares of the float output and of its difference.
        beyond: the float values outside the range of the integers.
        count: of values.
        lowest, highest: the integers that occurred; None where the layer's output is float.
    """

    signal: float = 0.0
    noise: float = 0.0
    beyond: int = 0
    count: int = 0
    lowest: int | None = None
    highest: int | None = None

    def add(self, other: _Sums) -> None:
        self.signal += other.signal
        self.noise += other.noise
        self.beyond += other.beyond
        self.count += other.count
        if other.lowest is not None and other.highest is not None:
            self.lowest = other.lowest if self.lowest is None else min(self.lowest, other.lowest)
            self.highest = other.highest if self.highest is None else max(self.highest, other.highest)


def layer_errors(
    float_content: bytes,
    other_content: bytes,
    images: np.ndarray,
    *,
    pixel_offset: int | None = None,
    limit: int = LAYER_IMAGES,
) -> tuple[LayerError, ...]:
    """The error of every layer that two TFLite models have in common, in the order of the float graph.

    Args:
        float_content: the reference; takes `images` unchanged.
        other_content: the same graph in another scheme.
        images: `(n, height, width, 3)` in the range that the model takes.
        pixel_offset: of the other model's input; see `converters.tflite.runtime.to_input`.
        limit: the largest number of images to use.
    """
    images = images[:limit]
    reference, other = Graph(float_content), Graph(other_content)
    maps = read_channels(other)
    channels = {name: map_ for name, map_ in maps.items() if map_ is not None}
    mixed = set(maps) - set(channels)
    layers, other_layers = reference.by_output(), other.by_output()
    names = [name for name in layers if name in other_layers and name not in mixed]
    if not names or not len(images):
        return ()
    weights = {
        name: None
        if not mixed.isdisjoint(map(reference.name, layers[name].inputs[:1]))
        else _weights_sqnr_db(reference, layers[name], other, other_layers[name], channels)
        for name in names
    }
    for graph, operators in ((reference, layers), (other, other_layers)):
        graph.set_outputs([next(t for t in operators[name].outputs if graph.name(t) == name) for name in names])
    types = {other.name(tensor): other.dtype(tensor) for tensor in other.outputs}
    sums = {name: _Sums() for name in names}
    masked = _before_softmax(reference)
    lock = threading.Lock()

    def look(index: int, at: Any, other_at: Any) -> None:
        details = {detail["name"]: detail for detail in other_at.get_output_details()}
        of_image = {}
        for detail in at.get_output_details():
            name = detail["name"]
            expected = dequantize(at.get_tensor(detail["index"]), detail)
            stored = other_at.get_tensor(details[name]["index"])
            if name in masked:
                expected = _without_masked(expected, dequantize(stored, details[name]))
            of_image[name] = _sums(expected, stored, details[name], channels.get(name))
        with lock:
            for name, added in of_image.items():
                sums[name].add(added)

    visit([(reference.to_bytes(), None), (other.to_bytes(), pixel_offset)], images, look)
    return tuple(_error(name, sums[name], layers[name].name, types[name], weights[name]) for name in names)


def _before_softmax(graph: Graph) -> set[str]:
    """The names of the tensors that only a softmax reads, also in another shape."""
    names: set[str] = set()
    readers = graph.readers()
    for operator in reversed(list(graph.operators())):
        tensor = operator.outputs[0]
        reading = readers.get(tensor, [])
        if reading and all(
            r.name == "SOFTMAX" or (r.name == "RESHAPE" and graph.name(r.outputs[0]) in names) for r in reading
        ):
            names.add(graph.name(tensor))
    return names


def _without_masked(expected: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The float input of a softmax, with the other model's `values` where a softmax makes 0 of both."""
    return np.where(expected < expected.max(axis=-1, keepdims=True) - MASKED_BELOW, values, expected)


def _sums(expected: np.ndarray, stored: np.ndarray, detail: dict[str, Any], channels: ChannelMap | None) -> _Sums:
    """One image's sums of a layer, its channels mapped back to the float model's."""
    values, mapped = dequantize(stored, detail), expected
    if channels is not None:
        values = (values - channels.shift) / channels.gain
        mapped = expected * channels.gain + channels.shift
    sums = _Sums(
        signal=_sum_of_squares(expected),
        noise=_sum_of_squares(expected - values),
        count=expected.size,
    )
    if stored.dtype.kind != "f" and detail["quantization"][0]:
        sums.beyond, sums.lowest, sums.highest = _beyond(mapped, detail), int(stored.min()), int(stored.max())
    return sums


def _sum_of_squares(values: np.ndarray) -> float:
    """The sum over rows of channels in float32, and over the rows in float64: without a float64 copy of all values."""
    rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    return float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))


def _error(name: str, sums: _Sums, operator: str, dtype: np.dtype | None, weights_sqnr_db: float | None) -> LayerError:
    saturated = unused = None
    if sums.lowest is not None and sums.highest is not None and dtype is not None:
        codes = np.iinfo(dtype).max - np.iinfo(dtype).min + 1
        saturated, unused = sums.beyond / sums.count, 1 - (sums.highest - sums.lowest + 1) / codes
    return LayerError(name, round(ratio_db(sums.signal, sums.noise), 2), operator, weights_sqnr_db, saturated, unused)


def worst(errors: tuple[LayerError, ...], count: int = 5) -> tuple[LayerError, ...]:
    """The layers with the lowest SQNR, lowest first."""
    return tuple(sorted(errors, key=lambda e: e.sqnr_db)[:count])


def first_departing(errors: tuple[LayerError, ...], below_db: float = DEPARTS_DB) -> LayerError | None:
    """The first layer, from the input, with an SQNR below a limit; None when there is none."""
    return next((error for error in errors if error.sqnr_db < below_db), None)


def _beyond(values: np.ndarray, detail: dict[str, Any]) -> int:
    """The number of values outside the range of the tensor's integers by more than half a step."""
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    low, high = ((end - zero_point) * scale for end in (limits.min - 0.5, limits.max + 0.5))
    return int(np.count_nonzero((values < low) | (values > high)))


def _weights_sqnr_db(
    reference: Graph, layer: Operator, other: Graph, other_layer: Operator, channels: dict[str, ChannelMap]
) -> float | None:
    """The SQNR of a layer's weights, equalization undone; None where it has none or they are not quantized."""
    if len(layer.inputs) < 2 or len(other_layer.inputs) < 2 or layer.name != other_layer.name or layer.inputs[1] < 0:
        return None
    expected, stored = reference.constant(layer.inputs[1]), other.constant(other_layer.inputs[1])
    quantization = other.quantization(other_layer.inputs[1])
    if expected is None or stored is None or quantization is None or expected.dtype.kind != "f":
        return None
    if stored.shape != expected.shape:
        return None
    last = layer.name == "DEPTHWISE_CONV_2D"  # its outputs are the last axis, those of the others the first

    def of_outputs(values: np.ndarray) -> np.ndarray:
        return values if last or values.size == 1 else values.reshape(-1, *[1] * (expected.ndim - 1))

    values = (stored.astype(np.float64) - of_outputs(quantization[1])) * of_outputs(quantization[0])
    of_input, of_output = (channels.get(reference.name(t)) for t in (layer.inputs[0], layer.outputs[0]))
    values = values if of_input is None else values * of_input.gain
    values = values if of_output is None else values / of_outputs(of_output.gain)
    return round(sqnr_db(expected, values), 2)
