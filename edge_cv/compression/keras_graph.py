"""Walks the graph of a Keras 3 model with arbitrary values in the place of its tensors.

With tensors the walk computes the model; with tf_keras tensors it builds a tf_keras model; with channel indices it
finds dependent channels; with Keras tensors of fewer channels it builds a smaller model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

# Called with an operation (a layer, or a raw one such as the Add of `x + 3`), its name, which no other operation has,
# and the arguments of its call with values in the place of tensors. Returns the value of the operation's output.
Call = Callable[[Any, str, tuple, dict[str, Any]], Any]


def walk(model: keras.Model, inputs: Sequence[Any], call: Call) -> list[Any]:
    """Evaluate a model's graph in topological order.

    Args:
        model: functional or built Sequential. The layers of models inside it are visited as its own.
        inputs: one value per input.
        call: computes the value of an operation.

    Returns:
        One value per output.

    Raises:
        InputError: see `functional_form`.
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
    """The functional form of a model, which `walk` can visit.

    Raises:
        InputError: if the model is not a Keras 3 model, or has no graph.
    """
    import keras

    if not hasattr(model, "layers"):
        raise InputError(f"a model to compress must be a Keras 3 model. Received: {type(model).__name__}")
    if not isinstance(model, keras.Model):
        raise InputError(
            "a model to compress must be one that Keras 3 can rebuild. Received: "
            f"{getattr(model, 'name', type(model).__name__)!r}, a model of Keras 2 with layers, functions or training "
            "wrappers that Keras 3 does not have; convert it as it is, or rebuild it in Keras 3"
        )
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise InputError(f"a Sequential model must be built, so that its input is known. Received: {model.name!r}")
        model = model._functional
    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(
            "a model to compress must be functional or Sequential, so that its graph is known. "
            f"Received: {model.name!r}, a subclassed model ({type(model).__name__})"
        )
    return model


def check_called_once(model: keras.Model) -> None:
    """Raise InputError if a model calls a layer with weights more than once."""
    calls: dict[int, int] = {}

    def count(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        calls[id(operation)] = calls.get(id(operation), 0) + 1
        if calls[id(operation)] > 1 and getattr(operation, "weights", None):
            raise InputError(
                "a model whose channels are removed, or that tensorflow-model-optimization compresses, must call each "
                f"layer with weights once. Received: {model.name!r}, whose layer {name!r} is shared by several calls"
            )

    walk(model, [None] * len(functional_form(model).inputs), count)


def check_float(model: keras.Model) -> None:
    """Raise InputError if the weights of a model are already quantized."""
    for name, layer in leaf_layers(model).items():
        if getattr(layer, "quantization_mode", None) or "quant" in type(layer).__name__.lower():
            raise InputError(
                "a model to compress must have float weights. "
                f"Received: {model.name!r}, whose layer {name!r} is already quantized"
            )


def clone(model: keras.Model) -> keras.Model:
    """Copy a Keras 3 model, its weights and its preprocessing."""
    import keras

    compiled, model.compiled = model.compiled, False  # a custom loss cannot be cloned and is not needed
    try:
        copy = keras.models.clone_model(model)
    finally:
        model.compiled = compiled
    copy.set_weights(model.get_weights())
    if hasattr(model, "preprocessing"):
        copy.preprocessing = model.preprocessing
    return copy


def inner_layers(model: Any) -> Iterator[Any]:
    """The layers of a Keras 3 or tf_keras model, including those inside models and wrappers."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from inner_layers(layer)
        else:
            yield getattr(layer, "layer", layer)


def is_augmentation(operation: Any) -> bool:
    """Whether a layer changes images at random in training only, such as RandomFlip: the identity afterwards."""
    from keras import layers

    kind = type(operation).__name__
    return (
        isinstance(operation, layers.Layer)
        and type(operation).__module__.startswith("keras.")
        and (kind in ("AugMix", "CutMix", "MixUp", "RandAugment") or kind.startswith("Random"))
        and kind not in ("RandomCrop", "RandomHeight", "RandomWidth")  # which crop or resize afterwards too
    )


def leaf_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Every layer and operation that `walk` visits, by the name that it has there."""
    layers: dict[str, keras.Layer] = {}

    def add(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        layers[name] = operation

    walk(model, [None] * len(functional_form(model).inputs), add)
    return layers
