"""MobileNet V2: inverted residuals with linear bottlenecks.

MobileNetV2: Inverted Residuals and Linear Bottlenecks, Sandler et al. 2018, https://arxiv.org/abs/1801.04381

| name         | alpha | input | parameters (trainable) |  MACs | published ImageNet top-1 |
|--------------|-------|-------|------------------------|-------|--------------------------|
| mobilenet_v2 |  1.4  |   224 |  6,156,712 (6,108,776) | 582 M |                   74.7 % |
| mobilenet_v2 |  1.0  |   224 |  3,538,984 (3,504,872) | 301 M |                   72.0 % |
| mobilenet_v2 |  0.75 |   224 |  2,663,064 (2,636,424) | 209 M |                   69.8 % |
| mobilenet_v2 |  0.5  |   224 |  1,987,224 (1,968,680) |  97 M |                   65.4 % |
| mobilenet_v2 |  0.35 |   224 |  1,691,208 (1,677,128) |  59 M |                   60.3 % |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import InputError
from edge_cv.models._blocks import Published, check_alpha, conv, depthwise, rate, scaled_channels, slim_preprocessing

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile

NAMES = ("mobilenet_v2",)
IMAGE_SIZE = 224  # pixels


class Stage(NamedTuple):
    """A row of the paper's table 2: bottlenecks. The stride applies to the first one."""

    expand: int
    channels: int
    blocks: int
    stride: int


STAGES = (
    Stage(expand=1, channels=16, blocks=1, stride=1),
    Stage(expand=6, channels=24, blocks=2, stride=2),
    Stage(expand=6, channels=32, blocks=3, stride=2),
    Stage(expand=6, channels=64, blocks=4, stride=2),
    Stage(expand=6, channels=96, blocks=3, stride=1),
    Stage(expand=6, channels=160, blocks=3, stride=2),
    Stage(expand=6, channels=320, blocks=1, stride=1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280  # not reduced by alpha < 1 (section 6.1)
LEAST_ALPHA = 0.25  # 16 channels become 4, which still round to 8
TRAINED_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
TRAINED_SIZES = (96, 128, 160, 192, 224)  # pixels
URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"


def published(name: str) -> Published:
    """The paper's figures: `image_size`, `parameters`, `macs` and `top1`."""
    return Published(IMAGE_SIZE, parameters=3_504_872, macs=300_774_272, top1=0.720)


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos: the central 87.5 %, bilinear, as in TF-slim's evaluation."""
    return slim_preprocessing(image_size or IMAGE_SIZE)


def imagenet_file(name: str, *, alpha: float = 1.0, image_size: int = IMAGE_SIZE, **_: Any) -> RemoteFile:
    """The published weights: trained at `image_size` if available, otherwise at 224 pixels."""
    from edge_cv.models.downloads import RemoteFile

    if alpha not in TRAINED_ALPHAS:
        raise InputError(
            f'alpha must be one of {", ".join(f"{a:g}" for a in TRAINED_ALPHAS)} with weights="imagenet" of {name}. '
            f"Received: {alpha}"
        )
    size = image_size if image_size in TRAINED_SIZES else IMAGE_SIZE
    return RemoteFile(f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{size}.h5", URL)


def network(name: str, *, classes: int, image_size: int, alpha: float, dropout: float = 0.2) -> keras.Model:
    """Build the network with random weights.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier, at least 0.25; widths are rounded to multiples of 8.
        dropout: rate before the last layer, 0 <= rate < 1.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: if `dropout` or `alpha` is out of range.
    """
    import keras
    from keras import layers

    dropout = rate("dropout", dropout)
    check_alpha(name, alpha, least=LEAST_ALPHA)

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(pixels)
    x = conv(x, scaled_channels(STEM_CHANNELS, alpha), kernel=3, stride=2, activation="relu6", name="stem")
    number = 0
    for stage in STAGES:
        channels = scaled_channels(int(stage.channels * alpha))
        for block in range(stage.blocks):
            number += 1
            x = _bottleneck(x, stage.expand, channels, stage.stride if block == 0 else 1, name=f"block{number}")
    x = conv(x, scaled_channels(HEAD_CHANNELS, max(alpha, 1.0)), activation="relu6", name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def _bottleneck(x: keras.KerasTensor, expand: int, channels: int, stride: int, *, name: str) -> keras.KerasTensor:
    """Expand, filter each channel, project without an activation, and add the input if the shapes agree."""
    from keras import layers

    shortcut = x
    if expand != 1:
        x = conv(x, expand * shortcut.shape[-1], activation="relu6", name=f"{name}_expand")
    x = depthwise(x, kernel=3, stride=stride, activation="relu6", name=f"{name}_depthwise")
    x = conv(x, channels, activation=None, name=f"{name}_project")
    if stride != 1 or channels != shortcut.shape[-1]:
        return x
    return layers.Add(name=f"{name}_add")([shortcut, x])
