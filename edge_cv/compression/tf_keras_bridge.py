"""The bridge to tf_keras, the Keras 2 that tensorflow-model-optimization speaks, and back.

A Keras 3 model's graph is walked and each operation expressed in the plainest tf_keras layers that compute the same:
activations are layers of their own, swish is a sigmoid and a product, a separable convolution is its two convolutions.
So what wraps, prunes or quantizes layers has a dozen kinds to know, and sees each number that a device would compute.
The bridge ends with a comparison of both models on random pixels: some names mean other numbers in the two libraries.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import import_tensorflow
from edge_cv.compression.keras_graph import functional_form, walk

if TYPE_CHECKING:
    import keras
    import tf_keras

MAX_RELATIVE_ERROR = 1e-4  # of the outputs, against their largest value
ROUNDINGS = 10.0  # times what the last digits of its weights move: a model may answer no more exactly than it can
WORST_RELATIVE_ERROR = 1e-2  # whatever the last digits do
CHECKED_IMAGES = 2
FREE_SIZE = 96  # pixels, of the images for a model that takes any size

# Layers with the same meaning in both libraries. What their configurations do not share are options whose default is
# what the other library does; where it is not, the comparison at the end says so.
SAME = frozenset(
    [
        "Add",
        "Average",
        "AveragePooling2D",
        "BatchNormalization",
        "Concatenate",
        "Conv2D",
        "Conv2DTranspose",
        "Cropping2D",
        "Dense",
        "DepthwiseConv2D",
        "Dropout",
        "ELU",
        "Flatten",
        "GaussianNoise",
        "GlobalAveragePooling2D",
        "GlobalMaxPooling2D",
        "LayerNormalization",
        "MaxPooling2D",
        "Maximum",
        "Minimum",
        "Multiply",
        "PReLU",
        "Permute",
        "ReLU",
        "Rescaling",
        "Reshape",
        "Softmax",
        "SpatialDropout2D",
        "Subtract",
        "UpSampling2D",
        "ZeroPadding2D",
    ]
)
ACTIVATIONS = ("elu", "exponential", "gelu", "mish", "selu", "sigmoid", "softmax", "softplus", "softsign", "tanh")
NOT_CARRIED = ("activation", "dtype", "name", "seed")  # and initializers, regularizers, constraints

Wrap = Callable[[Any, str], Any]


@dataclass(frozen=True, eq=False)
class TfKerasTwin:
    """A Keras 3 model, the equal tf_keras model, and which weights of one are which of the other.

    Attributes:
        source: the Keras 3 model.
        model: the tf_keras model, in inference equal to the source until something trains it.
        weights: for each layer of the source with weights, by the name that it has in the walk, its tf_keras variables
            in the order of the layer's own.
    """

    source: keras.Model
    model: tf_keras.Model
    weights: dict[str, tuple[Any, ...]] = field(repr=False)

    def back(self, replaced: dict[str, list[np.ndarray]] | None = None) -> keras.Model:
        """A new Keras 3 model: the source's architecture with the weights that the tf_keras model has now.

        Args:
            replaced: for some layers, weights to take in the place of the variables'.
        """
        from edge_cv.compression.keras_graph import leaf_layers

        model = clone(self.source)
        layers = leaf_layers(model)
        for name, variables in self.weights.items():
            values = (replaced or {}).get(name) or [variable.numpy() for variable in variables]
            layer = layers[name]
            layer.set_weights([v.reshape(w.shape) for v, w in zip(values, layer.weights, strict=True)])
        return model


def clone(model: keras.Model) -> keras.Model:
    """A copy of a Keras 3 model with weights of its own."""
    import keras

    compiled, model.compiled = model.compiled, False  # a loss of somebody's own cannot be cloned, and need not be
    try:
        copy = keras.models.clone_model(model)
    finally:
        model.compiled = compiled
    copy.set_weights(model.get_weights())
    if hasattr(model, "preprocessing"):
        copy.preprocessing = model.preprocessing
    return copy


def cross(model: keras.Model, *, wrap: Wrap = lambda layer, name: layer, check: bool = True) -> TfKerasTwin:
    """The tf_keras model that is equal to a Keras 3 model.

    Args:
        model: functional or a built Sequential, models inside it and raw operations included.
        wrap: given each tf_keras layer, built and with its weights, and its name; what it returns takes the layer's
            place.
        check: compare both on random pixels; not where `wrap` changes what is computed.

    Raises:
        InputError: the model cannot be carried; the message names the layer or operation.
    """
    import_tensorflow()
    import tf_keras

    form = functional_form(model)
    if len(form.inputs) != 1 or len(form.outputs) != 1:
        raise InputError(
            "a model to compress must have one input and one output. "
            f"Received: {len(form.inputs)} inputs and {len(form.outputs)} outputs"
        )
    builder = _Builder(wrap)
    (tensor,) = form.inputs
    images = tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=_name(tensor.name))
    (outputs,) = walk(model, [images], builder)
    legacy = tf_keras.Model(images, outputs, name=_name(model.name))
    crossing = TfKerasTwin(model, legacy, builder.weights)
    if check:
        _check_equal(crossing)
    return crossing


def _name(name: str) -> str:
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return cleaned if cleaned[:1].isalnum() else f"n{cleaned}"


def _check_equal(crossing: TfKerasTwin) -> None:
    shape = [size or FREE_SIZE for size in crossing.model.inputs[0].shape[1:]]
    pixels = np.random.default_rng(0).integers(0, 256, (CHECKED_IMAGES, *shape)).astype(np.float32)
    wanted = np.asarray(crossing.source(pixels, training=False))
    given = np.asarray(crossing.model(pixels, training=False))
    error = _relative_error(given, wanted)
    allowed = MAX_RELATIVE_ERROR
    if not error <= allowed:
        noise = _relative_error(_moved_by_last_digits(crossing.source, pixels), wanted)
        allowed = min(max(allowed, ROUNDINGS * noise), WORST_RELATIVE_ERROR)
    if not error <= allowed:
        raise InputError(
            f"the tf_keras model made of {crossing.source.name!r} must answer as it does, within "
            f"{allowed:.2g} of the largest output on random pixels. Measured: {error:.2g}"
        )


def _relative_error(given: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(given - wanted).max() / max(np.abs(wanted).max(), 1e-30))


def _moved_by_last_digits(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The outputs of a model each of whose weights is one float32 higher or lower.

    Batch normalization over few images may divide by next to nothing: then the rounding of one layer is what the next
    ones see, and no two libraries agree to more digits than the model agrees with itself.
    """
    rng = np.random.default_rng(0)
    moved = clone(model)
    for variable in moved.weights:
        value = np.asarray(variable)
        if value.dtype == np.float32:
            variable.assign(np.nextafter(value, value + rng.choice([-np.inf, np.inf], value.shape).astype(np.float32)))
    return np.asarray(moved(pixels, training=False))


class _Builder:
    """Builds tf_keras layers as `walk` calls it for the operations of a Keras 3 model."""

    def __init__(self, wrap: Wrap) -> None:
        self.wrap = wrap
        self.weights: dict[str, tuple[Any, ...]] = {}
        self._used: set[str] = set()

    def __call__(self, operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        import keras

        tensors = [value for value in keras.tree.flatten((args, kwargs)) if _is_tensor(value)]
        kind = type(operation).__name__
        if isinstance(operation, keras.layers.Layer):
            carry = getattr(self, f"_{kind.lower()}", None)
            if carry is not None:
                return carry(operation, name, tensors)
            if kind in SAME:
                return self._same(operation, name, tensors)
        elif kind.lower() in _RAW:
            return self._raw(operation, name, args, tensors)
        what = "layer" if isinstance(operation, keras.layers.Layer) else "operation"
        raise InputError(
            f"a model to compress must consist of layers that tf_keras has. Received: {what} {name!r} of kind {kind}"
        )

    def _apply(self, kind: str, name: str, tensors: list[Any], weights: Sequence[Any] = (), **config: Any) -> Any:
        """One tf_keras layer, built, given its weights, wrapped and called; its variables are kept under `name`."""
        import tensorflow as tf
        import tf_keras

        unique, count = _name(name), 1
        while unique in self._used:
            count += 1
            unique = f"{_name(name)}_{count}"
        self._used.add(unique)
        layer = getattr(tf_keras.layers, kind)(name=unique, **config)
        given = tensors if len(tensors) > 1 else tensors[0]
        if len(weights):
            layer.build(given.shape)
            for value, variable in zip(weights, layer.weights, strict=True):
                variable.assign(tf.reshape(value, variable.shape))  # no copy in between: layers can be large
            self.weights[name] = self.weights.get(name, ()) + tuple(layer.weights)
        return self.wrap(layer, unique)(given)

    def _same(self, layer: Any, name: str, tensors: list[Any], **changed: Any) -> Any:
        """The layer of the same name, and its activation as a layer behind it."""
        import tf_keras

        kind = type(layer).__name__
        known = inspect.signature(getattr(tf_keras.layers, kind).__init__).parameters
        config = {
            key: value
            for key, value in (layer.get_config() | changed).items()
            if (key in known or key == "trainable")
            and key not in NOT_CARRIED
            and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        }
        config |= {key: "zeros" for key in known if key.endswith("_initializer")}  # they are given their weights
        outputs = self._apply(kind, name, tensors, _values(layer), **config)
        function = getattr(layer, "activation", None)
        return self._activate(function, f"{name}.activation", outputs) if callable(function) else outputs

    def _activation(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        return self._activate(layer.activation, name, tensors[0])

    def _activate(self, function: Any, name: str, x: Any, **options: Any) -> Any:
        kind = getattr(function, "__name__", type(function).__name__)
        return self._activate_by_name(kind, name, x, **options)

    def _activate_by_name(self, kind: str, name: str, x: Any, **options: Any) -> Any:
        if kind == "linear":
            return x
        if kind in ("relu", "relu6"):
            return self._apply("ReLU", name, [x], max_value=6.0 if kind == "relu6" else None)
        if kind in ("silu", "swish"):
            return self._apply(
                "Multiply", name, [x, self._apply("Activation", f"{name}.sigmoid", [x], activation="sigmoid")]
            )
        if kind == "hard_sigmoid":  # relu6(x + 3) / 6; tf_keras' function of this name is another one
            x = self._apply("Rescaling", f"{name}.shift", [x], scale=1.0, offset=3.0)
            return self._apply(
                "Rescaling", name, [self._apply("ReLU", f"{name}.relu6", [x], max_value=6.0)], scale=1 / 6
            )
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

    # layers that need more than another name

    def _leakyrelu(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        return self._apply("LeakyReLU", name, tensors, alpha=float(layer.negative_slope))

    def _identity(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        return tensors[0]

    def _separableconv2d(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        depthwise, *pointwise = _values(layer)
        shared = {"data_format": layer.data_format}
        x = self._apply(
            "DepthwiseConv2D",
            f"{name}.depthwise",
            tensors,
            [depthwise],
            kernel_size=layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=layer.depth_multiplier,
            use_bias=False,
            **shared,
        )
        x = self._apply(
            "Conv2D",
            f"{name}.pointwise",
            [x],
            pointwise,
            filters=layer.filters,
            kernel_size=1,
            use_bias=layer.use_bias,
            **shared,
        )
        self.weights[name] = self.weights.pop(f"{name}.depthwise") + self.weights.pop(f"{name}.pointwise")
        return self._activate(layer.activation, f"{name}.activation", x)

    def _normalization(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        mean, deviation = np.asarray(layer.mean), np.maximum(np.sqrt(np.asarray(layer.variance)), 1e-7)
        scale, offset = (deviation, mean) if layer.invert else (1 / deviation, -mean / deviation)
        return self._apply("Rescaling", name, tensors, scale=scale, offset=offset)

    def _layerscale(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        """ConvNeXt's: each channel times a weight of its own."""
        return self._apply("DepthwiseConv2D", name, tensors, _values(layer), kernel_size=1, use_bias=False)

    def _stochasticdepth(self, layer: Any, name: str, tensors: list[Any]) -> Any:
        """ConvNeXt's: an image's branch is dropped whole."""
        return self._apply("Dropout", name, tensors, rate=layer.drop_path_rate, noise_shape=(None, 1, 1, 1))

    # raw operations

    def _raw(self, operation: Any, name: str, args: tuple, tensors: list[Any]) -> Any:
        import tensorflow as tf

        kind = type(operation).__name__.lower()
        if kind in _ELEMENTWISE:
            return self._apply("Activation", name, tensors, activation=getattr(tf.math, _ELEMENTWISE[kind]))
        if kind in _ACTIVATING:
            return self._activate_by_name(
                {"hardsigmoid": "hard_sigmoid", "hardsilu": "hard_silu", "leakyrelu": "leaky_relu"}.get(kind, kind),
                name,
                tensors[0],
                **({"negative_slope": operation.negative_slope} if kind == "leakyrelu" else {}),
            )
        if kind == "mean":
            axis, keepdims = operation.axis, operation.keepdims
            return self._apply("Lambda", name, tensors, function=lambda x: tf.reduce_mean(x, axis, keepdims=keepdims))
        if kind == "reshape":
            return self._apply("Reshape", name, tensors, target_shape=tuple(operation.newshape[1:]))
        if kind == "concatenate":
            return self._apply("Concatenate", name, tensors, axis=operation.axis)
        if len(tensors) == 2:
            layer = {
                "add": "Add",
                "subtract": "Subtract",
                "multiply": "Multiply",
                "maximum": "Maximum",
                "minimum": "Minimum",
            }.get(kind)
            if layer is not None:
                return self._apply(layer, name, tensors)
            return self._apply("Lambda", name, tensors, function=lambda pair: pair[0] / pair[1])
        first, second = args
        constant = np.asarray(second if _is_tensor(first) else first, np.float32)
        if kind in ("maximum", "minimum"):
            bound = getattr(tf, kind)
            return self._apply("Lambda", name, tensors, function=lambda x: bound(x, constant))
        if kind in ("divide", "truedivide") and not _is_tensor(first):
            return self._apply("Lambda", name, tensors, function=lambda x: constant / x)
        scale, offset = {
            "add": (1.0, constant),
            "multiply": (constant, 0.0),
            "subtract": (1.0, -constant) if _is_tensor(first) else (-1.0, constant),
            "divide": (1 / constant, 0.0),
            "truedivide": (1 / constant, 0.0),
        }[kind]
        return self._apply("Rescaling", name, tensors, scale=scale, offset=offset)


_ELEMENTWISE = {kind: kind for kind in ("exp", "log", "negative", "rsqrt", "sqrt", "square")} | {"absolute": "abs"}
# fmt: off
_ACTIVATING = frozenset(
    [
        "elu", "gelu", "hardsigmoid", "hardsilu", "leakyrelu", "relu", "relu6", "selu", "sigmoid", "silu",
        "softmax", "softplus", "tanh",
    ]
)
# fmt: on
_RAW = (
    frozenset(_ELEMENTWISE)
    | _ACTIVATING
    | {"mean", "reshape", "concatenate"}
    | {"add", "divide", "maximum", "minimum", "multiply", "subtract", "truedivide"}
)


def _values(layer: Any) -> list[Any]:
    return [weight.value for weight in layer.weights]


def _is_tensor(value: Any) -> bool:
    return type(value).__name__ == "KerasTensor"
