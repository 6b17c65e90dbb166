"""Wrong references in .tflite files are refused where they are read; a file that ends the runtime is run elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_files

from converters import InputError
from converters.memory import MAX_TENSOR_VALUES
from converters.tflite.graph import Graph
from converters.tflite.packing import pack
from converters.tflite.trial import try_once

LARGE = (1, 60_000, 60_000, 3)


def changed(change: Any) -> bytes:
    """The tiny file after `change(model, subgraph)`."""
    model = Graph(tiny_files.tflite_content()).model
    change(model, model.subgraphs[0])
    return bytes(pack(model))


def indices(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def quantized(scales: int, zero_points: int, axis: int = 0) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    parameters = schema.QuantizationParametersT()
    parameters.scale, parameters.zeroPoint = np.ones(scales, np.float32), np.zeros(zero_points, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def elsewhere(model: Any, subgraph: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model.externalBufferGroups, model.externalBuffers = [schema.ExternalBufferGroupT()], [schema.ExternalBufferT()]
    model.externalBufferGroups[0].name = b"/etc/passwd"


FAULTS: dict[str, tuple[Any, str]] = {
    "tensor read": (lambda m, s: setattr(s.operators[0], "inputs", indices(99, 1)), "reads tensor 99 of 3"),
    "tensor written": (lambda m, s: setattr(s.operators[0], "outputs", indices(-1)), "writes tensor -1 of 3"),
    "no inputs": (lambda m, s: setattr(s.operators[0], "inputs", None), "0 inputs and 1 outputs"),
    "kind": (lambda m, s: setattr(s.operators[0], "opcodeIndex", 5), "is of kind 5"),
    "input": (lambda m, s: setattr(s, "inputs", indices(7)), "its input is tensor 7 of 3"),
    "no output": (lambda m, s: setattr(s, "outputs", None), "must have an output"),
    "buffer": (lambda m, s: setattr(s.tensors[1], "buffer", 9), "tensor 1 has buffer 9"),
    "data": (lambda m, s: setattr(s.tensors[1], "shape", indices(3)), "tensor 1 of 12 bytes has 8 bytes of data"),
    "shape": (lambda m, s: setattr(s.tensors[2], "shape", indices(1, -3)), r"has the shape \(1, -3\)"),
    "size": (lambda m, s: setattr(s.tensors[0], "shape", indices(*LARGE)), f"at most {MAX_TENSOR_VALUES:,} values"),
    "name": (lambda m, s: setattr(s.tensors[0], "name", b"\xff\xe9"), "the name of tensor 0 is not UTF-8"),
    "scales": (lambda m, s: setattr(s.tensors[0], "quantization", quantized(2, 1)), "2 scales and 1 zero points"),
    "axis": (lambda m, s: setattr(s.tensors[0], "quantization", quantized(3, 3, 9)), "3 scales for its axis 9"),
    "cycle": (lambda m, s: setattr(s.operators[0], "inputs", indices(2, 1)), "reads tensor 2 before it is computed"),
    "constant": (lambda m, s: setattr(s.operators[0], "outputs", indices(1)), "which has a value already"),
    "other files": (elsewhere, "refers to other files"),
    "no tensors": (lambda m, s: setattr(s, "tensors", []), "must have tensors and operators"),
    "two graphs": (lambda m, s: m.subgraphs.append(s), "must have one subgraph"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_reference_is_refused(fault):
    change, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as error:
        Graph(changed(change))
    assert "\n" not in str(error.value)


def test_parts_that_share_many_parts_are_refused_before_they_are_unpacked():
    """A table that 60,000 entries share, and each of its own 60,000 entries: 480 kB that would be 3.6e9 tables."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builder, count = flatbuffers.Builder(1024), 60_000

    def shared(start: Any, offset: int) -> int:
        start(builder, count)
        for _ in range(count):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    schema.VariantSubTypeStart(builder)
    variants = shared(schema.TensorStartVariantTensorsVector, schema.VariantSubTypeEnd(builder))
    schema.TensorStart(builder)
    schema.TensorAddVariantTensors(builder, variants)
    tensors = shared(schema.SubGraphStartTensorsVector, schema.TensorEnd(builder))
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    with pytest.raises(InputError, match="at most 200,000 parts"):
        Graph(bytes(builder.Output()))


def test_a_file_is_tried_in_a_process_of_its_own(tmp_path):
    content = tiny_files.tflite_content()
    try_once(content)
    try_once(content, (1, 8, 8, 3))

    def unknown(model: Any, subgraph: Any) -> None:
        model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = 5000, 127

    with pytest.raises(InputError, match=r"the TFLite runtime rejects the model: .*5000") as error:
        try_once(changed(unknown))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"memory ran out|rejects"):
        try_once(content, (1, 60_000, 60_000, 3))
