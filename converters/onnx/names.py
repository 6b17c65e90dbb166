"""Names and order in an ONNX file that depend on the model alone, so that equal models make equal files."""

from __future__ import annotations

import re
from typing import Any

# tf2onnx ends the names that it makes in a number: of a counter that goes on from model to model, and in the order of
# sets, which differs between processes.
_NUMBER = re.compile(r"__\d+")


def renumber(model: Any) -> None:
    """Number the names that tf2onnx made in the order of their first use, and order the constants in the same way.

    Args:
        model: an ONNX model, changed in place. The names of inputs and outputs stay.
    """
    graph = model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}

    def renamed(name: str) -> str:
        if name not in names:
            stem, colon, port = name.partition(":")
            numbered = f"{_NUMBER.sub('', stem)}__{len(names)}{colon}{port}"
            names[name] = numbered if _NUMBER.search(stem) else name
        return names[name]

    for node in graph.node:
        node.input[:] = [renamed(name) if name else name for name in node.input]
        node.output[:] = [renamed(name) if name else name for name in node.output]
        node.name = _NUMBER.sub("", node.name)
    _make_unique(graph.node)
    for value in (*graph.initializer, *graph.value_info):
        value.name = renamed(value.name)
    first_use = {name: place for place, name in enumerate(names.values())}
    constants = sorted(graph.initializer, key=lambda constant: first_use[constant.name])
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _make_unique(nodes: Any) -> None:
    """End a name that several nodes have in a number, counted from 1."""
    seen: dict[str, int] = {}
    for node in nodes:
        count = seen[node.name] = seen.get(node.name, -1) + 1
        if count:
            node.name += f"__{count}"
