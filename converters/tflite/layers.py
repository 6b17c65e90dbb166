"""Layer by layer: where a converted model departs from its float model, and whether its ranges fit.

Tensors are matched by name. Channels that were equalized are brought back to the float model's before that.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.parity import LayerError, ratio_db, sqnr_db
from converters.tflite.channels import read_channels
from converters.tflite.graph import Graph, Operator
from converters.tflite.runtime import dequantize, visit

LAYER_IMAGES = 16  # the error of a layer hardly differs from photo to photo
DEPARTS_DB = 20.0  # below it a layer's noise is more than a tenth of its signal


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    beyond: int = 0
    count: int = 0
    ends: list[int] = field(default_factory=list)  # the smallest and the largest integer


def layer_errors(
    float_content: bytes,
    other_content: bytes,
    images: np.ndarray,
    *,
    pixel_offset: int | None = None,
    limit: int = LAYER_IMAGES,
) -> tuple[LayerError, ...]:
    """The error of every layer that two TFLite models both compute, in the order of the float graph.

    Args:
        float_content: the reference; takes `images` as they are.
        other_content: the same graph in another scheme.
        images: `(n, height, width, 3)` in the range that the model takes.
        pixel_offset: how the other model's integer input is made of pixels; see `converters.tflite.runtime.to_input`.
        limit: at most so many of the images are used.
    """
    images = images[:limit]
    channels = read_channels(other_content)
    reference, other = Graph(float_content), Graph(other_content)
    makers, other_makers = ({g.name(t): op for op in g.operators() for t in op.outputs} for g in (reference, other))
    names = [name for name in makers if name in other_makers]
    if not names or not len(images):
        return ()
    weights = {name: _weights_sqnr_db(reference, makers[name], other, other_makers[name], channels) for name in names}
    for graph, of in ((reference, makers), (other, other_makers)):
        graph.set_outputs([next(t for t in of[name].outputs if graph.name(t) == name) for name in names])
    sums = {name: _Sums() for name in names}
    lock = threading.Lock()

    def look(index: int, at: Any, other_at: Any) -> None:
        details = {detail["name"]: detail for detail in other_at.get_output_details()}
        for detail in at.get_output_details():
            name = detail["name"]
            own = details[name]
            wanted = dequantize(at.get_tensor(detail["index"]), detail)
            stored = other_at.get_tensor(own["index"])
            values, mapped = dequantize(stored, own), wanted
            if name in channels:
                values = (values - channels[name].shift) / channels[name].gain
                mapped = wanted * channels[name].gain + channels[name].shift
            with lock:
                at_name = sums[name]
                at_name.signal += float(np.sum(np.square(wanted, dtype=np.float64)))
                at_name.noise += float(np.sum(np.square(wanted - values, dtype=np.float64)))
                at_name.count += wanted.size
                if stored.dtype.kind != "f" and own["quantization"][0]:
                    at_name.beyond += _beyond(mapped, own)
                    at_name.ends = [
                        min([*at_name.ends[:1], int(stored.min())]),
                        max([*at_name.ends[1:], int(stored.max())]),
                    ]

    visit([(reference.to_bytes(), None), (other.to_bytes(), pixel_offset)], images, look)
    found = []
    for name, of in sums.items():
        kind = other.dtype(next(t for t in other.outputs if other.name(t) == name))
        figures = (None, None)
        if of.ends:
            codes = np.iinfo(kind).max - np.iinfo(kind).min + 1
            figures = of.beyond / of.count, 1 - (of.ends[1] - of.ends[0] + 1) / codes
        found.append(
            LayerError(name, round(ratio_db(of.signal, of.noise), 2), makers[name].name, weights[name], *figures)
        )
    return tuple(found)


def worst(errors: tuple[LayerError, ...], count: int = 5) -> tuple[LayerError, ...]:
    """The layers with the lowest SQNR, lowest first."""
    return tuple(sorted(errors, key=lambda e: e.sqnr_db)[:count])


def first_departing(errors: tuple[LayerError, ...], below_db: float = DEPARTS_DB) -> LayerError | None:
    """The first layer, from the input, whose SQNR is below a limit; None when there is none."""
    return next((error for error in errors if error.sqnr_db < below_db), None)


def _beyond(values: np.ndarray, detail: dict[str, Any]) -> int:
    """How many values the tensor's integers cannot hold, by more than half a step."""
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    low, high = ((end - zero_point) * scale for end in (limits.min - 0.5, limits.max + 0.5))
    return int(np.count_nonzero((values < low) | (values > high)))


def _weights_sqnr_db(
    reference: Graph, maker: Operator, other: Graph, other_maker: Operator, channels: dict[str, Any]
) -> float | None:
    """The SQNR of a layer's weights, equalization undone; None where it has none or they were not changed."""
    if len(maker.inputs) < 2 or len(other_maker.inputs) < 2 or maker.name != other_maker.name or maker.inputs[1] < 0:
        return None
    wanted, stored = reference.constant(maker.inputs[1]), other.constant(other_maker.inputs[1])
    quantization = other.quantization(other_maker.inputs[1])
    if wanted is None or stored is None or quantization is None or wanted.dtype.kind != "f":
        return None
    if stored.shape != wanted.shape:
        return None
    last = maker.name == "DEPTHWISE_CONV_2D"  # its outputs come last, the others' first

    def of_outputs(values: np.ndarray) -> np.ndarray:
        return values if last or values.size == 1 else values.reshape(-1, *[1] * (wanted.ndim - 1))

    values = (stored.astype(np.float64) - of_outputs(quantization[1])) * of_outputs(quantization[0])
    given, made = (channels.get(reference.name(t)) for t in (maker.inputs[0], maker.outputs[0]))
    values = values if given is None else values * given.gain
    values = values if made is None else values / of_outputs(made.gain)
    return round(sqnr_db(wanted, values), 2)
