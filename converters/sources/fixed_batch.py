"""TensorFlow functions of a fixed batch size as functions of one image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.errors import InputError


def of_one_image(function: Any, name: str) -> Callable[[Any], list[Any]]:
    """A concrete function of a fixed batch size as a function of one image, which returns the flat outputs.

    The graph is frozen and read again with another placeholder, so that every shape is inferred anew. A Reshape to a
    constant shape of the batch becomes one of a single image.

    Args:
        function: a `ConcreteFunction` of one tensor of images.
        name: of the model, for messages.

    Raises:
        InputError: the graph computes with its batch size in another way.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    (given,) = frozen.inputs
    batch, graph = given.shape[0], frozen.graph.as_graph_def()
    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        node.attr.pop("_output_shapes", None)
        constant = nodes.get(node.input[1].split(":")[0]) if node.op == "Reshape" else None
        if constant is not None and constant.op == "Const":
            sizes = tf.make_ndarray(constant.attr["value"].tensor).copy()
            if sizes.ndim == 1 and sizes.size > 1 and sizes[0] == batch:
                sizes[0] = 1
                constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(sizes))
    nodes[given.op.name].attr["shape"].shape.dim[0].size = 1
    outputs = [tensor.name for tensor in frozen.outputs]
    try:
        return tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), []).prune(
            given.name, outputs
        )
    except ValueError as error:
        raise InputError(
            f"{name} computes with its fixed batch of {batch} images: build it with a free batch, (None, height, "
            "width, channels)"
        ) from error
