"""A Keras model as it is converted: with float32 arithmetic, and without the wrappers of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.errors import InputError
from converters.sources.keras_config import OTHER_PRECISIONS, in_float32
from converters.sources.layer_names import invalid_names, with_valid_names
from converters.sources.tf_keras_models import without_wrappers


def prepared(model: Any) -> Any:
    """The model in float32 and without training wrappers; the model itself where it is so already.

    Args:
        model: a Keras 3 or tf_keras model. It is not changed.

    Raises:
        InputError: the model is already quantized.
    """
    if not hasattr(model, "_flatten_layers"):
        return model
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        mode = getattr(layer, "quantization_mode", None)
        if mode:
            raise InputError(
                f"the model must have float weights. Received: {model.name!r}, quantized by Keras's "
                f"model.quantize({str(mode)!r}) (layer {layer.name!r}): convert the model from before that call"
            )
    if is_tf_keras(model):
        model = without_wrappers(model)
    if any(getattr(layer, "compute_dtype", None) in OTHER_PRECISIONS for layer in layers):
        model = _in_float32(model)
    return _named(model) if invalid_names(model) else model


def is_tf_keras(model: Any) -> bool:
    """Whether it is a model of tf_keras (Keras 2)."""
    return any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)


def _in_float32(model: Any) -> Any:
    """A copy of a model of mixed or another precision that computes in float32, with the same weights."""
    try:
        return _rebuilt(model, in_float32)
    except Exception as error:  # Keras raises whatever a layer of the caller's own provokes
        raise InputError(
            f"the model must compute in float32, or be rebuilt from its configuration. Received: {model.name!r} with "
            f"layers in another precision ({str(error).splitlines()[0][:150]})"
        ) from error


def _named(model: Any) -> Any:
    """A copy of a model with names that TensorFlow's graphs can hold, where it can be rebuilt."""
    try:
        return _rebuilt(model, with_valid_names)
    except Exception:  # as above: the layers get other names while they are called, and the variables keep theirs
        return model


def _rebuilt(model: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a model with another configuration and the same weights."""
    classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers(include_self=False)}
    custom = {
        name: kind for name, kind in classes.items() if kind.__module__.split(".")[0] not in ("keras", "tf_keras")
    }
    if is_tf_keras(model):
        import tf_keras

        with tf_keras.utils.custom_object_scope(custom):
            config = change({"class_name": type(model).__name__, "config": model.get_config()})
            copy = type(model).from_config(config["config"])
    else:
        import keras

        with keras.saving.custom_object_scope(custom):
            copy = keras.saving.deserialize_keras_object(
                change(keras.saving.serialize_keras_object(model)), safe_mode=False
            )
    copy.set_weights([weight.astype("float32") for weight in model.get_weights()])
    return copy
