"""Converts Keras 3 models to tf_keras (Keras 2), which tensorflow-model-optimization requires, and back.

`tf_keras_layers` expresses each operation in the simplest equivalent layers. The conversion ends with a comparison of
both models on random pixels, because some names have another meaning in the other library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import import_tensorflow
from edge_cv.compression.keras_graph import check_called_once, clone, functional_form, leaf_layers, walk

if TYPE_CHECKING:
    import keras
    import tf_keras

    from edge_cv.compression.tf_keras_layers import Wrap

MAX_RELATIVE_ERROR = 1e-4  # of the outputs, relative to the largest one
ROUNDING_FACTOR = 10.0  # allowed error relative to the model's sensitivity to the last bit of its weights
WORST_RELATIVE_ERROR = 1e-2  # upper bound of the allowed error
CHECKED_IMAGES = 2
VARIABLE_SIZE = 96  # pixels of the images that check a model of variable input size


@dataclass(frozen=True, eq=False)
class TfKerasTwin:
    """A Keras 3 model and the equivalent tf_keras model.

    Attributes:
        source: the Keras 3 model.
        model: the tf_keras model.
        variables: the tf_keras variables of each layer of the source with weights, by the layer's name in `walk`, in
            the order of the layer's own weights.
    """

    source: keras.Model
    model: tf_keras.Model
    variables: dict[str, tuple[Any, ...]] = field(repr=False)

    def to_keras(self) -> keras.Model:
        """Create a Keras 3 model with the source's architecture and the current weights of the tf_keras model."""
        model = clone(self.source)
        layers = leaf_layers(model)
        for name, variables in self.variables.items():
            layer = layers[name]
            layer.set_weights([v.numpy().reshape(w.shape) for v, w in zip(variables, layer.weights, strict=True)])
        return model


def to_tf_keras(model: keras.Model, *, wrap: Wrap = lambda layer, name: layer, check: bool = True) -> TfKerasTwin:
    """Convert a Keras 3 model to tf_keras.

    Args:
        model: functional or built Sequential, with one input and one output. It may contain models and raw operations.
        wrap: replaces layers of the tf_keras model, for example by wrappers of tensorflow-model-optimization.
        check: compare the outputs of both models on random pixels. Set it to False if `wrap` changes the outputs.

    Returns:
        Both models and the correspondence of their weights.

    Raises:
        InputError: if the model cannot be converted; the message names the layer or operation.
    """
    import_tensorflow()
    import tf_keras

    from edge_cv.compression.tf_keras_layers import TfKerasBuilder, tf_keras_name

    form = functional_form(model)
    if len(form.inputs) != 1 or len(form.outputs) != 1:
        raise InputError(
            "a model to compress must have one input and one output. "
            f"Received: {len(form.inputs)} inputs and {len(form.outputs)} outputs"
        )
    check_called_once(model)
    builder = TfKerasBuilder(wrap)
    (tensor,) = form.inputs
    images = tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tf_keras_name(tensor.name))
    (outputs,) = walk(model, [images], builder)
    twin = TfKerasTwin(model, tf_keras.Model(images, outputs, name=tf_keras_name(model.name)), builder.variables)
    if check:
        _check_equal(twin)
    return twin


def _check_equal(twin: TfKerasTwin) -> None:
    shape = [size or VARIABLE_SIZE for size in twin.model.inputs[0].shape[1:]]
    pixels = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *shape)).astype(np.float32)
    expected = np.asarray(twin.source(pixels, training=False))
    outputs = np.asarray(twin.model(pixels, training=False))
    error = _relative_error(outputs, expected)
    allowed = MAX_RELATIVE_ERROR
    if not error <= allowed:
        sensitivity = _relative_error(_outputs_of_neighbour(twin.source, pixels), expected)
        allowed = min(max(allowed, ROUNDING_FACTOR * sensitivity), WORST_RELATIVE_ERROR)
    if not error <= allowed:
        raise InputError(
            f"the tf_keras model made of {twin.source.name!r} must compute the same outputs, within {allowed:.2g} of "
            f"the largest output on random pixels. Received: an error of {error:.2g}"
        )


def _relative_error(outputs: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(outputs - expected).max() / max(np.abs(expected).max(), 1e-30))


def _outputs_of_neighbour(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The outputs of a model whose weights are each one float32 step higher or lower.

    Batch normalization over few images may divide by almost 0 and so amplify the rounding of earlier layers. Two
    libraries then cannot agree to more digits than the model agrees with its neighbour.
    """
    rng = np.random.default_rng(0)
    neighbour = clone(model)
    for variable in neighbour.weights:
        value = np.asarray(variable)
        if value.dtype == np.float32:
            variable.assign(np.nextafter(value, value + rng.choice([-np.inf, np.inf], value.shape).astype(np.float32)))
    return np.asarray(neighbour(pixels, training=False))
