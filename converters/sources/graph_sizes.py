"""The sizes of the tensors that a model computes, from its Keras graph or its TensorFlow graph, before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from converters.memory import Step, check_activations, values_of

_STORED = ("ReadVariableOp", "VarHandleOp")  # as large as they are in the file


def check_graph(graph: Any, name: str) -> int:
    """The values of the tensors that are in use at one time, in a graph or a function that it calls.

    Args:
        graph: a `FuncGraph`, whose shapes TensorFlow has inferred.
        name: of the model.

    Raises:
        InputError: the tensors are too large to compute.
    """
    most, seen, pending = 0, set[str](), [graph]
    while pending:
        current = pending.pop()
        operations = current.get_operations()
        most = max(most, check_activations([_step(operation) for operation in operations], repr(name)))
        called = {function for operation in operations for function in _called(operation.node_def)} - seen
        seen |= called
        functions = (current._get_function(function) for function in sorted(called))
        pending += [function.graph for function in functions if getattr(function, "graph", None) is not None]
    return most


def _step(operation: Any) -> Step:
    values = {tensor.name: _values(tensor.shape) for tensor in operation.outputs}
    if operation.type == "Const":  # a constant may be stored as one value for all
        stored = operation.node_def.attr["value"].tensor.ByteSize()
        values = {name: max(0, count - stored) for name, count in values.items()}
    elif operation.type in _STORED:
        values = dict.fromkeys(values, 0)
    return [tensor.name for tensor in operation.inputs], values


def _values(shape: Any) -> int:
    return 1 if shape.rank is None else values_of(shape.as_list())


def _called(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        if attribute.func.name:
            yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def check_model(model: Any, what: object) -> None:
    """Raise InputError if the tensors of a Keras model are too large to compute for one image.

    Args:
        model: a functional or Sequential model; the graph of another is not known.
        what: names it in the message.
    """
    check_activations([_node_step(node) for node in _nodes(model)], str(what))


def activation_values(model: Any) -> int:
    """The number of values of all tensors of a Keras model together, for one image."""
    return sum(sum(_node_step(node)[1].values()) for node in _nodes(model))


def _nodes(model: Any) -> Iterable[Any]:
    """The calls of layers and raw operations in a model and in the models inside it, in the order of execution."""
    operations = (part for layer in model._flatten_layers() for part in (layer, *getattr(layer, "operations", ())))
    return {id(node): node for operation in operations for node in operation._inbound_nodes}.values()


def _node_step(node: Any) -> Step:
    """What a node of a Keras model reads and writes; a free length counts as 1."""
    outputs = {id(tensor): values_of(tensor.shape[1:]) for tensor in _flat(node.outputs)}
    return [id(tensor) for tensor in _flat(node.input_tensors)], outputs


def _flat(tensors: Any) -> Iterator[Any]:
    """The tensors in lists, tuples and dictionaries."""
    if isinstance(tensors, list | tuple | dict):
        for part in tensors.values() if isinstance(tensors, dict) else tensors:
            yield from _flat(part)
    elif getattr(tensors, "shape", None) is not None:
        yield tensors
