"""Keras 3 and tf_keras models, and the files that hold them, as sources of a conversion."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.memory import MAX_TENSOR_VALUES
from converters.record import read_sidecar
from converters.sources.fixed_batch import of_one_image
from converters.sources.graph_sizes import activation_values
from converters.sources.imports import imported_digest
from converters.sources.keras_files import load
from converters.sources.keras_preparation import is_tf_keras, prepared
from converters.sources.layer_names import valid_names
from converters.sources.source import (
    InputShape,
    Source,
    check_input_shape,
    check_output_shape,
    chosen_output,
    default_preprocessing,
    forward_pass,
    parse_input_size,
)
from converters.sources.tensorflow_backend import require_tensorflow_backend


def open_keras_file(
    path: Path, *, unsafe: bool = False, input_size: tuple[int, int] | None = None, output: str | None = None
) -> Source:
    """The Source of a `.keras` or `.h5` file; its sidecar's preprocessing is used when the model declares none."""
    return open_keras_model(load(path, unsafe=unsafe), _sidecar_preprocessing(path), input_size, output)


def is_keras_model(model: Any) -> bool:
    """Whether the object is a Keras 3 or tf_keras model."""
    return any(base.__module__.split(".")[0] in ("keras", "tf_keras") for base in type(model).__mro__)


_NORMALIZING = {"Rescaling": ("scale", "offset"), "Normalization": ("mean", "variance")}  # layers, by their numbers


def open_keras_model(
    model: Any,
    sidecar: Preprocessing | None = None,
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
) -> Source:
    """The Source of a Keras 3 or tf_keras model.

    Args:
        model: the model.
        sidecar: its preprocessing, where the model itself declares none.
        input_size: `(height, width)`, where the model's are free.
        output: the name of the output to convert, where there are several.

    Raises:
        InputError: the model is not one image in and one row of classes out, or its weights are not finite.
    """
    if not is_tf_keras(model):
        require_tensorflow_backend()
    preprocessing = getattr(model, "preprocessing", None) or sidecar
    model = prepared(model)
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise InputError(
            "the model must be functional or a built Sequential, so that its input is known. "
            f"Received: {model.name!r}, a {type(model).__name__} without one; export it with model.export('folder') "
            "and convert that SavedModel"
        )
    at = chosen_output([tensor.name.split(":")[0] for tensor in inputs], output_names(model), output)
    shape = check_input_shape(inputs[0].shape, input_size)
    check_output_shape(outputs[at].shape)
    structure = getattr(model, "input", None)  # a Sequential that was not called yet has none
    name = next(iter(structure)) if isinstance(structure, dict) else inputs[0].name.split(":")[0]

    def whole(images: Any) -> Any:
        import tensorflow as tf

        images = tf.reshape(images, (-1, *shape.images[:2])) if shape.without_channels else images
        with valid_names(model):
            outputs = model({name: images} if isinstance(structure, dict) else images, training=False)
        return tf.nest.flatten(outputs)[at]

    takes_integers = "int" in str(inputs[0].dtype)
    call = whole if shape.batch in (None, 1) else _of_one_image(whole, shape, model.name)
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = default_preprocessing(name, shape.images)
    return Source(
        name=model.name,
        digest=_digest(model, shape.images, at),
        input_name=name,
        input_shape=shape.images,
        preprocessing=preprocessing,
        call=call,
        batched=shape.batch is None,
        variables=tuple(getattr(v, "value", v) for v in model.variables),
        takes_integers=takes_integers,
        in_graph=takes_integers or activation_values(model) > MAX_TENSOR_VALUES,
    )


def _of_one_image(call: Callable[[Any], Any], shape: InputShape, name: str) -> Callable[[Any], Any]:
    """The call of a model of a fixed batch, for one image."""
    import tensorflow as tf

    function = tf.function(call)
    try:
        function.get_concrete_function(tf.TensorSpec((1, *shape.images), tf.float32))
    except (ValueError, TypeError):  # it reshapes to its batch
        with forward_pass(name):
            concrete = function.get_concrete_function(tf.TensorSpec((shape.batch, *shape.images), tf.float32))
        run = of_one_image(concrete, name)
        return lambda images: run(tf.cast(images, tf.float32))[0]
    return call


def single_image_model(model: Any, input_size: Any = None, output: str | None = None) -> Any:
    """A Keras 3 model as it is trained or compressed: float images of one size, a free batch, and one output.

    Args:
        model: the model; it is returned as it is where it is so already.
        input_size: as for `open_source`, where the model's are free.
        output: the name of the output to keep, where there are several.

    Raises:
        InputError: the model has several inputs, or a choice is missing or wrong.
    """
    import keras

    inputs = getattr(model, "inputs", None) or []
    if not inputs or not getattr(model, "outputs", None):
        return model  # `open_keras_model` says what it must be
    at = chosen_output([tensor.name for tensor in inputs], output_names(model), output)
    shape = check_input_shape(inputs[0].shape, parse_input_size(input_size))
    wanted = (None, *(shape.images[:2] if shape.without_channels else shape.images))
    if tuple(inputs[0].shape) != wanted or "int" in str(inputs[0].dtype):
        image = keras.Input(wanted[1:], dtype="float32", name=inputs[0].name)
        copy = keras.models.clone_model(model, input_tensors=image)
        copy.set_weights(model.get_weights())
        copy.preprocessing = getattr(model, "preprocessing", None)
        model = copy
    if len(model.outputs) == 1:
        return model
    single = keras.Model(model.inputs[0], model.outputs[at], name=model.name)
    single.preprocessing = getattr(model, "preprocessing", None)
    return single


def output_names(model: Any) -> list[str]:
    """The names of a model's outputs in the order of `model.outputs`: a dictionary's keys, else the layers' names."""
    structure = getattr(model, "output", None) if len(model.outputs) > 1 else None
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        return sorted(structure)  # the order in which a dictionary is flattened
    names = [tensor._keras_history[0].name for tensor in model.outputs]
    return names if len(set(names)) == len(names) else [f"{name}_{nth}" for nth, name in enumerate(names)]


def _sidecar_preprocessing(path: Path) -> Preprocessing | None:
    try:
        return Preprocessing.from_dict((read_sidecar(path) or {}).get("preprocessing"))
    except InputError:
        return None


def _digest(model: Any, shape: tuple[int, int, int], output: int) -> str:
    """SHA-256 of the architecture and the weights; InputError when a number of either is NaN or infinite."""
    for layer in model._flatten_layers():
        for field in _NORMALIZING.get(type(layer).__name__, ()):
            value = getattr(layer, field, None)
            if value is not None and not np.isfinite(np.asarray(value, np.float64)).all():
                raise InputError(
                    f"the numbers of layer {layer.name!r} of {model.name!r} must be finite. Received: NaN or infinity "
                    f"as its {field}"
                )
    digest = hashlib.sha256(_architecture(model) + imported_digest())
    if None in tuple(model.inputs[0].shape)[1:3] or output:  # what the architecture leaves open
        digest.update(json.dumps([shape, output]).encode())
    for weight in model.get_weights():
        if not np.isfinite(weight).all():
            raise InputError(f"the model's weights must be finite. Received: {model.name!r} with NaN or infinity")
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _architecture(model: Any) -> bytes:
    """What distinguishes the model from another with the same weights."""
    try:
        return json.dumps(model.get_config(), sort_keys=True, default=str).encode()
    except NotImplementedError:  # a custom layer without get_config: the model equals no other
        return os.urandom(32)
