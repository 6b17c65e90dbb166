"""The ranges of activations: minimum and maximum, or clipped for the least mean square error.

Where a tensor is only read by an activation, such as swish, the error is that of the activation's result: of values far
below 0 the next layers see nothing, and the range need not hold them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.tflite.graph import Graph
from converters.tflite.runtime import visit

BINS = 4096  # of a tensor's histogram
SAMPLED_VALUES = 40_000  # of a tensor and image: enough for a histogram
NARROWINGS = np.linspace(1, 0.3, 36)  # shares of each end of a range that are tried
BEFORE_ACTIVATION = np.geomspace(1, 0.02, 60)  # the same where an activation reads the tensor


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


Function = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS: dict[str, Function] = {
    "HARD_SWISH": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "LOGISTIC": _sigmoid,
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": lambda x: np.clip(x, 0, 6),
    "TANH": np.tanh,
}


Ranges = dict[str, tuple[float, float]]  # minimum and maximum by name of tensor


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Minimum, maximum, mean and variance of each channel of a tensor, over images and positions; `(channels,)`."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def activation_ranges(content: bytes, inputs: np.ndarray) -> Ranges:
    """The minimum and maximum of every computed tensor, by name.

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, 3)`, the graph's input.
    """
    return observe(content, inputs)[0]


def observe(
    content: bytes, inputs: np.ndarray, by_channel: frozenset[str] = frozenset()
) -> tuple[Ranges, dict[str, ChannelStatistics]]:
    """The ranges of every computed tensor, and the channels' statistics of some.

    The graph runs with every intermediate tensor as an output, so that the runtime's fast kernels compute them.

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, 3)`, the graph's input.
        by_channel: the names of the tensors whose channels are observed.
    """
    ranges: Ranges = {}
    sums: dict[str, list[np.ndarray]] = {}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        image_ranges: Ranges = {}
        image_sums = {}
        for detail in at.get_output_details():
            name, values = detail["name"], at.tensor(detail["index"])()
            if name in by_channel:
                image_sums[name] = _channel_sums(values)
                image_ranges[name] = float(image_sums[name][0].min()), float(image_sums[name][1].max())
            elif values.dtype.kind == "f" and values.size:
                image_ranges[name] = float(values.min()), float(values.max())
            del values  # a view into the interpreter, which does not run while one is alive
        with lock:
            for name, (low, high) in image_ranges.items():
                earlier = ranges.get(name, (low, high))
                ranges[name] = min(low, earlier[0]), max(high, earlier[1])
            for name, new in image_sums.items():
                old = sums.setdefault(name, [new[0], new[1], 0 * new[2], 0 * new[3]])
                old[0], old[1] = np.minimum(old[0], new[0]), np.maximum(old[1], new[1])
                old[2], old[3] = old[2] + new[2], old[3] + new[3]

    visit([(with_all_outputs(content), None)], inputs, look)
    return ranges, {
        name: ChannelStatistics(low, high, total / len(inputs), squares / len(inputs) - np.square(total / len(inputs)))
        for name, (low, high, total, squares) in sums.items()
    }


def with_all_outputs(content: bytes) -> bytes:
    """The TFLite file with every computed tensor as an output."""
    graph = Graph(content)
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    return graph.to_bytes()


def _channel_sums(values: np.ndarray) -> list[np.ndarray]:
    """Of each channel of one image: minimum, maximum, mean and mean square."""
    values = values.reshape(-1, values.shape[-1])
    return [values.min(0), values.max(0), values.mean(0, np.float64), np.square(values).mean(0, np.float64)]


def activations_of(graph: Graph) -> dict[str, Function]:
    """The function that reads a tensor, by the tensor's name, where it is the only one; swish reads x twice."""
    functions: dict[str, Function] = {}
    readers, outputs = graph.readers(), set(graph.outputs)
    for tensor, of_tensor in readers.items():
        names = sorted(reader.name for reader in of_tensor)
        if tensor in outputs:
            continue
        if len(names) == 1 and names[0] in ACTIVATIONS:
            functions[graph.name(tensor)] = ACTIVATIONS[names[0]]
        elif names == ["LOGISTIC", "MUL"]:
            sigmoid, product = sorted(of_tensor, key=lambda reader: reader.name)
            if sorted(product.inputs) == sorted((tensor, sigmoid.outputs[0])):
                functions[graph.name(tensor)] = lambda x: x * _sigmoid(x)
    return functions


def clipped_ranges(content: bytes, inputs: np.ndarray, ranges: Ranges, *, levels: int = 255) -> Ranges:
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
    functions = activations_of(graph)
    kept = {graph.name(t) for t in graph.outputs}  # the largest logit decides the class
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    # One bin more holds the largest value, which is counted in the last bin at the end.
    counts = {name: np.zeros(BINS + 1) for name, (low, high) in ranges.items() if low < high and name not in kept}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        for detail in at.get_output_details():
            name = detail["name"]
            if name not in counts:
                continue
            values = at.tensor(detail["index"])().reshape(-1)
            every = max(1, values.size // SAMPLED_VALUES)
            low, high = ranges[name]
            places = values[index % every :: every] - low
            del values  # a view into the interpreter
            places *= BINS / (high - low)
            np.clip(places, 0, BINS, out=places)
            histogram = np.bincount(places.astype(np.int64), minlength=BINS + 1)
            with lock:
                counts[name] += histogram

    visit([(graph.to_bytes(), None)], inputs, look)
    for histogram in counts.values():
        histogram[BINS - 1] += histogram[BINS]
    clipped = {
        name: _least_error(histogram[:BINS], *ranges[name], levels, functions.get(name))
        for name, histogram in counts.items()
    }
    return {**ranges, **clipped}


def _least_error(
    counts: np.ndarray, low: float, high: float, levels: int, function: Function | None
) -> tuple[float, float]:
    """The part of a range with the least mean square error; it includes 0, as the integer type requires.

    Args:
        counts: the tensor's histogram from `low` to `high`.
        low, high: the range.
        levels: the number of steps.
        function: the activation whose result is compared; None compares the tensor's own values.
    """
    width = (high - low) / BINS
    values = low + (np.arange(BINS) + 0.5) * width
    results, slopes = values, np.ones(BINS)
    if function is not None:
        results, slopes = function(values), (function(values + width / 2) - function(values - width / 2)) / width
    low, high = min(low, 0.0), max(high, 0.0)

    def error(least: float, most: float) -> float:
        ends = np.clip(values, least, most)
        cut = results - (ends if function is None else function(ends))
        steps = slopes**2 * (most - least) ** 2 / (12 * levels**2)
        return float(counts @ np.where(ends == values, steps, cut**2))

    shares = NARROWINGS if function is None else BEFORE_ACTIVATION
    chosen = low, high
    for _ in range(2):  # each end in turn, the other fixed
        most = min((high * share for share in shares), key=lambda end: error(chosen[0], end))
        least = min((low * share for share in shares), key=lambda end: error(end, most))
        chosen = least, most
    return float(chosen[0]), float(chosen[1])
