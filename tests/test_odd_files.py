"""Model files that no figure can be measured of: with a state between images, of a free size, with variables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.declared import declared_record
from converters.errors import InputError
from converters.tflite.graph import Graph, pack


@pytest.fixture(scope="module")
def stateful(small_files, tmp_path_factory):
    """The small float file, whose dense layer's bias is a variable."""
    graph = Graph(small_files["float32"].read_bytes())
    dense = next(operator for operator in graph.operators() if operator.name == "FULLY_CONNECTED")
    graph.tensors[dense.inputs[2]].isVariable = True
    graph.tensors[dense.inputs[2]].buffer = 0
    for entry in [entry.name for entry in graph.model.metadata]:
        graph.remove_metadata(entry)
    path = tmp_path_factory.mktemp("stateful") / "m.tflite"
    path.write_bytes(graph.to_bytes())
    return path


@pytest.mark.parametrize("command", ["evaluate", "debug", "conform", "web"])
def test_a_file_that_keeps_a_state_is_refused_by_what_runs_it_on_photos(
    edge_cv, stateful, photos, tmp_path: Path, command
):
    files = [stateful, stateful] if command == "debug" else [stateful]
    more = ["--out", tmp_path / "page"] if command == "web" else ["--data", photos]
    code, out, err = edge_cv(command, *files, *more, "--resize", "stretch", "--mean", 0, "--std", 1)
    assert (code, out) == (2, "")
    assert "whichever came before" in err
    assert "FULLY_CONNECTED, which keeps a state" in err


def test_check_finds_the_operators_that_keep_a_state(edge_cv, stateful):
    code, out, _ = edge_cv("check", stateful, "--target", "cpu")
    assert code == 0
    assert "FULLY_CONNECTED with a state" in " ".join(out.split())


@pytest.fixture(scope="module")
def any_size(small_files, tmp_path_factory):
    """The small float file, whose input declares a free height and width."""
    graph = Graph(small_files["float32"].read_bytes())
    graph.tensors[graph.inputs[0]].shapeSignature = np.array([-1, -1, -1, 3], np.int32)
    for entry in [entry.name for entry in graph.model.metadata]:
        graph.remove_metadata(entry)
    path = tmp_path_factory.mktemp("free") / "m.tflite"
    path.write_bytes(graph.to_bytes())
    return path


def mean_onnx(path: Path, dtype: int, shape: list) -> Path:
    """The mean of each channel of images with channels first, three outputs."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["floats"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    ends = helper.make_tensor_value_info("image", dtype, shape), helper.make_tensor_value_info("logits", 1, [1, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "mean", [ends[0]], [ends[1]]), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_an_image_of_a_free_size_is_refused_and_not_run_on_one_pixel(edge_cv, any_size, photos, tmp_path):
    import onnx

    file = mean_onnx(tmp_path / "m.onnx", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    for model, sizes in ((any_size, "free, free, free, 3"), (file, "free, 3, free, free")):
        for arguments in (("evaluate", model, "--data", photos, "--mean", 0, "--std", 1), ("benchmark", model)):
            code, out, err = edge_cv(*arguments)
            assert (code, out) == (2, "")
            assert f"must have one size. Received: ({sizes}); " in err


def test_the_tool_that_the_message_names_sets_the_size(tmp_path):
    import onnx
    from onnxruntime.tools import make_dynamic_shape_fixed

    file = mean_onnx(tmp_path / "m.onnx", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    with pytest.raises(InputError) as refused:
        declared_record(file)
    program, _, arguments = str(refused.value).partition(" --input_name ")
    assert program.endswith(f"python -m {make_dynamic_shape_fixed.__name__}")
    assert arguments == "image --input_shape 1,3,224,224 m.onnx fixed.onnx"


def test_pixels_are_the_input_of_an_onnx_file_of_uint8(tmp_path):
    import onnx

    record = declared_record(mean_onnx(tmp_path / "m.onnx", onnx.TensorProto.UINT8, [1, 3, 8, 8]))
    assert record.input.pixel_offset == 0
    assert record.preprocessing is not None
    assert record.preprocessing.takes_pixels


def test_a_file_whose_weights_are_variables_says_how_to_convert_it(small_files, tmp_path):
    graph = Graph(small_files["float32"].read_bytes())
    from ai_edge_litert import schema_py_generated as schema

    code = graph.model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.VAR_HANDLE, 127
    with pytest.raises(InputError, match=r"weights as constants.*VAR_HANDLE.*model\.export"):
        Graph(pack(graph.model))


def test_a_warning_where_the_photos_have_other_classes_than_a_file_without_names(edge_cv, photos, tmp_path, caplog):
    import onnx

    file = mean_onnx(tmp_path / "m.onnx", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    code, _, _ = edge_cv("evaluate", file, "--data", photos, "--mean", 0, "--std", 1, "--workers", 1)
    assert code == 0
    assert "has 3 outputs without class names: the 2 classes of the photos" in caplog.text
