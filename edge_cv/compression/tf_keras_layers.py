"""Expresses the layers and operations of a Keras 3 model in tf_keras layers. Importing this loads TensorFlow.

Each operation becomes the simplest layers that compute the same: activations are separate layers, swish is a sigmoid
and a product, a separable convolution is its two convolutions. So the code that wraps, prunes or quantizes layers
handles few kinds, and every value that a device would compute is the output of a layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from converters.errors import InputError
from edge_cv.compression.keras_graph import is_augmentation

# Called with each tf_keras layer, built and with its weights, and its name; returns the layer to use instead.
Wrap = Callable[[Any, str], Any]

# Layers with the same meaning in both libraries. Options that only one library has are omitted; the comparison of the
# two models detects an option whose value differs from the other library's behaviour.
# fmt: off
SAME = frozenset(
    [
        "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Conv2DTranspose",
        "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GaussianNoise",
        "GlobalAveragePooling2D", "GlobalMaxPooling2D", "LayerNormalization", "MaxPooling2D", "Maximum", "Minimum",
        "Multiply", "PReLU", "Permute", "ReLU", "Rescaling", "Reshape", "Softmax", "SpatialDropout2D", "Subtract",
        "UpSampling2D", "ZeroPadding2D",
    ]
)
# fmt: on
ACTIVATIONS = ("elu", "exponential", "gelu", "mish", "selu", "sigmoid", "softmax", "softplus", "softsign", "tanh")
OMITTED = ("activation", "dtype", "name", "seed")  # besides initializers, regularizers and constraints

# Raw operations, by the lower-case name of their class.
ELEMENTWISE = {kind: kind for kind in ("exp", "log", "negative", "rsqrt", "sqrt", "square")} | {"absolute": "abs"}
ACTIVATION_OPERATIONS = {"hardsigmoid": "hard_sigmoid", "hardsilu": "hard_silu", "leakyrelu": "leaky_relu"} | {
    kind: kind for kind in ("elu", "gelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "tanh")
}
MERGING = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}
ARITHMETIC = frozenset(MERGING) | {"divide", "truedivide"}
RAW = frozenset(ELEMENTWISE) | frozenset(ACTIVATION_OPERATIONS) | ARITHMETIC | {"mean", "reshape", "concatenate"}


def tf_keras_name(name: str) -> str:
    """A name that is valid in TensorFlow: a variable scope may not start with an underscore."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return cleaned if cleaned[:1].isalnum() else f"n{cleaned}"


class TfKerasBuilder:
    """Builds the tf_keras layers when `walk` calls it for each operation of a Keras 3 model.

    Attributes:
        variables: the tf_keras variables of each source layer, see `TfKerasTwin`.
    """

    def __init__(self, wrap: Wrap) -> None:
        self.variables: dict[str, tuple[Any, ...]] = {}
        self._wrap = wrap
        self._used: set[str] = set()
        self._special = {
            "Activation": self._activation,
            "Identity": lambda layer, name, tensors: tensors[0],
            "LayerScale": self._layer_scale,
            "LeakyReLU": self._leaky_relu,
            "Normalization": self._normalization,
            "SeparableConv2D": self._separable_conv,
            "StochasticDepth": self._stochastic_depth,
        }

    def __call__(self, operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        tensors = [value for value in keras.tree.flatten((args, kwargs)) if _is_tensor(value)]
        kind = type(operation).__name__
        if isinstance(operation, keras.layers.Layer):
            if kind in self._special:
                return self._special[kind](operation, name, tensors)
            if kind in SAME:
                return self._same(operation, name, tensors)
            if is_augmentation(operation):
                return tensors[0]
        elif kind.lower() in RAW:
            return self._raw(operation, name, args, tensors)
        what = "layer" if isinstance(operation, keras.layers.Layer) else "operation"
        raise InputError(
            f"a model to compress must consist of layers that tf_keras supports. Received: {what} {name!r} of kind "
            f"{kind}"
        )

    def _apply(self, kind: str, name: str, tensors: list[Any], weights: Sequence[Any] = (), **config: Any) -> Any:
        """Create, build and call one tf_keras layer, wrapped. Its variables are recorded under `name`."""
        unique, count = tf_keras_name(name), 1
        while unique in self._used:
            count += 1
            unique = f"{tf_keras_name(name)}_{count}"
        self._used.add(unique)
        layer = getattr(tf_keras.layers, kind)(name=unique, **config)
        inputs: Any = tensors if len(tensors) > 1 else tensors[0]
        if len(weights):
            layer.build(inputs.shape)
            for value, variable in zip(weights, layer.weights, strict=True):
                variable.assign(tf.reshape(value, variable.shape))  # not through NumPy: layers can be large
            self.variables[name] = self.variables.get(name, ()) + tuple(layer.weights)
        return self._wrap(layer, unique)(inputs)

    def _same(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        """The layer of the same name, followed by its activation as a layer."""
        kind = type(layer).__name__
        options = inspect.signature(getattr(tf_keras.layers, kind).__init__).parameters
        config = {
            key: value
            for key, value in layer.get_config().items()
            if (key in options or key == "trainable")
            and key not in OMITTED
            and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        }
        config |= {key: "zeros" for key in options if key.endswith("_initializer")}  # the weights are assigned anyway
        outputs = self._apply(kind, name, tensors, _values(layer), **config)
        function = getattr(layer, "activation", None)
        return self._activate(function, f"{name}.activation", outputs) if callable(function) else outputs

    # activations

    def _activation(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        return self._activate(layer.activation, name, tensors[0])

    def _activate(self, function: Any, name: str, x: Any) -> Any:
        return self._activate_by_name(getattr(function, "__name__", type(function).__name__), name, x)

    def _activate_by_name(self, kind: str, name: str, x: Any, **options: Any) -> Any:
        if kind == "linear":
            return x
        if kind in ("relu", "relu6"):
            return self._apply("ReLU", name, [x], max_value=6.0 if kind == "relu6" else None)
        if kind in ("silu", "swish"):
            gate = self._apply("Activation", f"{name}.sigmoid", [x], activation="sigmoid")
            return self._apply("Multiply", name, [x, gate])
        if kind == "hard_sigmoid":  # relu6(x + 3) / 6; in tf_keras this name means 0.2 x + 0.5
            x = self._apply("Rescaling", f"{name}.shift", [x], scale=1.0, offset=3.0)
            x = self._apply("ReLU", f"{name}.relu6", [x], max_value=6.0)
            return self._apply("Rescaling", name, [x], scale=1 / 6)
        if kind in ("hard_silu", "hard_swish"):
            gate = self._activate_by_name("hard_sigmoid", f"{name}.gate", x)
            return self._apply("Multiply", name, [x, gate])
        if kind == "leaky_relu":
            return self._apply("LeakyReLU", name, [x], alpha=options.get("negative_slope", 0.2))
        if kind in ACTIVATIONS:
            return self._apply("Activation", name, [x], activation=kind)
        raise InputError(
            "a model to compress must have activations that can be expressed in tf_keras. "
            f"Received: {kind} (layer {name.removesuffix('.activation')!r})"
        )

    # layers that differ in more than their options

    def _leaky_relu(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        return self._apply("LeakyReLU", name, tensors, alpha=float(layer.negative_slope))

    def _separable_conv(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        depthwise, *pointwise = _values(layer)
        depthwise_name, pointwise_name = f"{name}.depthwise", f"{name}.pointwise"
        x = self._apply(
            "DepthwiseConv2D",
            depthwise_name,
            tensors,
            [depthwise],
            kernel_size=layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=layer.depth_multiplier,
            use_bias=False,
            data_format=layer.data_format,
        )
        x = self._apply(
            "Conv2D",
            pointwise_name,
            [x],
            pointwise,
            filters=layer.filters,
            kernel_size=1,
            use_bias=layer.use_bias,
            data_format=layer.data_format,
        )
        self.variables[name] = self.variables.pop(depthwise_name) + self.variables.pop(pointwise_name)
        return self._activate(layer.activation, f"{name}.activation", x)

    def _normalization(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        mean, deviation = np.asarray(layer.mean), np.maximum(np.sqrt(np.asarray(layer.variance)), 1e-7)
        scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
        return self._apply("Rescaling", name, tensors, scale=scale, offset=offset)

    def _layer_scale(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        """ConvNeXt's multiplication of each channel by a weight."""
        return self._apply("DepthwiseConv2D", name, tensors, _values(layer), kernel_size=1, use_bias=False)

    def _stochastic_depth(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        """ConvNeXt's dropout of whole branches per image."""
        return self._apply("Dropout", name, tensors, rate=layer.drop_path_rate, noise_shape=(None, 1, 1, 1))

    # raw operations

    def _raw(self, operation: Any, name: str, args: tuple, tensors: list[Any]) -> Any:
        kind = type(operation).__name__.lower()
        if kind in ELEMENTWISE:
            return self._apply("Activation", name, tensors, activation=getattr(tf.math, ELEMENTWISE[kind]))
        if kind in ACTIVATION_OPERATIONS:
            options = {"negative_slope": operation.negative_slope} if kind == "leakyrelu" else {}
            return self._activate_by_name(ACTIVATION_OPERATIONS[kind], name, tensors[0], **options)
        if kind == "mean":
            axis, keepdims = operation.axis, operation.keepdims
            return self._apply("Lambda", name, tensors, function=lambda x: tf.reduce_mean(x, axis, keepdims=keepdims))
        if kind == "reshape":
            return self._apply("Reshape", name, tensors, target_shape=tuple(operation.newshape[1:]))
        if kind == "concatenate":
            return self._apply("Concatenate", name, tensors, axis=operation.axis)
        if len(tensors) == 2:
            if kind in MERGING:
                return self._apply(MERGING[kind], name, tensors)
            return self._apply("Lambda", name, tensors, function=lambda pair: pair[0] / pair[1])
        return self._with_constant(kind, name, args, tensors)

    def _with_constant(self, kind: str, name: str, args: tuple, tensors: list[Any]) -> Any:
        """Arithmetic of a tensor and a constant, in either order."""
        first, second = args
        tensor_first = _is_tensor(first)
        constant = np.asarray(second if tensor_first else first, np.float32)
        if kind in ("maximum", "minimum"):
            bound = getattr(tf, kind)
            return self._apply("Lambda", name, tensors, function=lambda x: bound(x, constant))
        if kind in ("divide", "truedivide") and not tensor_first:
            return self._apply("Lambda", name, tensors, function=lambda x: constant / x)
        scale, offset = {
            "add": (1.0, constant),
            "multiply": (constant, 0.0),
            "subtract": (1.0, -constant) if tensor_first else (-1.0, constant),
            "divide": (1 / constant, 0.0),
            "truedivide": (1 / constant, 0.0),
        }[kind]
        return self._apply("Rescaling", name, tensors, scale=scale, offset=offset)


def _values(layer: Any) -> list[Any]:
    return [weight.value for weight in layer.weights]


def _is_tensor(value: Any) -> bool:
    return type(value).__name__ == "KerasTensor"
