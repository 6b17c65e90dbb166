"""The elementary operations that a device computes for an operation of a Keras model.

A converted file computes swish as a sigmoid and a product, and rounds the result of each. The walk over these
operations therefore meets every value that the file rounds. Hard-swish is one operation of the file.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

from edge_cv.compression.keras_graph import Call

COMPOUND = {
    "silu": "silu",
    "swish": "silu",
    "hard_sigmoid": "hard_sigmoid",
    "hardsigmoid": "hard_sigmoid",
}


class ElementaryCalls:
    """Called by `walk`, it calls `call` with each elementary operation and a name of its own.

    The second call of a shared layer has the name `layer#2`.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._count: dict[str, int] = {}

    def __call__(self, operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        self._count[name] = self._count.get(name, 0) + 1
        unique = name if self._count[name] == 1 else f"{name}#{self._count[name]}"
        kind = _compound(operation)
        if kind is None:
            return self._call(operation, unique, args, kwargs)
        (x,) = keras.tree.flatten((args, kwargs))[:1]
        return getattr(self, f"_{kind}")(unique, x)

    def _silu(self, name: str, x: Any) -> Any:
        gate = self._call(_operation("sigmoid"), f"{name}.sigmoid", (x,), {})
        return self._call(_operation("multiply"), name, ([x, gate],), {})

    def _hard_sigmoid(self, name: str, x: Any) -> Any:
        """relu6(x + 3) / 6."""
        x = self._call(_operation("shift"), f"{name}.shift", (x,), {})
        x = self._call(_operation("relu6"), f"{name}.relu6", (x,), {})
        return self._call(_operation("sixth"), name, (x,), {})


def _compound(operation: Any) -> str | None:
    kind = type(operation).__name__.lower()
    if kind == "activation":
        kind = getattr(operation.activation, "__name__", "")
    return COMPOUND.get(kind)


@functools.cache
def _operation(kind: str) -> keras.layers.Layer:
    return {
        "sigmoid": lambda: keras.layers.Activation("sigmoid"),
        "multiply": keras.layers.Multiply,
        "shift": lambda: keras.layers.Rescaling(1.0, offset=3.0),
        "relu6": lambda: keras.layers.ReLU(6.0),
        "sixth": lambda: keras.layers.Rescaling(1 / 6),
    }[kind]()
