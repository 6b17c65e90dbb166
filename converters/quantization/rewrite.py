"""From a float TFLite file to its quantized forms: float16 weights, int8 weights, full integer.

Ranges and bounds are decided here; ai-edge-quantizer rewrites the operators by its rules for each of them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.native_logs import suppress_native_logs
from converters.quantization.integer import without_divisions_by_zero, without_float_islands
from converters.quantization.masks import fit_masks
from converters.tflite.graph import WEIGHTED, Graph, Operator
from converters.tflite.versions import set_versions

# TFLite runtimes up to 2.9 read a dense layer with a scale for each channel wrongly; NNAPI rejects it.
DENSE_PER_TENSOR = "FULLY_CONNECTED"
MAX_BIAS_STEPS = {8: 2**30, 16: 2**40}  # half of the accumulator's range, int32 or 48 bits
MAX_SUM_RATIO = 512
MAX_PRODUCT_STEPS = 128  # steps of the result in one step of the products that are summed; XNNPACK requires under 256
MIN_SHARED_BY, NEAR_ONE = 16, 0.1  # see `_spread_rounding`
_quantizer_lock = threading.Lock()


def float16_weights(content: bytes) -> bytes:
    """The file with weights stored as float16 and converted to float32 when the model is loaded."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    def recipe(quantizer: Any) -> None:
        for operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP"):
            quantizer.add_weight_only_config(".*", operator, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)

    return _quantize(content, recipe)


def dynamic_int8_weights(content: bytes) -> bytes:
    """The file with int8 weights; activations stay float32 and are quantized at run time where a kernel supports it."""
    return _quantize(content, lambda quantizer: quantizer.add_dynamic_config(".*", "*", 8))


def full_integer(
    content: bytes,
    ranges: dict[str, tuple[float, float]],
    input_range: tuple[float, float],
    *,
    activation_bits: int = 8,
    by_channel: bool = True,
) -> bytes:
    """The file with int8 weights and int8 or int16 activations, input and output.

    Args:
        content: the float model without its normalization.
        ranges: minimum and maximum of each computed tensor, by name.
        input_range: the same for the model's input.
        activation_bits: 8, or 16: zero point 0 and biases in int64.
        by_channel: whether the weights of a layer have a scale for each channel; those of a dense layer have one.
    """
    from ai_edge_quantizer.qtyping import QuantGranularity

    graph = Graph(content)
    all_ranges = {**ranges, graph.name(graph.inputs[0]): input_range}
    fit_masks(graph, all_ranges, activation_bits)
    _keep_steps_in_bounds(graph, all_ranges)
    _keep_biases_in_bounds(graph, all_ranges, activation_bits)
    _keep_sums_in_bounds(graph, all_ranges)
    _spread_rounding(graph, all_ranges)
    statistics = {name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in all_ranges.items()}

    def recipe(quantizer: Any) -> None:
        bits = activation_bits, 8
        if by_channel:
            quantizer.add_static_config(".*", "*", *bits)
        else:
            quantizer.add_static_config(".*", "*", *bits, weight_granularity=QuantGranularity.TENSORWISE)
        quantizer.add_static_config(".*", DENSE_PER_TENSOR, *bits, weight_granularity=QuantGranularity.TENSORWISE)

    content = _quantize(graph.to_bytes(), recipe, statistics)
    if activation_bits != 8:
        return content
    graph = Graph(content)
    if not without_float_islands(graph, all_ranges) and "DIV" not in {o.name for o in graph.operators()}:
        return content
    without_divisions_by_zero(graph)
    set_versions(graph)
    return graph.to_bytes()


def _keep_steps_in_bounds(graph: Graph, ranges: dict[str, tuple[float, float]]) -> None:
    """Widen ranges far narrower than what their operator computes from, such as that of a dead layer, always 0.

    Such a step would be far finer than the products that the operator sums, which the runtime refuses. A dead layer's
    step is coarser than them, so that the biases of the next layer do not overflow.
    """

    def width(tensor: int) -> float:
        values = graph.constant(tensor)
        if values is not None:
            return float(np.abs(values).max(initial=0))
        low, high = ranges.get(graph.name(tensor), (0.0, 0.0))
        return max(high, 0.0) - min(low, 0.0)

    for operator in graph.operators():
        name, own = graph.name(operator.outputs[0]), width(operator.outputs[0])
        if name not in ranges:
            continue
        inputs = [width(tensor) for tensor in operator.inputs[:2] if tensor >= 0 and graph.dtype(tensor) == np.float32]
        least = 0.0
        if (operator.name in WEIGHTED or operator.name == "MUL") and len(inputs) == 2:
            least = inputs[0] * inputs[1] / 127 * (1 / MAX_PRODUCT_STEPS if own else MAX_PRODUCT_STEPS)
        if not own and not least:
            least = max(inputs, default=0.0)
        if own < least:
            low = min(ranges[name][0], 0.0)
            ranges[name] = low, low + least


def _keep_sums_in_bounds(graph: Graph, ranges: dict[str, tuple[float, float]]) -> None:
    """Widen the range of a summand far smaller than the sum: XNNPACK requires scales at most 2^10 apart."""
    for operator in graph.operators():
        if operator.name not in ("ADD", "SUB"):
            continue
        low, high = ranges.get(graph.name(operator.outputs[0]), (0.0, 0.0))
        least = (max(high, 0.0) - min(low, 0.0)) / MAX_SUM_RATIO
        for name in map(graph.name, operator.inputs):
            if name in ranges and max(ranges[name][1], 0.0) - min(ranges[name][0], 0.0) < least:
                ranges[name] = min(ranges[name][0], 0.0), min(ranges[name][0], 0.0) + least


def _spread_rounding(graph: Graph, ranges: dict[str, tuple[float, float]]) -> None:
    """Widen the range of x - m or x + m whose scale is that of x, where m has few values: a constant, a group's mean.

    With the scale of x, all its integers minus m have the same fraction: the rounding shifts all of them alike, by up
    to half a step. With 8/7 of it, the fractions cycle through eighths, and the mean is kept.
    """
    for operator in graph.operators():
        if operator.name not in ("ADD", "SUB"):
            continue
        x, m = sorted(operator.inputs, key=lambda t: int(np.prod(graph.shape(t))), reverse=True)
        names = graph.name(x), graph.name(operator.outputs[0])
        if not set(names) <= set(ranges):
            continue
        if np.prod(graph.shape(m)) * MIN_SHARED_BY > np.prod(graph.shape(x)):
            continue
        width, result = (max(ranges[n][1], 0.0) - min(ranges[n][0], 0.0) for n in names)
        if width and abs(result / width - 1) < NEAR_ONE:
            wider = width / result * 8 / 7
            ranges[names[1]] = ranges[names[1]][0] * wider, ranges[names[1]][1] * wider


def _keep_biases_in_bounds(graph: Graph, ranges: dict[str, tuple[float, float]], activation_bits: int) -> None:
    """Raise one weight of each channel whose weights are far smaller than its bias, so that the bias does not overflow.

    A bias is stored in steps of input scale times weight scale; with tiny weights it would overflow and change its
    sign. The raised weight sets the scale; it is so small that the largest input changes the channel by less than
    1/30,000 of the bias.
    """
    for operator in list(graph.operators()):
        if operator.name not in WEIGHTED or len(operator.inputs) < 3:
            continue
        weights, bias = graph.constant(operator.inputs[1]), graph.constant(operator.inputs[2])
        low, high = ranges.get(graph.name(operator.inputs[0]), (0.0, 0.0))
        input_scale = (max(high, 0.0) - min(low, 0.0)) / 255 if activation_bits == 8 else max(-low, high) / 32767
        if weights is None or bias is None or input_scale <= 0:
            continue
        raised = _with_least_weights(operator, weights, bias, input_scale * MAX_BIAS_STEPS[activation_bits])
        if raised is not None:
            scaled = graph.add_tensor(
                f"{graph.name(operator.inputs[1])}/scaled_{operator.index}", "FLOAT32", weights.shape
            )
            graph.set_constant(scaled, raised)
            graph.set_inputs(operator, [operator.inputs[0], scaled, *operator.inputs[2:]])


def _with_least_weights(
    operator: Operator, weights: np.ndarray, bias: np.ndarray, max_bias: float
) -> np.ndarray | None:
    """The weights with one raised in each channel that needs it; None where none does.

    Args:
        operator: whose weights and bias these are.
        weights, bias: float32.
        max_bias: the largest bias that weights of scale 1 allow.
    """
    last = operator.name == "DEPTHWISE_CONV_2D"  # its channels are the last axis, those of the others the first
    ordered = np.moveaxis(weights, -1, 0) if last else weights
    rows = ordered.reshape(len(bias), -1)
    if operator.name == DENSE_PER_TENSOR:
        rows, bias = rows.reshape(1, -1), np.abs(bias).max(keepdims=True)
    least = 127 * np.abs(bias) / max_bias
    small = np.abs(rows).max(axis=1) < least
    if not small.any():
        return None
    rows = rows.copy()
    rows[small, 0] = least[small]
    raised = rows.reshape(ordered.shape)
    return (np.moveaxis(raised, 0, -1) if last else raised).astype(np.float32)


class _WithoutThisThread:
    """A stream that drops what the thread that made it writes, and passes on what other threads write."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._dropped = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if self._stream is None or threading.get_ident() == self._dropped:
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _quantize(content: bytes, recipe: Callable[[Any], None], statistics: dict[str, Any] | None = None) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    # The quantizer's interpreter keeps every tensor, and warns about it.
    warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
    try:
        # It always draws a progress bar; sys.stderr is shared by all threads, hence the lock.
        with _quantizer_lock, suppress_native_logs(), contextlib.redirect_stderr(_WithoutThisThread(sys.stderr)):
            quantizer = Quantizer(bytearray(content))
            recipe(quantizer)
            result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise CheckFailed(f"the graph cannot be quantized: {reason}") from error
    graph = Graph(bytes(result.quantized_model))
    set_versions(graph)
    return graph.to_bytes()
