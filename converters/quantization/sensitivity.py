"""How much the rounding of each tensor changes a model's outputs, and the ranges and gains that change them least.

An error e of one tensor changes the outputs by J e, J the outputs' derivative by the tensor. The expected square of
that is the expected square of (J^T v) e for v of random signs (Hutchinson's estimator): one backward pass of a few v
gives the cost of any number of candidates for all tensors at once, to first order. Unlike the mean square error of the
tensor itself, it depends on how much the network uses a channel, and it includes clipped values that add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.memory import return_freed_memory
from converters.quantization.ranges import ChannelStatistics, Ranges, activations_of
from converters.quantization.tensorflow_graph import TensorflowGraph

PROBES = 2  # random v for each image
BATCH = 4  # images of one backward pass
ONE_SIDED = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35)  # shares of a range whose other end is 0
TWO_SIDED = (1.0, 0.85, 0.7, 0.55, 0.42)  # of each end of any other range
BELOW_ACTIVATED = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)  # of the low end of a tensor that only an activation reads
LOWEST = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the low end of the logits, whose largest decides the class

CHANNEL = (1.1, 0.85, 0.65)  # of the distance from a channel's mean to each end of its range

FIXED = ("RESHAPE", "SOFTMAX", "LOGISTIC", "TANH", "MAX_POOL_2D")  # operators whose output's range is not their own

# An error of a tensor, from the values of all tensors.
Error = Callable[[Mapping[int, Any]], Any]


def noise(
    graph: TensorflowGraph, inputs: np.ndarray, errors: Mapping[int, Sequence[Error]], *, by_channel: bool = False
) -> dict[int, np.ndarray]:
    """The expected noise of the outputs for errors of tensors, as shares of the outputs' power.

    The mean of each channel's error is left out: the biases of the layers after it are corrected for it.

    Args:
        graph: the float graph.
        inputs: `(n, height, width, channels)`, its input; whole batches of it are used.
        errors: candidates by tensor, each as the error of that tensor.
        by_channel: whether the noise of each channel is returned alone.

    Returns:
        For each tensor `(candidates,)`, or `(candidates, channels)`.
    """
    import tensorflow as tf

    if not errors:
        return {}

    def costs(values: Mapping[int, Any], gradients: Mapping[int, list[Any]]) -> list[Any]:
        of_tensors: list[Any] = []
        for tensor, candidates in errors.items():
            rank = len(values[tensor].shape)
            axes, summed = list(range(rank - 1)), list(range(1, rank - 1 if by_channel else rank))
            row: list[Any] = []
            for error in candidates:
                # One after the other: all at once they fill the memory.
                with tf.control_dependencies(row[-1:] or of_tensors[-1:]):
                    wrong = error(values)
                    wrong -= tf.reduce_mean(wrong, axes, keepdims=True)
                    changes = tf.stack([tf.reduce_sum(wrong * gradient, summed) for gradient in gradients[tensor]])
                    row.append(tf.reduce_sum(tf.square(changes), [0, 1]) / PROBES)
            of_tensors.append(tf.stack(row))
        return of_tensors

    totals, power = probed_sums(graph, inputs, list(errors), costs)
    return {tensor: total / max(power, 1e-30) for tensor, total in zip(errors, totals, strict=True)}


def probed_sums(
    graph: TensorflowGraph,
    inputs: np.ndarray,
    tensors: Sequence[int],
    summand: Callable[[Mapping[int, Any], Mapping[int, list[Any]]], list[Any]],
) -> tuple[list[np.ndarray], float]:
    """Sums over all images of what is computed from tensors and their gradients.

    Args:
        graph: the float graph.
        inputs: `(n, height, width, channels)`, its input; whole batches of it are used.
        tensors: whose gradients are needed.
        summand: from the values of all tensors of a batch and, for each of `tensors`, J^T v for each random v.

    Returns:
        The sums, and the power of the outputs.
    """
    import tensorflow as tf

    output = _logits(graph)
    width = int(np.prod(graph.graph.shape(output)))

    def step(images: Any, signs: Any) -> tuple[list[Any], Any]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(images)
            values = graph.run(images)
            logits = tf.reshape(values[output], [-1, width])
            probed = [tf.reduce_sum(logits * signs[probe]) for probe in range(PROBES)]
        zero = tf.UnconnectedGradients.ZERO
        by_probe = [tape.gradient(total, [values[t] for t in tensors], unconnected_gradients=zero) for total in probed]
        gradients = {tensor: [gradient[place] for gradient in by_probe] for place, tensor in enumerate(tensors)}
        return summand(values, gradients), tf.reduce_sum(tf.square(logits))

    size = min(BATCH, len(inputs))
    specifications = [tf.TensorSpec(shape, tf.float32) for shape in ((size, *inputs.shape[1:]), (PROBES, size, width))]
    compiled = tf.function(step, autograph=False).get_concrete_function(*specifications)
    random, power = np.random.default_rng(0), 0.0
    totals: list[Any] = []
    for start in range(0, len(inputs) - size + 1, size):
        images = inputs[start : start + size].astype(np.float32)
        signs = random.choice(np.array([-1, 1], np.float32), (PROBES, size, width))
        sums, squares = compiled(tf.constant(images), tf.constant(signs))
        found = [np.asarray(values, np.float64) for values in sums]
        totals = [total + values for total, values in zip(totals, found, strict=True)] if totals else found
        power += float(squares)
    del compiled
    return_freed_memory()
    return totals, power


def _logits(graph: TensorflowGraph) -> int:
    """The tensor before a final softmax or sigmoid, or the output."""
    output = graph.graph.outputs[0]
    last = graph.operators[-1]
    return last.inputs[0] if last.outputs[0] == output and last.name in ("SOFTMAX", "LOGISTIC") else output


def narrowed(low: float, high: float, *, activated: bool = False) -> list[tuple[float, float]]:
    """Candidates for a tensor's range: with 0, narrower and narrower; `activated` where only an activation reads it."""
    low, high = min(low, 0.0), max(high, 0.0)
    if activated:
        return [(low * below, high * above) for below in BELOW_ACTIVATED for above in TWO_SIDED]
    if low == 0 or high == 0:
        return [(low * share, high * share) for share in ONE_SIDED]
    shares = [(below, above) for below in TWO_SIDED for above in TWO_SIDED if 0.75 < below / above < 1.35]
    return [(low * below, high * above) for below, above in shares]


def rounded(values: Any, low: float, high: float) -> Any:
    """Values after rounding to the 256 steps of a range."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(values, low, high)


def channel_error(tensor: int, low: np.ndarray, high: np.ndarray) -> Error:
    """The error of a tensor each of whose channels is rounded to 256 steps over its own range, `(channels,)` each."""
    step = (np.maximum(high - low, 1e-12) / 255).astype(np.float32)
    start = low.astype(np.float32)

    def error(values: Mapping[int, Any]) -> Any:
        import tensorflow as tf

        return tf.round(tf.clip_by_value((values[tensor] - start) / step, 0.0, 255.0)) * step + start - values[tensor]

    return error


def least_noise_channels(
    graph: TensorflowGraph, inputs: np.ndarray, statistics: Mapping[str, ChannelStatistics]
) -> dict[str, ChannelStatistics]:
    """The statistics with the part of each channel's range that changes the outputs least if it has all 256 steps.

    Args:
        graph: the float graph.
        inputs: `(n, height, width, channels)`.
        statistics: of the channels of tensors, by name.
    """
    tensors = {operator.outputs[0]: graph.graph.name(operator.outputs[0]) for operator in graph.operators}
    ends: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for tensor, name in tensors.items():
        if name in statistics:
            of = statistics[name]
            below, above = of.mean - of.low, of.high - of.mean
            ends[tensor] = [(of.mean - a * below, of.mean + b * above) for a in CHANNEL for b in CHANNEL]

    errors = {tensor: [channel_error(tensor, low, high) for low, high in pairs] for tensor, pairs in ends.items()}
    best = {t: cost.argmin(0)[None] for t, cost in noise(graph, inputs, errors, by_channel=True).items()}
    chosen = dict(statistics)
    for t, pairs in ends.items():
        low, high = (np.take_along_axis(np.array(end), best[t], 0)[0] for end in zip(*pairs, strict=True))
        chosen[tensors[t]] = dataclasses.replace(statistics[tensors[t]], low=low, high=high)
    return chosen


def least_noise_ranges(graph: TensorflowGraph, inputs: np.ndarray, ranges: Ranges) -> Ranges:
    """The part of each tensor's range whose rounding and clipping change the outputs least.

    Args:
        graph: the float graph.
        inputs: `(n, height, width, channels)`; better not those of `ranges`.
        ranges: minimum and maximum of each computed tensor, by name.
    """
    activated = activations_of(graph.graph)
    candidates = {
        operator.outputs[0]: narrowed(*ranges[name], activated=name in activated)
        for operator in graph.operators
        for name in [graph.graph.name(operator.outputs[0])]
        if name in ranges and ranges[name][0] < ranges[name][1] and operator.name not in FIXED
    }
    logits = _logits(graph)
    if logits in candidates:
        low, high = ranges[graph.graph.name(logits)]
        candidates[logits] = [(min(low, 0.0) * share, max(high, 0.0)) for share in LOWEST]

    def error(tensor: int, low: float, high: float) -> Error:
        return lambda values: rounded(values[tensor], low, high) - values[tensor]

    costs = noise(graph, inputs, {t: [error(t, low, high) for low, high in pairs] for t, pairs in candidates.items()})
    best = {graph.graph.name(t): candidates[t][int(np.argmin(cost))] for t, cost in costs.items()}
    return {**ranges, **best}
