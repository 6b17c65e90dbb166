"""The program around a TFLite file on a microcontroller: C and C++ sources for TensorFlow Lite for Microcontrollers.

The file as a C array, its operators, its constants, the preprocessing of photos, and an example that uses them.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from converters.declared import declared_record, undeclared
from converters.devices.file_rules import CUSTOM, custom_name
from converters.devices.micro import c_array, memory
from converters.errors import InputError, unknown
from converters.images.preprocessing import INTERPOLATIONS, RULES
from converters.record import Record, TensorRecord
from converters.tflite.graph import Graph, Operator

# Operators with a kernel, from micro_mutable_op_resolver.h of tflite-micro, August 2026.
_KERNELS = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
    GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG
    NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
KERNELS = frozenset(_KERNELS.split())
_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
_ETHOS_U = "ethos-u"  # the custom operator that Vela writes
_C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "float32": "float"}
_FILTER_RADIUS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}
_STATIC = ("preprocess.h", "preprocess.c", "main.cc")


def program(path: Path, name: str) -> dict[str, str]:
    """The sources of a program that runs a TFLite file on a microcontroller.

    Args:
        path: the file, with its record.
        name: of the C array: letters, digits and _.

    Returns:
        The text of each source by its file name: the C array (NAME.h, NAME.cc), `model_settings.h`, `model_ops.h`,
        `preprocess.h`, `preprocess.c` and the example `main.cc`.

    Raises:
        InputError: an operator or a type has no kernel there, or the preprocessing of photos is not known.
    """
    content = path.read_bytes()
    header, source = c_array(content, name)
    folder = resources.files("converters.devices") / "tflm"
    return {
        f"{name}.h": header,
        f"{name}.cc": source,
        "model_settings.h": settings(declared_record(path), memory(content).arena_bytes, name),
        "model_ops.h": operators(Graph(content), name),
        **{file: (folder / file).read_text(encoding="utf-8") for file in _STATIC},
    }


def operators(graph: Graph, name: str) -> str:
    """The text of `model_ops.h`: a resolver of exactly the operators of a file.

    Raises:
        InputError: the runtime has no kernel for an operator.
    """
    methods = sorted({_method(graph, operator) for operator in graph.operators()})
    lines = "".join(f"  TF_LITE_ENSURE_STATUS(ops.{method}());\n" for method in methods)
    return (
        '#pragma once\n\n#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n\n'
        f"// The operators of {name}; the kernels of others are not linked.\n"
        f"using ModelOps = tflite::MicroMutableOpResolver<{len(methods)}>;\n\n"
        f"inline TfLiteStatus register_model_ops(ModelOps& ops) {{\n{lines}  return kTfLiteOk;\n}}\n"
    )


def _method(graph: Graph, operator: Operator) -> str:
    """The name of the resolver's method that adds an operator's kernel."""
    kind = custom_name(graph, operator) if operator.name == CUSTOM else operator.name
    if kind == _ETHOS_U:
        return "AddEthosU"
    if kind not in KERNELS:
        raise unknown("operator of TensorFlow Lite for Microcontrollers", kind, sorted(KERNELS))
    words = (word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return "Add" + _METHODS.get(kind, "".join(words))


def settings(record: Record, arena_bytes: int, name: str) -> str:
    """The text of `model_settings.h`: the constants of a file, for C and C++.

    Args:
        record: of the file.
        arena_bytes: the memory that it needs beside itself.
        name: of its C array.

    Raises:
        InputError: the input or output is of another type than int8, uint8, int16 and float32, or the preprocessing
            of photos is not known.
    """
    preprocessing = record.preprocessing
    if preprocessing is None:
        raise undeclared(record.name)
    rules = _numbered("PREPROCESS", RULES)
    interpolations = _numbered("PREPROCESS", INTERPOLATIONS)
    outputs = int(np.prod(record.output.shape, dtype=np.int64))
    offset = record.input.pixel_offset
    values = {
        "MODEL_DATA": name,
        "MODEL_ARENA_BYTES": arena_bytes,
        "MODEL_INPUT_HEIGHT": preprocessing.height,
        "MODEL_INPUT_WIDTH": preprocessing.width,
        "MODEL_INPUT_CHANNELS": preprocessing.channels,
        "MODEL_INPUT_COUNT": int(np.prod(preprocessing.shape)),
        **_tensor("INPUT", record.input),
        "MODEL_OUTPUT_COUNT": outputs,
        **_tensor("OUTPUT", record.output),
        **rules,
        "PREPROCESS_RULE": f"PREPROCESS_{preprocessing.rule.upper()}",
        **interpolations,
        "PREPROCESS_INTERPOLATION": f"PREPROCESS_{preprocessing.interpolation.upper()}",
        "PREPROCESS_FILTER_RADIUS": _FILTER_RADIUS[preprocessing.interpolation],
        "PREPROCESS_RESIZE_TO": preprocessing.resize_to or min(preprocessing.shape[:2]),
        "PREPROCESS_ADDS_OFFSET": int(offset is not None and record.input.dtype != "float32"),
        "PREPROCESS_PIXEL_OFFSET": f"({offset or 0})",
        "PREPROCESS_MEAN": f"{{{', '.join(map(_real, preprocessing.mean))}}}",
        "PREPROCESS_STD": f"{{{', '.join(map(_real, preprocessing.std))}}}",
    }
    defines = "".join(f"#define {key} {value}\n" for key, value in values.items())
    types = "".join(
        f"typedef {_C_TYPES[tensor.dtype]} model_{end}_t;\n"
        for end, tensor in (("input", record.input), ("output", record.output))
    )
    return (
        f"/* The constants of {name}. A tensor's real value is scale * (stored - zero point). */\n"
        f'#pragma once\n\n#include <stdint.h>\n\n#include "{name}.h"\n\n{types}\n{defines}'
    )


def _numbered(prefix: str, names: tuple[str, ...]) -> dict[str, int]:
    return {f"{prefix}_{name.upper()}": number for number, name in enumerate(names)}


def _tensor(end: str, tensor: TensorRecord) -> dict[str, object]:
    """The constants of an input or output."""
    if tensor.dtype not in _C_TYPES:
        kinds = ", ".join(_C_TYPES)
        raise InputError(f"a microcontroller's input and output must be of {kinds}. Received: {tensor.dtype}")
    limits = None if tensor.dtype == "float32" else np.iinfo(tensor.dtype)
    values: dict[str, object] = {f"MODEL_{end}_IS_FLOAT": int(limits is None)}
    if limits is not None:
        values |= {f"MODEL_{end}_MIN": f"({limits.min})", f"MODEL_{end}_MAX": limits.max}
        values |= {
            f"MODEL_{end}_SCALE": _real(1.0 if tensor.scale is None else tensor.scale),
            f"MODEL_{end}_ZERO_POINT": f"({tensor.zero_point or 0})",
        }
    return values


def _real(number: float) -> str:
    """A float32 as C reads it back, to the last bit."""
    return f"({float(np.float32(number)):.9e}f)"
