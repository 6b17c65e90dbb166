"""AlexNet in two forms: the network of 2012 with its two halves, and the single tower that is common today.

alexnet_2012: ImageNet Classification with Deep Convolutional Neural Networks, Krizhevsky, Sutskever and Hinton 2012,
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks
alexnet: One weird trick for parallelizing convolutional neural networks, Krizhevsky 2014,
https://arxiv.org/abs/1404.5997, in torchvision's layout and with torchvision's weights.

| name         | input | trainable parameters |     MACs | published ImageNet top-1 (float32) |
|--------------|-------|----------------------|----------|------------------------------------|
| alexnet      |   224 |           61,100,840 | 714.19 M |                             56.5 % |
| alexnet_2012 |   227 |           60,965,224 | 724.41 M |              59.3 % (ten crops)    |

The top-1 of alexnet is from torchvision, that of alexnet_2012 from the paper (table 2, one network). The paper states
an input of 224, but its first layer of 55 x 55 outputs, an 11 x 11 kernel every 4 pixels without padding, needs 227.

In 2012 the second, fourth and fifth convolution were split over two GPUs: each half of the filters reads one half of
the channels. Whether TensorFlow has gradients of grouped convolutions on a CPU depends on its build. Here the channels
are split, each half has its own convolution, and the halves are concatenated before a layer that reads all channels.
This trains on every build and has the parameters and multiply-accumulates of the grouped convolution.

Local response normalization (section 3.3) divides each activation by (k + alpha * the sum of squares of 5 neighbouring
channels)^0.75. It is built from standard layers and two roots, so that a saved file needs no custom class: padding and
cropping along the channels, additions, and with r = 1 / sqrt(s) the power s^-0.75 = r * sqrt(r).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import InputError, unknown
from edge_cv.models._blocks import check_alpha, rate, scaled_channels

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile


class Conv(NamedTuple):
    """A convolution with ReLU, and the layers behind it."""

    channels: int
    kernel: int
    stride: int
    padding: int  # pixels on each side
    groups: int = 1
    response: bool = False  # whether local response normalization follows, if the network has it
    pool: bool = False  # whether overlapping max pooling follows, 3 x 3 every 2 pixels (section 3.4)


@dataclass(frozen=True)
class Variant:
    """A published network and its published figures.

    Attributes:
        convolutions: the five convolutions.
        image_size: height and width of the input in pixels.
        norm: its normalization, one of `NORMS`.
        mean, std: per channel; the network normalizes to (pixel - mean) / std.
        parameters, macs: trainable parameters and multiply-accumulates with 1000 classes.
        top1: top-1 accuracy of the float32 network on ImageNet's 50,000 validation photos, 0..1.
    """

    convolutions: tuple[Conv, ...]
    image_size: int
    norm: str | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    parameters: int
    macs: int
    top1: float


VARIANTS = {
    "alexnet": Variant(
        convolutions=(
            Conv(64, kernel=11, stride=4, padding=2, response=True, pool=True),
            Conv(192, kernel=5, stride=1, padding=2, response=True, pool=True),
            Conv(384, kernel=3, stride=1, padding=1),
            Conv(256, kernel=3, stride=1, padding=1),
            Conv(256, kernel=3, stride=1, padding=1, pool=True),
        ),
        image_size=224,
        norm=None,
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),  # torchvision's, of pixels 0..1
        std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
        parameters=61_100_840,
        macs=714_190_000,
        top1=0.56522,
    ),
    "alexnet_2012": Variant(
        convolutions=(
            Conv(96, kernel=11, stride=4, padding=0, response=True, pool=True),
            Conv(256, kernel=5, stride=1, padding=2, groups=2, response=True, pool=True),
            Conv(384, kernel=3, stride=1, padding=1),
            Conv(384, kernel=3, stride=1, padding=1, groups=2),
            Conv(256, kernel=3, stride=1, padding=1, groups=2, pool=True),
        ),
        image_size=227,
        norm="lrn",
        mean=(123.68, 116.779, 103.939),  # of ImageNet's training photos; the paper subtracts it and does not divide
        std=(1.0, 1.0, 1.0),
        parameters=60_965_224,
        macs=724_410_000,
        top1=0.593,
    ),
}
NAMES = tuple(VARIANTS)
NORMS = ("lrn", "batch_norm", None)

HIDDEN_UNITS = 4096  # of the two dense layers before the last
POOL_SIZE = 6  # the dense layers read 6 x 6 positions at every input size
RESIZED = 256  # pixels of the resized short side of a photo, for the published image size

# The first eight digits are part of the file's name; torch uses them as a check.
WEIGHTS_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"

LRN_NEIGHBOURS = 5  # n, k and alpha of section 3.3; beta is 0.75, see the roots
LRN_BIAS = 2.0
LRN_ALPHA = 1e-4


def published(name: str) -> Variant:
    """The published figures of a variant: `image_size`, `parameters`, `macs` and `top1`."""
    return VARIANTS[name]


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos for the variant's image size or another one.

    alexnet: torchvision's, a short side of 256 for 224. alexnet_2012: the paper's, 256 for 227, central crop only.
    """
    from converters.images.preprocessing import Preprocessing

    default = VARIANTS[name].image_size
    size = image_size or default
    return Preprocessing(size, round(size * RESIZED / default), rule="resize_then_crop", interpolation="bilinear")


def imagenet_file(
    name: str, *, alpha: float = 1.0, image_size: int = 224, norm: str | None = "published", **_: Any
) -> RemoteFile | None:
    """The published weights: torchvision's for `alexnet`, at any image size; none for alexnet_2012."""
    from edge_cv.models.downloads import RemoteFile

    if alpha != 1.0:
        raise InputError(f'alpha must be 1 with weights="imagenet". Received: alpha={alpha}')
    if name != "alexnet":
        return None
    if norm not in (None, "published"):
        raise InputError(f'norm must be None with weights="imagenet" of {name}. Received: norm={norm!r}')
    return RemoteFile("alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/", WEIGHTS_SHA256)


def network(
    name: str,
    *,
    classes: int,
    image_size: int,
    alpha: float,
    norm: str | None = "published",
    dropout: float = 0.5,
) -> keras.Model:
    """Build the network with random weights.

    With other image sizes than the published one, features are averaged to 6 x 6 positions before the dense layers, as
    in torchvision. Weights are initialized by He's rule; the paper's fixed deviation of 0.01 suits only its own widths.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels, at least 63 (alexnet) or 67 (alexnet_2012).
        alpha: width multiplier of the convolutions and the dense layers.
        norm: "lrn" for local response normalization after the first two convolutions, "batch_norm" for batch
            normalization before each convolution's ReLU, None for neither; "published" is the variant's own.
        dropout: rate before the second and third dense layer (alexnet_2012) or before the first and second (alexnet, as
            in torchvision), 0 <= rate < 1.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: if an option is out of range, a layer would have fewer than 8 channels, or the image is too small
            for the three poolings.
    """
    import keras
    from keras import layers

    variant = VARIANTS[name]
    norm = variant.norm if norm == "published" else norm
    if norm not in NORMS:
        raise unknown("norm", norm, tuple(str(option) for option in NORMS))
    dropout = rate("dropout", dropout)
    narrowest = min(conv.channels // conv.groups for conv in variant.convolutions)
    check_alpha(name, alpha, least=8 / narrowest)
    if image_size < smallest_image(variant):
        raise InputError(
            f"image_size must be at least {smallest_image(variant)} pixels for {name}, because of its three "
            f"poolings. Received: {image_size}"
        )

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    scale = [1 / std for std in variant.std]
    offset = [-mean / std for mean, std in zip(variant.mean, variant.std, strict=True)]
    x = layers.Rescaling(scale, offset=offset, name="normalize")(pixels)

    x = _features(x, variant, alpha=alpha, norm=norm)
    x = layers.Flatten(name="flatten")(_pool_to_fixed_size(x))
    for number in (6, 7):
        if dropout and name == "alexnet":
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
        x = layers.Dense(scaled_channels(HIDDEN_UNITS, alpha), kernel_initializer="he_normal", name=f"dense{number}")(x)
        x = layers.ReLU(name=f"dense{number}_relu")(x)
        if dropout and name == "alexnet_2012":
            x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def smallest_image(variant: Variant) -> int:
    """The smallest image size in pixels, at which the last pooling leaves one position."""
    size = 1
    for conv in reversed(variant.convolutions):
        if conv.pool:
            size = (size - 1) * 2 + 3
        size = (size - 1) * conv.stride + conv.kernel - 2 * conv.padding
    return size


def _features(x: keras.KerasTensor, variant: Variant, *, alpha: float, norm: str | None) -> keras.KerasTensor:
    """The convolutions with their normalizations and poolings."""
    from keras import layers

    parts = [x]  # the halves of a grouped convolution, or the whole
    for number, conv in enumerate(variant.convolutions, 1):
        if len(parts) != conv.groups:
            parts = _cut(_join(parts, name=f"conv{number}_in"), conv.groups, name=f"conv{number}_in")
        parts = [
            _convolution(part, conv, alpha=alpha, batch_norm=norm == "batch_norm", name=f"conv{number}{half}")
            for part, half in zip(parts, ("a", "b") if conv.groups == 2 else ("",), strict=True)
        ]
        if conv.response and norm == "lrn":
            parts = [_local_response_normalization(_join(parts, name=f"conv{number}"), name=f"lrn{number}")]
        if conv.pool:
            pooled = layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(_join(parts, name=f"conv{number}"))
            parts = [pooled]
    (x,) = parts
    return x


def _convolution(x: keras.KerasTensor, conv: Conv, *, alpha: float, batch_norm: bool, name: str) -> keras.KerasTensor:
    """One convolution, or one half of a grouped one, with its normalization and ReLU."""
    from keras import layers

    if conv.stride > 1 and conv.padding:  # Keras's "same" pads the right and bottom more
        x = layers.ZeroPadding2D(conv.padding, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        scaled_channels(conv.channels // conv.groups, alpha),
        conv.kernel,
        strides=conv.stride,
        padding="valid" if conv.stride > 1 or not conv.padding else "same",
        use_bias=not batch_norm,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


# With `channels_first`, Keras's layers crop and pad the last two axes. For `(batch, height, width, channels)` these are
# the width and the channels; only the channels are cropped and padded here.
_ALONG_CHANNELS: dict[str, Any] = {"data_format": "channels_first"}


def _cut(x: keras.KerasTensor, groups: int, *, name: str) -> list[keras.KerasTensor]:
    """Split the channels into `groups` equal runs."""
    from keras import layers

    if groups == 1:
        return [x]
    channels = x.shape[-1]
    share = channels // groups
    return [
        layers.Cropping2D(
            ((0, 0), (start, channels - start - share)), name=f"{name}{start // share}", **_ALONG_CHANNELS
        )(x)
        for start in range(0, channels, share)
    ]


def _join(parts: list[keras.KerasTensor], *, name: str) -> keras.KerasTensor:
    from keras import layers

    return parts[0] if len(parts) == 1 else layers.Concatenate(name=f"{name}_join")(parts)


def _local_response_normalization(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """x / (k + alpha * the sum of x^2 over the channel and two on each side)^0.75."""
    from keras import layers, ops

    reach = LRN_NEIGHBOURS // 2
    squares = layers.Multiply(name=f"{name}_square")([x, x])
    padded = layers.ZeroPadding2D(((0, 0), (reach, reach)), name=f"{name}_pad", **_ALONG_CHANNELS)(squares)
    shifted = [
        layers.Cropping2D(((0, 0), (shift, 2 * reach - shift)), name=f"{name}_shift{shift}", **_ALONG_CHANNELS)(padded)
        for shift in range(LRN_NEIGHBOURS)
    ]
    total = layers.Add(name=f"{name}_sum")(shifted)
    total = layers.Rescaling(LRN_ALPHA, offset=LRN_BIAS, name=f"{name}_scale")(total)
    root = ops.rsqrt(total)
    return layers.Multiply(name=name)([x, root, ops.sqrt(root)])


def _pool_to_fixed_size(x: keras.KerasTensor) -> keras.KerasTensor:
    """Average to 6 x 6 positions, as torch's AdaptiveAvgPool2d.

    Of n positions, output i of 6 averages those from floor(i * n / 6) to ceil((i + 1) * n / 6): overlapping windows, or
    repeated positions.
    """
    from keras import layers

    size = x.shape[1]
    starts = [i * size // POOL_SIZE for i in range(POOL_SIZE)]
    ends = [-(-(i + 1) * size // POOL_SIZE) for i in range(POOL_SIZE)]
    widths = {end - start for start, end in zip(starts, ends, strict=True)}
    steps = {after - before for before, after in itertools.pairwise(starts)}
    if size == POOL_SIZE:
        return x
    if size > POOL_SIZE and len(widths) == len(steps) == 1:
        return layers.AveragePooling2D(widths.pop(), strides=steps.pop(), name="average")(x)
    for axis, direction in enumerate(("rows", "columns")):
        windows = []
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            crop, pool = [(0, 0), (0, 0)], [1, 1]
            crop[axis], pool[axis] = (start, size - end), end - start
            window = layers.Cropping2D(crop, name=f"{direction}{i}")(x)
            if end - start > 1:
                window = layers.AveragePooling2D(pool, name=f"average_{direction}{i}")(window)
            windows.append(window)
        x = layers.Concatenate(axis=1 + axis, name=f"average_{direction}")(windows)
    return x
