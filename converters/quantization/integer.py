"""The float operators that the quantizer library leaves in an int8 file, made integer where a kernel takes int8.

The library keeps an operator without a rule in float, between a DEQUANTIZE and a QUANTIZE. Here it gets int8 inputs and
outputs instead, by the constraints of TensorFlow Lite's quantization specification
(https://ai.google.dev/edge/litert/models/quantization_spec). A function of one value that has no int8 kernel becomes a
table of its 256 results, which GATHER reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.tflite.graph import Graph, Operator

logger = logging.getLogger(__name__)

# Inputs and outputs have scales of their own.
OWN_SCALES = (
    "ABS", "ADD", "DIV", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "MEAN", "MUL", "PRELU", "REDUCE_PROD",
    "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "RSQRT", "SQRT", "SQUARED_DIFFERENCE", "SUB", "SUM",
)  # fmt: skip
# All float inputs and outputs share one scale: the input's, or the output's where several are combined.
SHARED_SCALE = (
    "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "GATHER", "GATHER_ND",
    "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PACK", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_BATCH_ND",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TOPK_V2", "TRANSPOSE", "UNPACK",
)  # fmt: skip
# The output's scale and zero point are part of the kernel.
FIXED_SCALE = {
    "L2_NORMALIZATION": (1 / 128, 0),
    "LOGISTIC": (1 / 256, -128),
    "LOG_SOFTMAX": (16 / 256, 127),
    "SOFTMAX": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}
# Integers are compared; the result is a truth value.
COMPARISONS = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
# Functions of one value without an int8 kernel; those of two have a constant second one.
TABLES: dict[str, Callable[..., np.ndarray]] = {
    "CEIL": np.ceil,
    "COS": np.cos,
    "FLOOR": np.floor,
    "FLOOR_DIV": np.floor_divide,
    "FLOOR_MOD": np.mod,
    "POW": np.power,
    "ROUND": np.rint,
    "SIGN": np.sign,
    "SIN": np.sin,
}


def without_float_islands(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> bool:
    """Make the float operators of an int8 graph integer where that is possible.

    Args:
        graph: of the quantizer library; changed in place.
        ranges: minimum and maximum of each tensor, by name.

    Returns:
        Whether there were any.
    """
    operators = list(graph.operators())
    if not any(o.name not in ("QUANTIZE", "DEQUANTIZE") and _float_tensors(graph, o) for o in operators):
        return False
    _Islands(graph, ranges).rewrite(operators)
    return True


def without_divisions_by_zero(graph: Graph) -> None:
    """Keep the divisors of an int8 graph that are not negative at one step at least: the kernel fails at zero."""
    makers = {tensor: operator for operator in graph.operators() for tensor in operator.outputs}
    for operator in reversed(list(graph.operators())):
        divisor = operator.inputs[1] if operator.name == "DIV" else -1
        if graph.quantization(divisor) is None or graph.constant(divisor) is not None:
            continue
        (scale,), (zero,) = graph.parameters(divisor)
        if zero != -128 or _never_zero(graph, makers.get(divisor)):
            continue
        name, one = graph.name(divisor), np.array(-127, np.int8)
        step = graph.add_tensor(f"{name}/step", "INT8", (), scale=float(scale), zero_point=-128, values=one)
        bounded = graph.add_tensor(
            f"{name}/not_zero_{operator.index}", "INT8", graph.shape(divisor), scale=float(scale), zero_point=-128
        )
        graph.set_inputs(operator, [operator.inputs[0], bounded])
        graph.add_operator("MAXIMUM", [divisor, step], [bounded], at=operator.index)


def _never_zero(graph: Graph, maker: Operator | None) -> bool:
    """Whether an operator adds a constant of two steps or more to what is not negative."""
    if maker is None or maker.name != "ADD":
        return False
    step = float(graph.parameters(maker.outputs[0])[0][0])
    for x, constant in (maker.inputs, maker.inputs[::-1]):
        values = graph.constant(constant)
        if values is not None and graph.constant(x) is None and graph.parameters(x)[1][0] == -128:
            scale, zero = graph.parameters(constant)
            return bool(((values.astype(np.float64) - zero[0]) * scale[0]).min() >= 2 * step)
    return False


def int8_parameters(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of an int8 tensor that holds low..high and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-30) / 255
    return scale, round(-128 - low / scale)


def float_operators(graph: Graph) -> dict[str, list[str]]:
    """The names of the layers that an integer file computes in float, by operator.

    Conversions of types are left out, and the normalization of a float input.
    """
    floats: dict[str, list[str]] = {}
    normalized = {t for t in graph.inputs if graph.dtype(t) == np.float32}
    for operator in graph.operators():
        if operator.name in ("QUANTIZE", "DEQUANTIZE") or not _float_tensors(graph, operator):
            continue
        if operator.inputs[0] in normalized:
            normalized.update(operator.outputs)
        else:
            floats.setdefault(operator.name, []).append(graph.name(operator.outputs[0]))
    return floats


def check_integer(graph: Graph, operators: tuple[int, int], scheme: str, least: float, title: str) -> None:
    """Raise CheckFailed where too few operators are integer; warn of float ones that the scheme does not choose.

    Args:
        graph: of the integer file.
        operators: the numbers of its integer operators and of all.
        scheme: its name.
        least: the smallest share of integer operators, 0..1; at 0 the scheme chooses float ones.
        title: of the conversion, for messages.
    """
    (integer, total), kind = operators, scheme.split("x")[0]
    floats = [
        f"{name} ({', '.join(layers[:3])}{', ...' * (len(layers) > 3)})"
        for name, layers in float_operators(graph).items()
    ]
    reason = f"TensorFlow Lite has no {kind} form of {', '.join(floats)}"
    if integer < least * total:
        raise CheckFailed(
            f"{title}: at least {least:.0%} of the operators must be integer. Measured: {integer} of {total}"
            + (f"; {reason}" if floats else "")
        )
    if floats and least:
        logger.warning("%s: %s; they stay float, and an NPU leaves them to the CPU", title, reason)


def _float_tensors(graph: Graph, operator: Operator) -> list[int]:
    return [t for t in (*operator.inputs, *operator.outputs) if t >= 0 and graph.dtype(t) == np.float32]


class _Islands:
    """Rewrites a graph operator by operator, in order."""

    def __init__(self, graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> None:
        self._graph, self._ranges = graph, ranges
        self._int8: dict[int, int] = {}  # float tensor -> int8 tensor with its values
        self._asked: dict[int, int] = {}  # float tensor -> int8 tensor that the library quantizes it to
        self._same: dict[int, int] = {}  # int8 tensor -> the one that takes its place
        self._indices: dict[int, int] = {}  # int8 tensor -> its values + 128, as int32

    def rewrite(self, operators: list[Operator]) -> None:
        graph = self._graph
        raws, graph.subgraph.operators = graph.subgraph.operators, []
        for operator in operators:
            if operator.name == "QUANTIZE" and graph.dtype(operator.inputs[0]) == np.float32:
                self._asked.setdefault(operator.inputs[0], operator.outputs[0])
        for operator, raw in zip(operators, raws, strict=True):
            raw.inputs = np.array([self._same.get(int(t), int(t)) for t in operator.inputs], np.int32)
            if operator.name == "DEQUANTIZE" and graph.dtype(raw.inputs[0]) == np.int8:
                self._int8[operator.outputs[0]] = int(raw.inputs[0])
            elif operator.name == "QUANTIZE" and operator.inputs[0] in self._int8:
                self._requantize(operator, raw)
                continue
            elif operator.name != "QUANTIZE" and _float_tensors(graph, operator) and self._convert(operator, raw):
                continue
            graph.subgraph.operators.append(raw)
        graph.drop_unread()

    def _requantize(self, operator: Operator, raw: Any) -> None:
        """Let a QUANTIZE read the int8 tensor, or leave it out where that is what it writes."""
        graph, source, result = self._graph, self._int8[operator.inputs[0]], operator.outputs[0]
        if source == result:
            return
        if self._parameters(source) == self._parameters(result):
            self._same[result] = source
            graph.replace_output(result, source)
            return
        raw.inputs = np.array([source], np.int32)
        graph.subgraph.operators.append(raw)

    def _convert(self, operator: Operator, raw: Any) -> bool:
        """Emit the operator with int8 inputs and outputs; False where no kernel takes them."""
        name = operator.name
        if name in TABLES:
            return self._look_up(operator)
        if name == "CAST":
            return self._truth_values(operator, raw)
        if name not in (*OWN_SCALES, *SHARED_SCALE, *FIXED_SCALE, *COMPARISONS):
            return False
        floats = [t for t in operator.inputs if t >= 0 and self._graph.dtype(t) == np.float32]
        outputs = [t for t in operator.outputs if self._graph.dtype(t) == np.float32]
        parameters = self._output_parameters(operator, floats, outputs)
        shared = parameters[outputs[0]] if name in SHARED_SCALE else None
        inputs = [self._quantized(t, shared) if t in floats else int(t) for t in raw.inputs]
        results = [self._output(t, parameters[t]) if t in parameters else t for t in operator.outputs]
        raw.inputs, raw.outputs = np.array(inputs, np.int32), np.array(results, np.int32)
        self._graph.subgraph.operators.append(raw)
        for tensor, result in zip(operator.outputs, results, strict=True):
            self._dequantize(tensor, result)
        return True

    def _output_parameters(
        self, operator: Operator, floats: list[int], outputs: list[int]
    ) -> dict[int, tuple[float, int]]:
        """Scale and zero point of each float output, by the operator's kind."""
        if operator.name in FIXED_SCALE:
            return dict.fromkeys(outputs, FIXED_SCALE[operator.name])
        if operator.name not in SHARED_SCALE:
            return {t: self._asked_or(t, int8_parameters(*self._range(t))) for t in outputs}
        integers = [t for t in operator.inputs if t >= 0 and self._graph.quantization(t) is not None]
        if integers:  # the library leaves only outputs float that nothing reads
            return dict.fromkeys(outputs, self._parameters(integers[0]))
        if len(floats) == 1 and self._graph.constant(floats[0]) is None:
            return dict.fromkeys(outputs, self._parameters(self._quantized(floats[0])))
        return dict.fromkeys(outputs, self._asked_or(outputs[0], int8_parameters(*self._range(outputs[0]))))

    def _truth_values(self, operator: Operator, raw: Any) -> bool:
        """Emit a CAST of truth values to int8, whose 0 and 1 are the numbers at a scale of 1."""
        from ai_edge_litert import schema_py_generated as schema

        if self._graph.dtype(operator.inputs[0]) != np.bool_:
            return False
        raw.builtinOptions, raw.builtinOptionsType = schema.CastOptionsT(), schema.BuiltinOptions.CastOptions
        raw.builtinOptions.inDataType, raw.builtinOptions.outDataType = schema.TensorType.BOOL, schema.TensorType.INT8
        result = self._output(operator.outputs[0], (1.0, 0))
        raw.outputs = np.array([result], np.int32)
        self._graph.subgraph.operators.append(raw)
        self._dequantize(operator.outputs[0], result)
        return True

    def _look_up(self, operator: Operator) -> bool:
        """Emit a table of the operator's results for the 256 values of its input."""
        from ai_edge_litert import schema_py_generated as schema

        graph, tensor = self._graph, operator.outputs[0]
        others = [graph.constant(t) for t in operator.inputs[1:]]
        if any(values is None or values.size != 1 for values in others):
            return False
        source = self._quantized(operator.inputs[0])
        scale, zero = self._parameters(source)
        values = (np.arange(-128, 128) - zero) * np.float64(scale)
        with np.errstate(invalid="ignore", divide="ignore"):
            results = np.nan_to_num(
                TABLES[operator.name](values, *(float(o.reshape(())) for o in others if o is not None))
            )
        step, middle = self._asked_or(tensor, int8_parameters(*self._range(tensor)))
        table = np.clip(np.rint(results / step) + middle, -128, 127).astype(np.int8)
        name, shape = graph.name(tensor), graph.shape(tensor)
        at = graph.subgraph.operators
        if source not in self._indices:
            widened = graph.add_tensor(f"{name}/widened", "INT32", shape)
            index = self._indices[source] = graph.add_tensor(f"{name}/index", "INT32", shape)
            offset = graph.add_tensor(f"{name}/offset", "INT32", (), values=np.array(128, np.int32))
            cast = schema.CastOptionsT()
            cast.inDataType, cast.outDataType = schema.TensorType.INT8, schema.TensorType.INT32
            graph.add_operator("CAST", [source], [widened], at=len(at), options=cast)
            graph.add_operator("ADD", [widened, offset], [index], at=len(at), options=schema.AddOptionsT())
        rows = graph.add_tensor(f"{name}/table", "INT8", (256,), scale=step, zero_point=middle, values=table)
        result = self._output(tensor, (step, middle))
        gather = schema.GatherOptionsT()
        graph.add_operator("GATHER", [rows, self._indices[source]], [result], at=len(at), options=gather)
        self._dequantize(tensor, result)
        return True

    def _range(self, tensor: int) -> tuple[float, float]:
        return self._ranges[self._graph.name(tensor)]

    def _parameters(self, tensor: int) -> tuple[float, int]:
        scale, zero_point = self._graph.parameters(tensor)
        return float(scale[0]), int(zero_point[0])

    def _asked_or(self, tensor: int, otherwise: tuple[float, int]) -> tuple[float, int]:
        """The scale and zero point that the library gave the tensor; else those that are passed."""
        return self._parameters(self._asked[tensor]) if tensor in self._asked else otherwise

    def _quantized(self, tensor: int, parameters: tuple[float, int] | None = None) -> int:
        """The int8 tensor of a float one, with these parameters if they are given; made where it is missing."""
        graph, values = self._graph, self._graph.constant(tensor)
        if values is not None:
            scale, zero = parameters or int8_parameters(float(values.min(initial=0)), float(values.max(initial=0)))
            integers = np.clip(np.rint(values / np.float64(scale)) + zero, -128, 127).astype(np.int8)
            name = f"{graph.name(tensor)}/int8_{len(graph.tensors)}"
            return graph.add_tensor(name, "INT8", values.shape, scale=scale, zero_point=zero, values=integers)
        source = self._int8.get(tensor, tensor)
        if source != tensor and parameters in (None, self._parameters(source)):
            return source
        scale, zero = parameters or int8_parameters(*self._range(tensor))
        name = f"{graph.name(source)}/int8_{len(graph.tensors)}"
        result = graph.add_tensor(name, "INT8", graph.shape(tensor), scale=scale, zero_point=zero)
        graph.add_operator("QUANTIZE", [source], [result], at=len(graph.subgraph.operators))
        return result

    def _output(self, tensor: int, parameters: tuple[float, int]) -> int:
        """The int8 tensor that takes a float tensor's place and name."""
        graph, name = self._graph, self._graph.name(tensor)
        result = self._asked.get(tensor, -1)
        if result < 0 or self._parameters(result) != parameters:
            result = graph.add_tensor(name, "INT8", graph.shape(tensor), scale=parameters[0], zero_point=parameters[1])
        graph.rename(tensor, f"{name}/float")
        graph.rename(result, name)
        return result

    def _dequantize(self, tensor: int, result: int) -> None:
        """Keep the float tensor for operators that stay float; it is dropped where there are none."""
        if result != tensor:
            self._int8[tensor] = result
            self._graph.add_operator("DEQUANTIZE", [result], [tensor], at=len(self._graph.subgraph.operators))
