"""A TFLite graph's input and output changed to one float image in and one row of classes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.errors import InputError
from converters.sources.source import InputShape
from converters.tflite.graph import Graph
from converters.tflite.trial import try_once


def output_names(graph: Graph) -> list[str]:
    """The names of the outputs: those of the file's signature, else the tensors'."""
    for signature in graph.model.signatureDefs or []:
        names = {entry.tensorIndex: (entry.name or b"").decode(errors="replace") for entry in signature.outputs or []}
        if all(names.get(tensor) for tensor in graph.outputs):
            return [names[tensor] for tensor in graph.outputs]
    return [graph.name(tensor) for tensor in graph.outputs]


def keep_output(graph: Graph, tensor: int) -> None:
    """Make a tensor the graph's only output, and remove the operators that only the other outputs need."""
    if graph.outputs == [tensor]:
        return
    graph.set_outputs([tensor])
    needed, unneeded = {tensor}, list[int]()
    for operator in reversed(list(graph.operators())):
        if needed.isdisjoint(operator.outputs):
            unneeded.append(operator.index)
        else:
            needed.update(operator.inputs)
    graph.remove_operators(unneeded)


def with_float_input(graph: Graph) -> bool:
    """Let the graph take its whole pixels as float32: the casts at an integer input, or at a float one, are removed.

    A cast of a whole pixel 0..255 to float32 gives the same number.

    Returns:
        Whether the model takes whole pixels.
    """
    source = current = graph.inputs[0]
    casts, integer = list[int](), _is_integer(graph, source)
    while len(reading := graph.readers().get(current, [])) == 1 and reading[0].name == "CAST":
        casts.append(reading[0].index)
        current = reading[0].outputs[0]
        integer = integer or _is_integer(graph, current)
    if not casts or not integer or graph.dtype(current) != np.float32 or current in graph.outputs:
        return False
    graph.tensors[source].type = graph.tensors[current].type
    for operator in graph.readers().get(current, []):
        graph.set_inputs(operator, [source if tensor == current else tensor for tensor in operator.inputs])
    graph.remove_operators(casts)
    return True


def of_one_image(graph: Graph, shape: InputShape) -> Graph:
    """The graph for a batch of one image of the given size: the runtime infers every shape anew.

    Operators that only compute shapes (SHAPE and what reads it) become constants.

    Raises:
        InputError: the graph computes with its own batch or size.
    """
    wanted = (1, *(shape.images[:2] if shape.without_channels else shape.images))
    own = graph.shape(graph.inputs[0])
    graph.tensors[graph.inputs[0]].shapeSignature = None
    if own == wanted and not any(operator.name == "SHAPE" for operator in graph.operators()):
        return graph
    if own[0] not in (1, wanted[0]):
        _free_reshapes(graph, own[0])
    content = graph.to_bytes()
    try:
        try_once(content, wanted)
        resized = _resized(content, wanted)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the model must be able to take one image, {wanted}; it computes with the sizes of its own input, {own}: "
            f"{str(error).strip().splitlines()[0][:150]}"
        ) from error
    graph = Graph(content)
    for detail in resized.get_tensor_details():
        if detail["index"] < len(graph.tensors) and graph.constant(detail["index"]) is None:
            graph.tensors[detail["index"]].shape = np.array(detail["shape"], np.int32)
            graph.tensors[detail["index"]].shapeSignature = None
    _fold_shapes(graph, resized)
    return graph


def _free_reshapes(graph: Graph, batch: int) -> None:
    """Let each RESHAPE to a constant shape of `batch` images give the shape of one."""
    for operator in graph.operators():
        sizes = graph.constant(operator.inputs[1]) if operator.name == "RESHAPE" and len(operator.inputs) > 1 else None
        if sizes is not None and sizes.size > 1 and sizes[0] == batch:
            graph.set_constant(operator.inputs[1], np.concatenate([[1], sizes[1:]]).astype(np.int32))
            graph.subgraph.operators[operator.index].builtinOptions = None
            graph.subgraph.operators[operator.index].builtinOptionsType = 0


def _resized(content: bytes, shape: tuple[int, ...]) -> Any:
    """An interpreter that has run once on an image of zeros of this shape; it keeps the values of all tensors."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resized = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,  # which hide tensors
        experimental_preserve_all_tensors=True,
    )
    detail = resized.get_input_details()[0]
    resized.resize_tensor_input(detail["index"], list(shape))
    resized.allocate_tensors()
    resized.set_tensor(detail["index"], np.zeros(shape, detail["dtype"]))
    resized.invoke()
    return resized


def _fold_shapes(graph: Graph, run: Any) -> None:
    """Replace the operators that compute shapes with the values that they had in a run."""
    folded, known = list[int](), set[int]()
    for operator in graph.operators():
        given = [tensor for tensor in operator.inputs if tensor >= 0]
        computed = [tensor for tensor in given if graph.constant(tensor) is None]
        if operator.name == "SHAPE" or (computed and known.issuperset(computed)):
            folded.append(operator.index)
            known.update(operator.outputs)
    for tensor in sorted(known):
        graph.set_constant(tensor, np.asarray(run.get_tensor(tensor)))
    graph.remove_operators(folded)


def _ordinary(graph: Graph, tensor: int) -> bool:
    """Whether one operator reads the tensor, and it is no output."""
    return len(graph.readers().get(tensor, [])) == 1 and tensor not in graph.outputs


def drop_first_reshape(graph: Graph) -> None:
    """Remove a RESHAPE of a grey input to `(1, height, width)` where a later one undoes it.

    Between the two only arithmetic with one constant number is allowed, as the normalization of pixels is.
    """
    source = graph.inputs[0]
    _, height, width, channels = graph.shape(source)
    if channels != 1 or not _ordinary(graph, source):
        return
    first = graph.readers()[source][0]
    current, chain = first.outputs[0], list[int]()
    if first.name != "RESHAPE" or graph.shape(current) != (1, height, width):
        return
    while _ordinary(graph, current):
        operator = graph.readers()[current][0]
        if operator.name == "RESHAPE":
            for tensor in chain:
                graph.tensors[tensor].shape = np.array(graph.shape(source), np.int32)
            for reader in graph.readers()[first.outputs[0]]:
                graph.set_inputs(reader, [source if t == first.outputs[0] else t for t in reader.inputs])
            graph.remove_operators([first.index])
            _drop_equal_reshape(graph, chain[-1] if chain else source)
            return
        others = [graph.constant(tensor) for tensor in operator.inputs if tensor != current]
        if operator.name not in ("MUL", "ADD", "SUB", "DIV") or any(o is None or o.size != 1 for o in others):
            return
        current = operator.outputs[0]
        chain.append(current)


def _drop_equal_reshape(graph: Graph, tensor: int) -> None:
    """Remove the RESHAPE that reads a tensor, if it does not change its shape."""
    (operator,) = graph.readers()[tensor]
    result = operator.outputs[0]
    if graph.shape(result) != graph.shape(tensor) or result in graph.outputs:
        return
    for reader in graph.readers().get(result, []):
        graph.set_inputs(reader, [tensor if t == result else t for t in reader.inputs])
    graph.remove_operators([operator.index])


def with_channels_axis(graph: Graph) -> None:
    """Let a graph of `(1, height, width)` take `(1, height, width, 1)`."""
    from ai_edge_litert import schema_py_generated as schema

    inner = graph.inputs[0]
    _, height, width = graph.shape(inner)
    outer = graph.add_tensor(graph.name(inner), "FLOAT32", (1, height, width, 1))
    graph.rename(inner, f"{graph.name(inner)}_rows")
    sizes = np.array([1, height, width], np.int32)
    constant = graph.add_tensor("rows_shape", "INT32", sizes.shape, values=sizes)
    options = schema.ReshapeOptionsT()
    options.newShape = sizes
    graph.add_operator("RESHAPE", [outer, constant], [inner], at=0, options=options)
    graph.replace_input(inner, outer)


def _is_integer(graph: Graph, tensor: int) -> bool:
    dtype = graph.dtype(tensor)
    return dtype is not None and dtype.kind in "iu" and graph.quantization(tensor) is None
