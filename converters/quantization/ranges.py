"""The ranges of activations: minimum and maximum, or clipped for the least mean square error."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from converters.tflite.graph import Graph
from converters.tflite.runtime import visit

BINS = 4096  # of a tensor's histogram
SAMPLED_VALUES = 40_000  # of a tensor and image: enough for a histogram
NARROWINGS = np.linspace(1, 0.3, 36)  # shares of each end of a range that are tried


def activation_ranges(content: bytes, inputs: np.ndarray) -> dict[str, tuple[float, float]]:
    """The minimum and maximum of every computed tensor, by name.

    The graph runs with every intermediate tensor as an output, so that the runtime's fast kernels compute them.

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, 3)`, the graph's input.
    """
    graph = Graph(content)
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    ranges: dict[str, tuple[float, float]] = {}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        image_ranges = {}
        for detail in at.get_output_details():
            values = at.tensor(detail["index"])()
            if values.dtype.kind == "f" and values.size:
                image_ranges[detail["name"]] = float(values.min()), float(values.max())
            del values  # a view into the interpreter, which refuses to run while one is alive
        with lock:
            for name, (low, high) in image_ranges.items():
                earlier = ranges.get(name, (low, high))
                ranges[name] = min(low, earlier[0]), max(high, earlier[1])

    visit([(graph.to_bytes(), None)], inputs, look)
    return ranges


def clipped_ranges(
    content: bytes, inputs: np.ndarray, ranges: dict[str, tuple[float, float]], *, levels: int = 255
) -> dict[str, tuple[float, float]]:
    """Narrow each range to the least mean square error of rounding and clipping together; the output's range stays.

    Rounding a value inside the range costs step^2 / 12, clipping a value outside the square of its distance
    (https://arxiv.org/abs/1810.05723).

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, 3)`, the graph's input.
        ranges: the result of `activation_ranges` for these inputs.
        levels: the number of steps of the integer type.
    """
    graph = Graph(content)
    kept = {graph.name(t) for t in graph.outputs}  # the largest logit decides the class
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    counts = {name: np.zeros(BINS) for name, (low, high) in ranges.items() if low < high and name not in kept}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        for detail in at.get_output_details():
            name = detail["name"]
            if name not in counts:
                continue
            values = at.get_tensor(detail["index"]).reshape(-1)
            every = max(1, values.size // SAMPLED_VALUES)
            low, high = ranges[name]
            places = ((values[index % every :: every] - low) * (BINS / (high - low))).astype(np.int32)
            histogram = np.bincount(places.clip(0, BINS - 1), minlength=BINS)
            with lock:
                counts[name] += histogram

    visit([(graph.to_bytes(), None)], inputs, look)
    return {**ranges, **{name: _least_error(histogram, *ranges[name], levels) for name, histogram in counts.items()}}


def _least_error(counts: np.ndarray, low: float, high: float, levels: int) -> tuple[float, float]:
    """The part of a range with the least mean square error; it includes 0, as the integer type requires."""
    values = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    low, high = min(low, 0.0), max(high, 0.0)

    def error(least: float, most: float) -> float:
        cut = np.maximum(np.maximum(least - values, values - most), 0)
        return float(counts @ np.where(cut > 0, cut**2, (most - least) ** 2 / (12 * levels**2)))

    chosen = low, high
    for _ in range(2):  # each end in turn, the other fixed
        most = min((high * share for share in NARROWINGS), key=lambda end: error(chosen[0], end))
        least = min((low * share for share in NARROWINGS), key=lambda end: error(end, most))
        chosen = least, most
    return float(chosen[0]), float(chosen[1])
