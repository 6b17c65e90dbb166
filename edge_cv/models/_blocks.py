"""Building blocks of the families: rounding of channels, convolution with batch normalization, squeeze-and-excitation.

The name of every layer starts with its block's name, so that reports per layer are readable. Strided convolutions use
TensorFlow's "same" padding, with which the published weights were trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing

CHANNEL_STEP = 8  # channels are multiples of 8, which suits vector units
BATCH_NORM_EPSILON = 1e-3
KERNEL_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


class Published(NamedTuple):
    """The paper's figures for 1000 classes: input in pixels, trainable parameters, MACs, top-1 accuracy 0..1."""

    image_size: int
    parameters: int
    macs: int
    top1: float


def slim_preprocessing(image_size: int) -> Preprocessing:
    """The preprocessing of TF-slim's evaluation: the central 87.5 % of a photo, bilinear."""
    from converters.images.preprocessing import Preprocessing

    to = round(image_size / 0.875)
    return Preprocessing(image_size, resize_to=to, rule="crop_then_resize", interpolation="bilinear")


def scaled_channels(channels: int, width: float = 1.0) -> int:
    """`channels * width`, rounded to a multiple of 8 that is at most 10 % smaller."""
    wanted = channels * width
    rounded = max(CHANNEL_STEP, int(wanted + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded + CHANNEL_STEP if rounded < 0.9 * wanted else rounded


def check_alpha(name: str, alpha: float, *, least: float) -> None:
    """Raise InputError if a width multiplier leaves fewer than 8 channels in the narrowest layer."""
    if alpha < least:
        raise InputError(
            f"alpha must keep {CHANNEL_STEP} channels in every stage: at least {least:.3g} for {name}. "
            f"Received: {alpha}"
        )


def rate(what: str, value: float) -> float:
    """Return a valid dropout rate as float; raise InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise InputError(f"{what} must be a rate of at least 0 and under 1. Received: {value!r}")
    return float(value)


def conv(
    x: keras.KerasTensor, channels: int, *, kernel: int = 1, stride: int = 1, activation: str | None, name: str
) -> keras.KerasTensor:
    """Convolution, batch normalization and an activation (see `activate`)."""
    from keras import layers

    x = layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=KERNEL_INITIALIZER,
        name=f"{name}_conv",
    )(x)
    return activate(normalize(x, name=name), activation, name=name)


def depthwise(
    x: keras.KerasTensor, *, kernel: int, stride: int = 1, activation: str | None, name: str
) -> keras.KerasTensor:
    """Depthwise convolution, batch normalization and an activation (see `activate`)."""
    from keras import layers

    x = layers.DepthwiseConv2D(
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=KERNEL_INITIALIZER,
        name=f"{name}_conv",
    )(x)
    return activate(normalize(x, name=name), activation, name=name)


def normalize(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Batch normalization."""
    from keras import layers

    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn")(x)


def activate(x: keras.KerasTensor, activation: str | None, *, name: str) -> keras.KerasTensor:
    """Apply `relu`, `relu6` or a Keras activation such as `swish`; None returns `x`."""
    from keras import layers

    if activation is None:
        return x
    if activation in ("relu", "relu6"):  # ReLU layers, which every converter fuses into the convolution
        return layers.ReLU(max_value=6 if activation == "relu6" else None, name=f"{name}_{activation}")(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def squeeze_excite(x: keras.KerasTensor, squeezed: int, *, activation: str, gate: str, name: str) -> keras.KerasTensor:
    """Multiply each channel by a weight that two small layers compute from the means of all channels.

    Squeeze-and-Excitation Networks, Hu et al. 2017, https://arxiv.org/abs/1709.01507

    Args:
        x: `(batch, height, width, channels)`.
        squeezed: channels between the two layers.
        activation: activation of the first layer.
        gate: activation of the second layer, with values 0..1: `sigmoid`, or `hard_sigmoid` in MobileNetV3.
        name: prefix of the layers' names.
    """
    from keras import layers

    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    for part, channels, function in (("reduce", squeezed, activation), ("expand", x.shape[-1], gate)):
        dense = layers.Conv2D(channels, 1, kernel_initializer=KERNEL_INITIALIZER, name=f"{name}_{part}")
        weight = activate(dense(weight), function, name=f"{name}_{part}")
    return layers.Multiply(name=f"{name}_excite")([x, weight])
