"""Export to ONNX: from the TFLite file through tf2onnx, batch 1, NHWC input as the model takes it.

In the TFLite file batch normalization is folded already: the graph is smaller and faster in ONNX Runtime than one
exported from Keras. An int8 file becomes QDQ: a pair of QuantizeLinear and DequantizeLinear at each tensor, with the
file's integers, scales and zero points, which runtimes fuse into their integer kernels.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.files import temporary_folder
from converters.native_logs import import_tensorflow, log_level, suppress_native_logs
from converters.onnx.names import renumber
from converters.onnx.operators import register_operators, separate_activations
from converters.onnx.quantization import read_integers, unshare_constants
from converters.tflite.graph import Graph
from converters.tflite.metadata import OWN_NAME

MIN_OPSET = 13
CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"  # a variable of tf2onnx


def max_opset() -> int:
    """The newest operator set that tf2onnx writes; ONNX Runtime reads newer ones too."""
    import_tensorflow()  # tf2onnx would import it with its log lines
    from tf2onnx.constants import OPSET_TO_IR_VERSION

    return max(OPSET_TO_IR_VERSION)


def from_tflite(content: bytes, opset: int) -> bytes:
    """The ONNX file of a float32 or int8 TFLite model whose input and output are float32, checked by ONNX's checker."""
    import_tensorflow()
    import onnx
    import tf2onnx

    register_operators()
    warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")  # tf2onnx uses it

    with temporary_folder() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(_prepared(content))

        def convert() -> Any:
            return tf2onnx.convert.from_tflite(str(file), opset=opset)[0]

        try:
            with suppress_native_logs(), log_level("tf2onnx", logging.CRITICAL):
                try:
                    with _without_copies():
                        model = convert()
                except Exception:  # of an optimization: with the copies it is skipped
                    model = convert()
                read_integers(model.graph)
                unshare_constants(model.graph)
                renumber(model)
                onnx.checker.check_model(model)
        except Exception as error:  # tf2onnx raises exceptions of many kinds
            raise CheckFailed(
                f"tf2onnx cannot express the model in ONNX opset {opset}: {_reason(error, content)}"
            ) from error
    return model.SerializeToString()


def _reason(error: Exception, content: bytes) -> str:
    """The first line of an error of tf2onnx; where it lacks an operator, the operator and its layers."""
    lacking = re.search(r"No Op registered for (?:TFL_)?(\w+)", str(error))
    if lacking is None:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    graph = Graph(content)
    layers = [graph.name(operator.outputs[0]) for operator in graph.operators() if operator.name == lacking[1]]
    where = f" (layer {', '.join(map(repr, layers[:3]))})" if layers else ""
    return f"it has no form of {lacking[1]}{where}; replace it in the model"


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Keep tf2onnx from copying the graph, weights included, before each of its optimizations: half of its time.

    It returns to the copy when an optimization raises an exception; without one, the conversion fails.
    """
    before = os.environ.get(CATCH_ERRORS)
    os.environ[CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CATCH_ERRORS, None)
        else:
            os.environ[CATCH_ERRORS] = before


def _prepared(content: bytes) -> bytes:
    """The model as tf2onnx converts it rightly."""
    graph = Graph(content)
    for code in graph.model.operatorCodes:  # tf2onnx reads the old field, which TensorFlow leaves 0 at times
        code.deprecatedBuiltinCode = min(max(code.builtinCode, code.deprecatedBuiltinCode), 127)
    separate_activations(graph)
    _flatten_dense_layers(graph)
    return graph.to_bytes()


def _flatten_dense_layers(graph: Graph) -> None:
    """Give all dense layers 2-D inputs and outputs: tf2onnx loses the bias of others."""
    from ai_edge_litert import schema_py_generated as schema

    def reshape(tensor: int, to: int, at: int) -> None:
        shape = np.array(graph.shape(to), np.int32)
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        sizes = graph.add_tensor(f"{graph.name(to)}/shape", "INT32", shape.shape, values=shape)
        graph.add_operator("RESHAPE", [tensor, sizes], [to], at=at, options=options)

    for operator in reversed(list(graph.operators())):
        if operator.name != "FULLY_CONNECTED":
            continue
        source, result = operator.inputs[0], operator.outputs[0]
        outputs, features = graph.shape(operator.inputs[1])
        rows = int(np.prod(graph.shape(source))) // features
        raw = graph.subgraph.operators[operator.index]
        if len(graph.shape(result)) != 2:
            flat = graph.add_tensor_like(result, f"{graph.name(result)}/flat", (rows, outputs))
            graph.set_outputs_of(operator, [flat])
            reshape(flat, result, operator.index + 1)
        if len(graph.shape(source)) != 2:
            flat = graph.add_tensor_like(source, f"{graph.name(source)}/flat", (rows, features))
            graph.set_inputs(operator, [flat, *operator.inputs[1:]])
            reshape(source, flat, operator.index)
        raw.builtinOptions.keepNumDims = False


def embed_record(content: bytes, record: dict[str, Any]) -> bytes:
    """The ONNX file with the record among its metadata properties."""
    import onnx

    model = onnx.load_model_from_string(content)
    entry = model.metadata_props.add()
    entry.key, entry.value = OWN_NAME.decode(), json.dumps(record, separators=(",", ":"), allow_nan=False)
    return model.SerializeToString()
