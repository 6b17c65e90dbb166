"""The graph that the configuration of a Keras model describes: distinct layers, each of which reads earlier ones.

Keras 2 looks for the order in which it can call the layers until it has found one, which a cycle never has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converters.errors import InputError

MODELS = ("Functional", "Model", "Sequential")  # whose first node may be their own


def check_graphs(config: Any) -> None:
    """Raise InputError if the layers of a model share a name, or if one reads a result that no order computes first.

    Args:
        config: of a model; the models inside it are checked too.
    """
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            layers = value.get("layers")
            if isinstance(layers, list):
                _check_layers([layer for layer in layers if isinstance(layer, dict)])
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _check_layers(layers: list[dict[str, Any]]) -> None:
    names = [_name(layer) for layer in layers]
    known = {name for name in names if name is not None}
    if len(known) < sum(name is not None for name in names):
        twice = next(name for name in names if name is not None and names.count(name) > 1)
        raise InputError(f"the layers of a model must have different names. Received: {twice[:80]!r} more than once")
    calls = {name: _calls(layer, known) for name, layer in zip(names, layers, strict=True) if name is not None}
    done = {name: int(not calls[name] or layer.get("class_name") in MODELS) for name, layer in _named(names, layers)}
    waiting = {name: list(inputs) for name, inputs in calls.items() if inputs}
    while waiting:
        before = len(waiting), sum(done.values())
        for name in list(waiting):
            while waiting[name] and all(_ready(done, reference) for reference in waiting[name][0]):
                del waiting[name][0]
                done[name] += 1
            if not waiting[name]:
                del waiting[name]
        if (len(waiting), sum(done.values())) == before:
            name = next(iter(waiting))
            raise InputError(f"the layers of a model must have an order. Received: {name[:80]!r} waits for itself")


def _name(layer: dict[str, Any]) -> str | None:
    inner = layer.get("config")
    name = layer.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) else None


def _named(names: list[str | None], layers: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, layer in zip(names, layers, strict=True):
        if name is not None:
            yield name, layer


def _calls(layer: dict[str, Any], known: set[str]) -> list[list[tuple[str, Any]]]:
    """The results that each call of a layer reads: the name of a layer, and which of its calls."""
    nodes = layer.get("inbound_nodes")
    return [list(_references(node, known)) for node in nodes] if isinstance(nodes, list) else []


def _references(node: Any, known: set[str]) -> Iterator[tuple[str, Any]]:
    pending = [node]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and value[0] in known:
                yield value[0], value[1]
            pending += value
        elif isinstance(value, dict):
            pending += value.values()


def _ready(done: dict[str, int], reference: tuple[str, Any]) -> bool:
    name, call = reference
    return isinstance(call, int) and 0 <= call < done[name]
