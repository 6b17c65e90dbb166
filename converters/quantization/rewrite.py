"""Float TFLite to its quantized forms: float16 weights, int8 weights, and full-integer int8.

The numbers are chosen here: ranges, zero points, what the input means. The rewriting of each operator is left to
ai-edge-quantizer, which knows every operator's rules.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.float_model import NormalizedGraph
from converters.native_logs import suppress_native_logs
from converters.tflite.graph import Graph
from converters.tflite.versions import set_versions

# TFLite runtimes up to 2.9 load a dense layer with a scale per channel and compute nonsense; NNAPI rejects it.
DENSE_PER_TENSOR = "FULLY_CONNECTED"
MAX_BIAS_STEPS = {8: 2**30, 16: 2**40}  # half of what the products with the inputs are added to, int32 or 48 bits
MAX_SUM_RATIO = 512
_alone = threading.Lock()


def float16_weights(content: bytes) -> bytes:
    """Weights stored as float16 and widened when the model is loaded; everything is computed in float32."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    def recipe(quantizer: Any) -> None:
        for operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP"):
            quantizer.add_weight_only_config(".*", operator, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING)

    return _quantize(content, recipe)


def dynamic_int8_weights(content: bytes) -> bytes:
    """int8 weights; activations stay float32 and are quantized for each image where a kernel can use that."""
    return _quantize(content, lambda quantizer: quantizer.add_dynamic_config(".*", "*", 8))


def full_integer(
    content: bytes,
    ranges: dict[str, tuple[float, float]],
    input_range: tuple[float, float],
    *,
    activation_bits: int = 8,
    wide: Iterable[str] = (),
) -> bytes:
    """int8 weights; int8 or int16 activations, input and output.

    Args:
        content: the float model without its normalization.
        ranges: smallest and largest value of each computed tensor, by name.
        input_range: the same for the model's input.
        activation_bits: 8, or 16: zero point 0 and biases in int64.
        wide: names of tensors; the operators that make them stay float.
    """
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import QuantGranularity

    graph = Graph(content)
    known = {**ranges, graph.name(graph.inputs[0]): input_range}
    _keep_biases_in_bounds(graph, known, activation_bits)
    _keep_sums_in_bounds(graph, known)
    statistics = {name: {"min": np.float32(low), "max": np.float32(high)} for name, (low, high) in known.items()}

    def recipe(quantizer: Any) -> None:
        bits = activation_bits, 8
        quantizer.add_static_config(".*", "*", *bits)
        quantizer.add_static_config(".*", DENSE_PER_TENSOR, *bits, weight_granularity=QuantGranularity.TENSORWISE)
        for name in wide:
            quantizer.update_quantization_recipe(f"^{re.escape(name)};?$", "*", algorithm_key=AlgorithmName.NO_QUANTIZE)

    return _quantize(graph.to_bytes(), recipe, statistics)


def _keep_sums_in_bounds(graph: Graph, ranges: dict[str, tuple[float, float]]) -> None:
    """Widen the range of a summand that is next to nothing beside the sum: XNNPACK takes scales up to 2^10 apart."""
    for operator in graph.operators():
        if operator.name not in ("ADD", "SUB"):
            continue
        low, high = ranges.get(graph.name(operator.outputs[0]), (0.0, 0.0))
        least = (max(high, 0.0) - min(low, 0.0)) / MAX_SUM_RATIO
        for name in map(graph.name, operator.inputs):
            if name in ranges and max(ranges[name][1], 0.0) - min(ranges[name][0], 0.0) < least:
                ranges[name] = min(ranges[name][0], 0.0), min(ranges[name][0], 0.0) + least


def _keep_biases_in_bounds(graph: Graph, ranges: dict[str, tuple[float, float]], activation_bits: int) -> None:
    """Give a channel whose weights are next to nothing beside its bias one weight that its scale can be taken from.

    A bias is stored in steps of input scale times weight scale, so such a channel's would overflow and change its sign.
    The weight is so small that the largest input moves the channel by less than 1/30,000 of the bias.
    """
    for operator in list(graph.operators()):
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") or len(operator.inputs) < 3:
            continue
        weights = graph.constant(operator.inputs[1])
        bias = graph.constant(operator.inputs[2]) if operator.inputs[2] >= 0 else None
        low, high = ranges.get(graph.name(operator.inputs[0]), (0.0, 0.0))
        input_scale = (max(high, 0.0) - min(low, 0.0)) / 255 if activation_bits == 8 else max(-low, high) / 32767
        if weights is None or bias is None or input_scale <= 0:
            continue
        last = operator.name == "DEPTHWISE_CONV_2D"  # its channels come last, the others' first
        rows = (np.moveaxis(weights, -1, 0) if last else weights).reshape(len(bias), -1)
        if operator.name == DENSE_PER_TENSOR:
            rows, bias = rows.reshape(1, -1), np.abs(bias).max(keepdims=True)
        least = 127 * np.abs(bias) / (input_scale * MAX_BIAS_STEPS[activation_bits])
        small = np.abs(rows).max(axis=1) < least
        if small.any():
            rows = rows.copy()
            rows[small, 0] = least[small]
            shape = np.moveaxis(weights, -1, 0).shape if last else weights.shape
            rows = rows.reshape(shape)
            own = graph.add_tensor(
                f"{graph.name(operator.inputs[1])}/scaled_{operator.index}", "FLOAT32", weights.shape
            )
            graph.set_constant(own, (np.moveaxis(rows, 0, -1) if last else rows).astype(np.float32))
            inputs = [operator.inputs[0], own, *operator.inputs[2:]]
            graph.subgraph.operators[operator.index].inputs = np.array(inputs, np.int32)


def _quantize(content: bytes, recipe: Any, statistics: dict[str, Any] | None = None) -> bytes:
    from ai_edge_quantizer.quantizer import Quantizer

    # Its interpreter keeps every tensor, on purpose, and warns of that.
    warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
    try:
        # It draws a progress bar, asked or not; sys.stderr belongs to all threads, hence one at a time.
        with _alone, suppress_native_logs(), contextlib.redirect_stderr(io.StringIO()):
            quantizer = Quantizer(bytearray(content))
            recipe(quantizer)
            result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise CheckFailed(f"the graph cannot be quantized: {reason}") from error
    made = Graph(bytes(result.quantized_model))
    set_versions(made)
    return made.to_bytes()


def with_io(
    content: bytes, io_type: str, body: NormalizedGraph, ends: Sequence[tuple[float, float]] | None = None
) -> bytes:
    """Full-integer content with the input and output that `io_type` names.

    `int8` and `uint8` are 128 steps apart: where the inside is another, a QUANTIZE at each end goes between. `float32`
    puts the model's normalization back in float, then a QUANTIZE, and a DEQUANTIZE at the output.

    Args:
        content: int8 at both ends, or int16.
        io_type: `int8`, `uint8` or `float32`.
        body: what the content was made of.
        ends: what an 8-bit input and output in the place of int16 ones hold, `(low, high)` each.
    """
    if io_type == Graph(content).dtype(Graph(content).inputs[0]):
        return content
    from ai_edge_litert import schema_py_generated as schema

    graph = Graph(content)
    old_in, old_out = graph.inputs[0], graph.outputs[0]
    shape = graph.shape(old_in)
    name_in, name_out = graph.name(old_in), graph.name(old_out)
    inside = graph.dtype(old_in)
    graph.rename(old_in, f"{name_in}_{inside}")
    graph.rename(old_out, f"{name_out}_{inside}")
    if io_type != "float32":
        (in_scale, in_zero), (out_scale, out_zero) = (
            (float(scale[0]), int(zero[0])) for scale, zero in (graph.quantization(old_in), graph.quantization(old_out))
        )
        if ends is not None:
            (in_scale, in_zero), (out_scale, out_zero) = (_int8_parameters(*end) for end in ends)
        up = 128 if io_type == "uint8" else 0
        new_in = graph.add_tensor(name_in, io_type.upper(), shape, scale=in_scale, zero_point=in_zero + up)
        new_out = graph.add_tensor(
            name_out, io_type.upper(), graph.shape(old_out), scale=out_scale, zero_point=out_zero + up
        )
        graph.add_operator("QUANTIZE", [new_in], [old_in], at=0)
        last = "QUANTIZE"
    else:
        new_in = graph.add_tensor(name_in, "FLOAT32", shape)
        new_out = graph.add_tensor(name_out, "FLOAT32", graph.shape(old_out))
        at, place = new_in, 0
        for operator, number, options in (
            ("MUL", body.scale, schema.MulOptionsT()),
            ("ADD", body.offset, schema.AddOptionsT()),
        ):
            if number != (1.0 if operator == "MUL" else 0.0):
                operand = graph.add_tensor(f"{operator.lower()}_operand", "FLOAT32", (), values=np.float32(number))
                result = graph.add_tensor(f"{name_in}_{operator.lower()}", "FLOAT32", shape)
                graph.add_operator(operator, [at, operand], [result], at=place, options=options)
                at, place = result, place + 1
        graph.add_operator("QUANTIZE", [at], [old_in], at=place)
        last = "DEQUANTIZE"
    graph.add_operator(last, [old_out], [new_out], at=len(graph.subgraph.operators))
    graph.replace_input(old_in, new_in)
    graph.replace_output(old_out, new_out)
    set_versions(graph)
    return graph.to_bytes()


def _int8_parameters(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of an int8 tensor that holds low..high and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-30) / 255
    return scale, round(-128 - low / scale)
