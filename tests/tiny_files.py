"""The smallest model files: the mean of a 4x4 RGB image, three outputs, made without a converter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from converters.tflite.graph import Graph, pack
from converters.tflite.metadata import OWN_NAME

RECORD: dict[str, Any] = {
    "name": "tiny",
    "scheme": "float32",
    "preprocessing": {
        **{"image_size": 4, "height": 4, "width": 4, "channels": 3, "resize_to": None, "rule": "crop_then_resize"},
        **{"interpolation": "bicubic", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    },
    "labels": ["cat", "dog", "other"],
    "macs": 48,
    "source_sha256": "0" * 64,
    "date": "2026-03-01T12:00:00+00:00",
    "versions": {"python": "3.11.2", "tensorflow": "2.21.0"},
    "parity": {
        **{"top1_agreement": 1.0, "max_abs_error": 0.0, "sqnr_db": 150.0, "images": 8},
        "worst_layers": [
            {
                **{"layer": "mean", "sqnr_db": 150.0, "operator": "MEAN", "weights_sqnr_db": None},
                **{"saturated": None, "unused": None},
            }
        ],
    },
    "format": "tflite",
    "options": {"io": "int8"},
    "input": {
        **{"name": "image", "shape": [1, 4, 4, 3], "dtype": "float32", "scale": None, "zero_point": None},
        **{"pixel_offset": None, "takes_pixels": True, "description": "pixels", "mean": [0.0], "std": [1.0]},
        "range": [0.0, 255.0],
    },
    "output": {
        **{"name": "mean", "shape": [1, 3], "dtype": "float32", "scale": None, "zero_point": None},
        **{"values": "logits", "activation": "softmax"},
    },
    "target": None,
    "operators": {"integer": 0, "total": 1},
}


def sidecar(name: str) -> dict[str, Any]:
    """The record of a file of that name, as its sidecar holds it."""
    return {"file": name, "sha256": "0" * 64, "size_bytes": 1000, **RECORD, "format": name.rpartition(".")[2]}


def tflite_content(record: bytes | None = None) -> bytes:
    """The .tflite file, with these bytes as its record."""
    from ai_edge_litert import schema_py_generated as schema

    axes = schema.BufferT()
    axes.data = np.frombuffer(np.array([1, 2], "<i4").tobytes(), np.uint8)
    subgraph, code, operator, model = schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT(), schema.ModelT()
    subgraph.tensors = [
        _tensor(schema, "image", (1, 4, 4, 3), schema.TensorType.FLOAT32, 0),
        _tensor(schema, "axes", (2,), schema.TensorType.INT32, 1),
        _tensor(schema, "mean", (1, 3), schema.TensorType.FLOAT32, 0),
    ]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    code.version = 1
    operator.inputs, operator.outputs = np.array([0, 1], np.int32), np.array([2], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = (
        schema.BuiltinOptions.ReducerOptions,
        schema.ReducerOptionsT(),
    )
    subgraph.inputs, subgraph.outputs, subgraph.operators = np.array([0], np.int32), np.array([2], np.int32), [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [subgraph]
    model.buffers = [schema.BufferT(), axes]
    if record is None:
        return bytes(pack(model))
    graph = Graph(bytes(pack(model)))
    graph.set_metadata(OWN_NAME, record)
    return graph.to_bytes()


def onnx_content(record: bytes | None = None) -> bytes:
    """The .onnx file, with these bytes, in UTF-8, as its record."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 4, 4))
    made = helper.make_tensor_value_info("mean", TensorProto.FLOAT, (1, 3))
    graph = helper.make_graph(nodes, "tiny", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if record is not None:
        onnx.helper.set_model_props(model, {OWN_NAME.decode(): record.decode(errors="replace")})
    return model.SerializeToString()


def write(path: Path, *, record: bytes | None = None, beside: bytes | None = None) -> Path:
    """A file at `path`, with a record in it or in a sidecar."""
    path.write_bytes(onnx_content(record) if path.suffix == ".onnx" else tflite_content(record))
    if beside is not None:
        path.with_suffix(".json").write_bytes(beside)
    return path


def record_bytes() -> bytes:
    return json.dumps(RECORD).encode()


def _tensor(schema: Any, name: str, shape: tuple[int, ...], kind: int, buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array(shape, np.int32), kind, buffer
    return tensor
