"""Operators that keep a state from one image to the next."""

from __future__ import annotations

from converters.errors import InputError
from converters.tflite.graph import Graph, Operator

_WRITING = frozenset({"ASSIGN_VARIABLE"})  # of resource variables; a variable that is only read is a constant


def stateful_operators(graph: Graph) -> list[Operator]:
    """The operators that write a state: a fused LSTM's variable tensors, or a resource variable."""
    return [
        operator
        for operator in graph.operators()
        if operator.name in _WRITING or any(graph.tensors[t].isVariable for t in operator.inputs if t >= 0)
    ]


def require_stateless(graph: Graph, path: object) -> None:
    """Check that a file gives one answer for an image, whichever came before.

    Raises:
        InputError: an operator keeps a state; the message names it.
    """
    for operator in stateful_operators(graph)[:1]:
        named = (*operator.outputs, *(tensor for tensor in operator.inputs if tensor >= 0))
        raise InputError(
            f"a TFLite file must give one answer for an image, whichever came before. Received: {path} with "
            f"{operator.name}, which keeps a state ({graph.name(named[0])}): build a recurrent layer with unroll=True, "
            "or take the variable out of the model, and convert it again"
        )
