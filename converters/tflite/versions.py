"""The versions of operators that a TFLite file needs, and the runtimes that support them.

A runtime rejects a version that it does not know. Where a file declares a lower version than it needs, an old runtime
runs it and computes wrong results. Tables after tensorflow/compiler/mlir/lite/tools/versioning of TensorFlow 2.21.
"""

from __future__ import annotations

import numpy as np

from converters.tflite.graph import Graph, Operator

_INT8 = {
    "ABS": 2, "ADD": 2, "AVERAGE_POOL_2D": 2, "BATCH_MATMUL": 2, "CONCATENATION": 2, "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3, "EQUAL": 2, "EXP": 2, "FULLY_CONNECTED": 4, "GATHER": 2, "GELU": 2, "GREATER": 2,
    "GREATER_EQUAL": 2, "L2_NORMALIZATION": 2, "LESS": 2, "LESS_EQUAL": 2, "LOG": 2, "LOGISTIC": 2, "LOG_SOFTMAX": 2,
    "MAXIMUM": 2, "MAX_POOL_2D": 2, "MEAN": 2, "MINIMUM": 2, "MIRROR_PAD": 2, "MUL": 2, "NOT_EQUAL": 2, "PACK": 2,
    "PAD": 2, "PADV2": 2, "REDUCE_MAX": 2, "REDUCE_MIN": 2, "REDUCE_PROD": 2, "RELU": 2, "RELU6": 2,
    "RESIZE_BILINEAR": 2, "RESIZE_NEAREST_NEIGHBOR": 2, "REVERSE_V2": 3, "RSQRT": 2, "SLICE": 2, "SOFTMAX": 2,
    "SPACE_TO_DEPTH": 2, "SPLIT": 2, "SPLIT_V": 2, "SQRT": 2, "SQUARED_DIFFERENCE": 2, "STRIDED_SLICE": 2, "SUB": 2,
    "SUM": 2, "TANH": 2, "TILE": 3, "TOPK_V2": 2, "TRANSPOSE": 2, "TRANSPOSE_CONV": 2, "UNPACK": 2,
}  # fmt: skip
_INT16 = {
    "ADD": 3, "AVERAGE_POOL_2D": 3, "CONCATENATION": 3, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7,
    "LEAKY_RELU": 2, "LOGISTIC": 3, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4, "MUL": 4, "PAD": 3,
    "PADV2": 3, "RELU": 3, "RELU6": 3, "SOFTMAX": 3, "SUB": 5, "TANH": 3, "TRANSPOSE": 5,
}  # fmt: skip
_HYBRID = {
    "CONV_2D": (2, 5),
    "DEPTHWISE_CONV_2D": (4, 6),
    "FULLY_CONNECTED": (3, 12),
}  # a scale a tensor, a channel
_RUNTIMES = {
    "ABS": {1: "1.13", 2: "2.4", 3: "2.5", 4: "2.6"},
    "ADD": {1: "1.5", 2: "1.14", 3: "2.4", 4: "2.6", 5: "2.13"},
    "AVERAGE_POOL_2D": {1: "1.5", 2: "1.14", 3: "2.3"},
    "BATCH_MATMUL": {1: "2.3", 2: "2.3", 3: "2.4", 4: "2.5"},
    "CAST": {1: "1.5", 2: "2.7", 3: "2.8", 4: "2.9"},
    "CONCATENATION": {1: "1.5", 2: "1.14", 3: "2.3", 4: "2.14"},
    "CONV_2D": {1: "1.5", 2: "1.14", 3: "1.14", 4: "2.3", 5: "2.4", 6: "2.9", 7: "2.11", 8: "2.15"},
    "DEPTHWISE_CONV_2D": {1: "1.5", 2: "1.12", 3: "1.14", 4: "2.2", 5: "2.3", 6: "2.3", 7: "2.11"},
    "DEQUANTIZE": {1: "1.13", 2: "1.14", 3: "1.15", 4: "2.2", 5: "2.7", 6: "2.18"},
    "DIV": {1: "1.6", 2: "2.3"},
    "ELU": {1: "1.14"},
    "EQUAL": {1: "1.14", 2: "1.14", 3: "2.3"},
    "FULLY_CONNECTED": {
        1: "1.5", 2: "1.10", 3: "1.14", 4: "1.14", 5: "2.0", 6: "2.1", 7: "2.3", 8: "2.3", 9: "2.3", 10: "2.11",
        11: "2.15", 12: "2.17", 13: "2.18",
    },
    "GATHER": {1: "1.6", 2: "1.14", 3: "1.15", 4: "2.4", 5: "2.5"},
    "GELU": {1: "2.9", 2: "2.9"},
    "GREATER": {1: "1.14", 2: "1.14"},
    "GREATER_EQUAL": {1: "1.14", 2: "1.14"},
    "HARD_SWISH": {1: "1.15"},
    "L2_NORMALIZATION": {1: "1.5", 2: "1.14"},
    "LEAKY_RELU": {1: "1.13", 2: "2.3"},
    "LESS": {1: "1.14", 2: "1.14"},
    "LESS_EQUAL": {1: "1.14", 2: "1.14"},
    "LOCAL_RESPONSE_NORMALIZATION": {1: "1.5"},
    "LOGISTIC": {1: "1.14", 2: "1.14", 3: "2.3"},
    "LOG_SOFTMAX": {1: "1.14", 2: "1.14"},
    "MAXIMUM": {1: "1.14", 2: "1.14", 3: "2.3", 4: "2.3"},
    "MAX_POOL_2D": {1: "1.5", 2: "1.14", 3: "2.3"},
    "MEAN": {1: "1.6", 2: "1.14", 3: "2.4"},
    "MINIMUM": {1: "1.14", 2: "1.14", 3: "2.3", 4: "2.3"},
    "MIRROR_PAD": {1: "1.13", 2: "2.3"},
    "MUL": {1: "1.5", 2: "1.14", 3: "1.15", 4: "2.3", 5: "2.6", 6: "2.11", 7: "2.13"},
    "NOT_EQUAL": {1: "1.14", 2: "1.14", 3: "2.3"},
    "PACK": {1: "1.11", 2: "1.14", 3: "2.3"},
    "PAD": {1: "1.5", 2: "1.14", 3: "2.4", 4: "2.6", 5: "2.20"},
    "PADV2": {1: "1.9", 2: "1.14", 3: "2.4", 4: "2.6", 5: "2.20"},
    "PRELU": {1: "1.8"},
    "QUANTIZE": {1: "1.14", 2: "1.15", 3: "2.7", 4: "2.21"},
    "REDUCE_MAX": {1: "1.11", 2: "1.14", 3: "2.5"},
    "REDUCE_MIN": {1: "1.11", 2: "1.14", 3: "2.5"},
    "REDUCE_PROD": {1: "1.11", 2: "2.6"},
    "RELU": {1: "1.5", 2: "2.1", 3: "2.5"},
    "RELU6": {1: "1.5", 2: "1.14", 3: "2.5"},
    "RELU_0_TO_1": {1: "2.10"},
    "RELU_N1_TO_1": {1: "1.5"},
    "RESHAPE": {1: "1.5"},
    "RESIZE_BILINEAR": {1: "1.7", 2: "1.14", 3: "2.2", 4: "2.5"},
    "RESIZE_NEAREST_NEIGHBOR": {1: "1.13", 2: "1.14", 3: "2.3", 4: "2.4"},
    "REVERSE_V2": {1: "1.14", 2: "2.2", 3: "2.5"},
    "RSQRT": {1: "1.10", 2: "2.5"},
    "SELECT": {1: "1.14", 2: "1.14"},
    "SELECT_V2": {1: "2.2"},
    "SLICE": {1: "1.14", 2: "1.14", 3: "1.14", 4: "2.4", 5: "2.5"},
    "SOFTMAX": {1: "1.5", 2: "1.14", 3: "2.3"},
    "SPACE_TO_DEPTH": {1: "1.5", 2: "1.14"},
    "SPLIT": {1: "1.5", 2: "1.14", 3: "1.14", 4: "2.3"},
    "SQUARED_DIFFERENCE": {1: "1.13", 2: "2.5"},
    "SQUEEZE": {1: "1.6", 2: "2.5"},
    "STRIDED_SLICE": {1: "1.6", 2: "1.14", 3: "2.1", 4: "2.2", 5: "2.5"},
    "SUB": {1: "1.6", 2: "1.14", 3: "2.3", 4: "2.4", 5: "2.4"},
    "SUM": {1: "1.10", 2: "1.15"},
    "TANH": {1: "1.14", 2: "1.14", 3: "2.3"},
    "TILE": {1: "1.10", 2: "2.2", 3: "2.8"},
    "TOPK_V2": {1: "1.7", 2: "1.14"},
    "TRANSPOSE": {1: "1.6", 2: "1.14", 3: "1.15", 4: "2.3", 5: "2.4", 6: "2.12"},
    "TRANSPOSE_CONV": {1: "1.9", 2: "2.2", 3: "2.3"},
}  # fmt: skip
DENSE_BY_CHANNEL_RUNTIME = "2.10"  # before, the first scale was used for all channels of a dense layer


def needed(graph: Graph, operator: Operator) -> int:
    """The lowest version of the operator that supports its types and options."""
    first = graph.dtype(operator.inputs[0]) if operator.inputs else None
    weights = operator.inputs[1] if operator.name in _HYBRID and len(operator.inputs) > 1 else None
    if operator.name == "QUANTIZE":
        return 2 if np.dtype(np.int16) in (first, *map(graph.dtype, operator.outputs[:1])) else 1
    if operator.name == "DEQUANTIZE":
        return {np.dtype(np.int8): 2, np.dtype(np.float16): 3, np.dtype(np.int16): 3}.get(first, 1)
    if (
        operator.name == "CONV_2D"
        and weights is not None
        and graph.shape(weights)[-1:] != graph.shape(operator.inputs[0])[-1:]
    ):
        return 6  # grouped
    if first == np.int16:
        return _INT16.get(operator.name, 1)
    options = graph.subgraph.operators[operator.index].builtinOptions
    if operator.name == "FULLY_CONNECTED" and len(operator.inputs) == 2:
        return 6
    if operator.name == "FULLY_CONNECTED" and getattr(options, "keepNumDims", False):
        return 5
    if operator.name == "MUL" and first == np.int8:
        parameters = [graph.quantization(t) for t in (*operator.inputs, *operator.outputs[:1])]
        scales = [float(scale[0]) for scale, _ in (pair for pair in parameters if pair is not None)]
        if len(scales) == 3:
            return 3 if scales[0] * scales[1] >= scales[2] else 2
    if first == np.int8:
        return _INT8.get(operator.name, 1)
    if weights is not None and graph.dtype(weights) == np.int8:
        quantization = graph.quantization(weights)
        return _HYBRID[operator.name][quantization is not None and len(quantization[0]) > 1]
    return 1


def set_versions(graph: Graph) -> None:
    """Raise the version of each operator to the one that it needs."""
    for operator in list(graph.operators()):
        version = needed(graph, operator)
        if graph.version(operator) < version:
            graph.set_version(operator, version)


def first_runtime(operator: str, version: int) -> str | None:
    """The first TensorFlow Lite release with this version of the operator, such as `2.3`; None if unknown."""
    return _RUNTIMES.get(operator, {}).get(version)


def as_numbers(release: str) -> tuple[int, ...]:
    """`2.10` as `(2, 10)`, for comparison."""
    return tuple(int(part) for part in release.split("."))
