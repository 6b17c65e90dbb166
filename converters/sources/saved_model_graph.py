"""The graph of a SavedModel's signature: whether it answers at random, and its arithmetic in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError

TRIES = 12  # a random flip leaves an image as it is half of the time


def refuse_quantized(function: Any, path: Path) -> None:
    """Raise InputError if a signature has integer weights, as after Keras's `model.quantize`."""
    for variable in function.variables:
        if variable.dtype.is_integer and variable.dtype.size == 1 and variable.shape.rank > 1:
            raise InputError(
                f"the model must have float weights. Received: {path}, whose weights are {variable.dtype.name}, as "
                "after Keras's model.quantize('int8'): convert the model from before that call"
            )


def refuse_random(function: Any, call: Callable[[Any], Any], shape: tuple[int, ...], path: Path) -> None:
    """Raise InputError if a signature gives different outputs for the same photo.

    Args:
        function: the signature.
        call: computes outputs of images.
        shape: of an image, `(height, width, channels)`.
        path: the SavedModel.
    """
    if not any(_is_random(node.op) for node in _nodes(function.graph.as_graph_def())):
        return
    photo = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype(np.float32)
    first = np.asarray(call(photo))
    for _ in range(TRIES):
        if not np.allclose(np.asarray(call(photo)), first, rtol=1e-4, atol=1e-6 * np.abs(first).max()):
            raise InputError(
                f"{path} answers at random: the same photo gives other outputs each time, so augmentation or dropout "
                "is still on in it; save the model itself, model.save('x.keras'), and convert that: its random layers "
                "are passed over"
            )


def _is_random(operation: str) -> bool:
    return "Random" in operation or operation.startswith(("Rng", "StatefulUniform", "StatefulStandardNormal"))


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def in_float32(function: Any) -> Any:
    """A signature that computes in float32 where it computed in another precision."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if not any(_types(node) & _other_precisions() for node in _nodes(function.graph.as_graph_def())):
        return function
    frozen = convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def()
    for node in _nodes(graph):
        _to_float32(node)
    (given,) = frozen.inputs
    run = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), []).prune(
        given.name, [tensor.name for tensor in frozen.outputs]
    )
    order = sorted(function.structured_outputs)
    return lambda **images: dict(zip(order, run(next(iter(images.values()))), strict=True))


def _other_precisions() -> set[int]:
    import tensorflow as tf

    return {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum, tf.float64.as_datatype_enum}


def _types(node: Any) -> set[int]:
    return {number for value in node.attr.values() for number in (value.type, value.tensor.dtype, *value.list.type)}


def _to_float32(node: Any) -> None:
    import tensorflow as tf

    others, single = _other_precisions(), tf.float32.as_datatype_enum
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "type" and value.type in others:
            value.type = single
        elif kind == "tensor" and value.tensor.dtype in others:
            value.tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(value.tensor).astype(np.float32)))
        elif kind == "list":
            value.list.type[:] = [single if number in others else number for number in value.list.type]
    node.attr.pop("_output_shapes", None)
