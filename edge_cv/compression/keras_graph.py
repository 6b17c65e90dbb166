"""A Keras 3 model's graph, walked in order with values of any kind in the place of its tensors.

With tf_keras tensors the walk builds the tf_keras model, with groups of channels it finds what depends on what, with
Keras tensors of other widths it builds a smaller model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

# Called with the operation (a layer, or a raw one such as the Add of `x + 3`), its name, which is unique in the model,
# and the arguments of the call with values in the place of tensors; returns the value of the operation's output.
Call = Callable[[Any, str, tuple, dict[str, Any]], Any]


def walk(model: keras.Model, inputs: Sequence[Any], call: Call) -> list[Any]:
    """The values of the model's outputs when its inputs have these values.

    Args:
        model: checked by `functional_form`. Models inside it are walked as if their layers stood in its place.
        inputs: one value for each input.
        call: computes an operation's value.
    """
    return _walk(functional_form(model), inputs, call, "")


def _walk(model: keras.Model, inputs: Sequence[Any], call: Call, prefix: str) -> list[Any]:
    import keras

    values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(values)
            operation, name = node.operation, prefix + node.operation.name
            if isinstance(operation, keras.Model):
                inner = functional_form(operation)
                outputs = _walk(inner, keras.tree.flatten(args[0] if args else kwargs), call, f"{name}.")
            else:
                outputs = [call(operation, name, args, kwargs)]
            values.update(zip(map(id, node.outputs), outputs, strict=True))
    return [values[id(tensor)] for tensor in model.outputs]


def functional_form(model: Any) -> keras.Model:
    """The model's functional form, proved to be one that can be walked.

    Raises:
        InputError: not a Keras 3 model, one without a graph, or one that uses a layer with weights twice.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(f"a model to compress must be a Keras 3 model. Received: {type(model).__name__}")
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise InputError(f"a Sequential model must be built, so that its input is known. Received: {model.name!r}")
        model = model._functional
    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(
            "a model to compress must be functional or Sequential, so that its graph is known. "
            f"Received: {model.name!r}, a subclassed model ({type(model).__name__})"
        )
    uses: dict[int, int] = {}
    for nodes in model._nodes_by_depth.values():
        for node in nodes:
            uses[id(node.operation)] = uses.get(id(node.operation), 0) + 1
    for operation in model._operations:
        if uses[id(operation)] > 1 and getattr(operation, "weights", ()):
            raise InputError(
                "a model to compress must use each layer with weights once. "
                f"Received: {model.name!r}, whose layer {operation.name!r} is shared by {uses[id(operation)]} calls"
            )
    return model


def leaf_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Each layer that `walk` meets, by the name that it has there."""
    found: dict[str, keras.Layer] = {}

    def look(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        found[name] = operation

    walk(model, [None] * len(functional_form(model).inputs), look)
    return found
