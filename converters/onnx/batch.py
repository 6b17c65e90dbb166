"""A free batch size for an ONNX file of batch 1: servers run many images in one call."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.tflite.runtime import onnx_session, predict_onnx

FREE = "batch"  # the symbolic size
TRIED = 3  # images of one call, compared with single ones
TOLERANCE = 0.02  # of the largest output: other orders of additions, a few steps of int8


def with_free_batch(content: bytes, images: np.ndarray) -> bytes:
    """The file with a free batch size, checked on a batch of images.

    A graph of batch 1 holds the batch where it reshapes to a constant shape, and where it resizes to one. The first
    size of a shape becomes "whatever is left", and the sizes of a resizing become factors.

    Args:
        content: a file of batch 1.
        images: `(n, height, width, channels)`, as the model takes them.

    Raises:
        CheckFailed: the outputs for a batch are not those for single images: some operator mixes them.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    graph = model.graph
    shapes = _shapes(onnx.shape_inference.infer_shapes(model).graph)
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = FREE
    del graph.value_info[:]  # sizes of batch 1
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = shapes.get(node.output[0]) or constants[node.input[1]].tolist()
            if shape and min(shape[1:], default=1) > 0:
                node.input[1] = _added(graph, f"{node.output[0]}/shape", np.array([-1, *shape[1:]], np.int64))
        elif node.op_type == "Resize" and len(node.input) > 3 and node.input[3] in constants:
            sizes, given = constants[node.input[3]], shapes.get(node.input[0])
            if given is not None and all(given):
                factors = (sizes / np.array(given)).astype(np.float32)
                node.input[2] = _added(graph, f"{node.output[0]}/scales", factors)
                del node.input[3]
    freed = model.SerializeToString()
    _check(freed, images)
    return freed


def _shapes(graph: Any) -> dict[str, list[int]]:
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}


def _added(graph: Any, name: str, values: np.ndarray) -> str:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name


def _check(content: bytes, images: np.ndarray) -> None:
    some = images[np.arange(TRIED) % len(images)].astype(np.float32)
    try:
        single, session = predict_onnx(content, some), onnx_session(content)
        together = np.asarray(session.run(None, {session.get_inputs()[0].name: some})[0])
    except Exception as error:  # ONNX Runtime raises exceptions of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckFailed(f"the model cannot have a free batch size in ONNX; use batch 1: {lines[0][:200]}") from error
    largest = max(float(np.abs(single).max()), 1e-6)
    if together.shape != single.shape or np.abs(together - single).max() > TOLERANCE * largest:
        raise CheckFailed(
            "the model cannot have a free batch size in ONNX; use batch 1: an operator mixes the images of a batch"
        )
