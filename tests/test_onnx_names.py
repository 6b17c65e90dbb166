"""Equal models make equal ONNX files, whatever numbers tf2onnx gave to its names."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.onnx.names import renumber


def model(first: int, second: int, *, swapped: bool = False) -> onnx.ModelProto:
    """y = (x + 1) * 2 with two numbered constants, in either order."""
    one, two, between = f"const__{first}", f"new_shape__{second}_min", f"sum__{first + second}"
    nodes = [
        helper.make_node("Add", ["x", one], [f"{between}:0"], name=f"add__{second}"),
        helper.make_node("Mul", [f"{between}:0", two], ["y"], name=f"add__{first}"),
    ]
    constants = [numpy_helper.from_array(np.float32([v]), name) for v, name in ((1, one), (2, two))]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], constants[:: -1 if swapped else 1])
    return helper.make_model(graph)


def test_equal_models_become_equal_files():
    one, other = model(3, 7), model(70, 31, swapped=True)
    for made in (one, other):
        renumber(made)
        onnx.checker.check_model(made)
    assert one.SerializeToString() == other.SerializeToString()


def test_names_stay_unique_and_those_of_inputs_and_outputs_stay():
    made = model(3, 7)
    renumber(made)
    names = [name for node in made.graph.node for name in (*node.input, *node.output)]
    assert len(set(names)) == 5
    assert (names[0], names[-1]) == ("x", "y")
    assert len({node.name for node in made.graph.node}) == 2
    from onnx.reference import ReferenceEvaluator

    assert ReferenceEvaluator(made).run(None, {"x": np.float32([5])})[0] == [12]


def test_a_second_conversion_in_a_process_makes_the_same_bytes(small_files):
    from converters.onnx.export import from_tflite

    content = small_files["float32"].read_bytes()
    assert from_tflite(content, 17) == from_tflite(content, 17)
