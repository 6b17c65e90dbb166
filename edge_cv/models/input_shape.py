"""The architectures with another input: grey images, and rectangles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError

if TYPE_CHECKING:
    import keras


def with_input(model: keras.Model, shape: tuple[int, int, int], *, keep_weights: bool) -> keras.Model:
    """The network of a model for images of another shape.

    A grey image stands for an RGB one of three equal channels: the first convolution's weights are summed over them,
    each by its share in the normalization, and the shift of the normalization goes into the layer that follows. Only
    at the border, where the convolution pads with zeros, does the result differ from the RGB model's.

    Args:
        model: an architecture for square RGB images; it is not changed.
        shape: `(height, width, channels)`.
        keep_weights: whether the new model has the model's weights, else random ones.

    Raises:
        InputError: the architecture's weights depend on the image size.
    """
    import keras

    grey = shape[2] == 1

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if grey and isinstance(layer, keras.layers.Rescaling):
            config |= {"scale": float(np.mean(layer.scale)), "offset": float(np.mean(layer.offset))}
        return type(layer).from_config(config)

    image = keras.Input(shape, dtype="float32", name=model.inputs[0].name)
    copy = keras.models.clone_model(model, input_tensors=image, clone_function=copied)
    if not keep_weights:
        return copy
    weights = model.get_weights()
    if grey:
        _make_grey(model, copy, weights)
    try:
        copy.set_weights(weights)
    except ValueError as error:
        raise InputError(
            f"image_size must be a square for pretrained weights of {model.name}. Received: {shape[0]}x{shape[1]}"
        ) from error
    return copy


def _make_grey(model: Any, copy: Any, weights: list[np.ndarray]) -> None:
    """Change the weights of the first convolution and of the layer after it to those for grey images, in place."""
    import keras

    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    rescaling = next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    scales = np.broadcast_to(np.asarray(rescaling.scale, np.float64), 3)
    offsets = np.broadcast_to(np.asarray(rescaling.offset, np.float64), 3)
    grey = next(layer for layer in copy.layers if isinstance(layer, keras.layers.Rescaling))
    place = {id(variable): index for index, variable in enumerate(model.weights)}
    kernel = np.asarray(first.kernel, np.float64)
    at = place[id(first.kernel)]
    share = scales / grey.scale
    weights[at] = (kernel * share[:, None]).sum(axis=2, keepdims=True).astype(np.float32)
    shift = (kernel * (offsets - share * grey.offset)[:, None]).sum(axis=(0, 1, 2))
    if first.use_bias:
        weights[place[id(first.bias)]] += shift.astype(np.float32)
        return
    normalization = next(
        layer
        for layer in model.layers[model.layers.index(first) :]
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    weights[place[id(normalization.moving_mean)]] -= shift.astype(np.float32)
