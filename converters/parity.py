"""How far a converted model is from the model it was made from: outputs, and activations layer by layer."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph import Graph
from converters.running import dequantize, visit

MAX_SQNR_DB = 150.0  # float32 carries about 24 bits: what is nearer than this is equal
LAYER_IMAGES = 16  # the error of a layer hardly differs from photo to photo


@dataclass(frozen=True)
class LayerError:
    """The signal-to-noise ratio of one activation: `layer` is its name in the float graph, in graph order."""

    layer: str
    sqnr_db: float


@dataclass(frozen=True)
class Parity:
    """A converted model against its reference, on the same images.

    Attributes:
        top1_agreement: share of images, 0..1, on which both have the same top-1.
        max_abs_error: largest difference of two logits.
        sqnr_db: 10 log10(sum of reference^2 / sum of difference^2) over all logits, at most 150.
        worst_layers: the activations with the lowest SQNR, lowest first; empty where layers cannot be matched.
        images: how many images were compared.
    """

    top1_agreement: float
    max_abs_error: float
    sqnr_db: float
    worst_layers: tuple[LayerError, ...] = ()
    images: int = 0


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in dB, within -150..150."""
    reference = np.asarray(reference, np.float64)
    return ratio_db(float(np.sum(reference**2)), float(np.sum((reference - other) ** 2)))


def ratio_db(signal: float, noise: float) -> float:
    if noise <= 0:
        return MAX_SQNR_DB
    if signal <= 0:
        return -MAX_SQNR_DB
    return float(np.clip(10 * math.log10(signal / noise), -MAX_SQNR_DB, MAX_SQNR_DB))


def compare(reference: np.ndarray, other: np.ndarray, worst_layers: tuple[LayerError, ...] = ()) -> Parity:
    """The Parity of two sets of logits `(n, classes)`."""
    return Parity(
        top1_agreement=float(np.mean(reference.argmax(1) == other.argmax(1))),
        max_abs_error=float(np.max(np.abs(reference - other))),
        sqnr_db=sqnr_db(reference, other),
        worst_layers=worst_layers,
        images=len(reference),
    )


def layer_errors(
    float_content: bytes,
    other_content: bytes,
    images: np.ndarray,
    *,
    pixel_offset: int | None = None,
) -> tuple[LayerError, ...]:
    """The error of every activation that two TFLite models both compute, in the order of the float graph.

    Args:
        float_content: the reference; takes `images` as they are.
        other_content: the same graph in another scheme; tensors are matched by name.
        images: `(n, height, width, 3)` in the range that the model takes; the first 16 are used.
        pixel_offset: how the other model's integer input is made of pixels; see `converters.running.to_input`.
    """
    images = images[:LAYER_IMAGES]
    reference, other = Graph(float_content), Graph(other_content)
    computed = [{g.name(t): t for op in g.operators() for t in op.outputs} for g in (reference, other)]
    names = [name for name in computed[0] if name in computed[1]]
    if not names or not len(images):
        return ()
    for graph, tensors in zip((reference, other), computed, strict=True):
        graph.set_outputs([tensors[name] for name in names])
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    lock = threading.Lock()

    def look(index: int, at: Any, other_at: Any) -> None:
        details = {detail["name"]: detail for detail in other_at.get_output_details()}
        for detail in at.get_output_details():
            own = details[detail["name"]]
            wanted = dequantize(at.get_tensor(detail["index"]), detail).astype(np.float64)
            values = dequantize(other_at.get_tensor(own["index"]), own)
            with lock:
                signal[detail["name"]] += float(np.sum(wanted**2))
                noise[detail["name"]] += float(np.sum((wanted - values) ** 2))

    visit([(reference.to_bytes(), None), (other.to_bytes(), pixel_offset)], images, look)
    return tuple(LayerError(name, round(ratio_db(signal[name], noise[name]), 2)) for name in names)


def worst(errors: tuple[LayerError, ...], count: int = 5) -> tuple[LayerError, ...]:
    """The layers with the lowest SQNR, lowest first."""
    return tuple(sorted(errors, key=lambda e: e.sqnr_db)[:count])
