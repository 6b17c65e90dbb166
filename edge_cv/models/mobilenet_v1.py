"""MobileNet V1: alternating depthwise and pointwise convolutions.

MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, Howard et al. 2017,
https://arxiv.org/abs/1704.04861

| name         | alpha | input | parameters (trainable) |  MACs | published ImageNet top-1 |
|--------------|-------|-------|------------------------|-------|--------------------------|
| mobilenet_v1 |  1.0  |   224 |  4,253,864 (4,231,976) | 569 M |                   70.6 % |
| mobilenet_v1 |  0.75 |   224 |  2,601,976 (2,585,560) | 325 M |                   68.4 % |
| mobilenet_v1 |  0.5  |   224 |  1,342,536 (1,331,592) | 149 M |                   63.7 % |
| mobilenet_v1 |  0.25 |   224 |    475,544   (470,072) |  41 M |                   50.6 % |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from edge_cv.models._blocks import Published, check_alpha, conv, depthwise, rate, slim_preprocessing

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile

NAMES = ("mobilenet_v1",)
IMAGE_SIZE = 224  # pixels

STEM_CHANNELS = 32
BLOCKS = (  # output channels and stride: table 1 of the paper
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    *((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)
LEAST_ALPHA = 8 / STEM_CHANNELS
TRAINED_ALPHAS = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}  # as in the names of the published files
TRAINED_SIZES = (128, 160, 192, 224)  # pixels
URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/"


def published(name: str) -> Published:
    """The paper's figures: `image_size`, `parameters`, `macs` and `top1`."""
    return Published(IMAGE_SIZE, parameters=4_231_976, macs=568_740_352, top1=0.706)


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
    return RemoteFile(f"mobilenet_{TRAINED_ALPHAS[alpha]}_{size}_tf.h5", URL)


def network(name: str, *, classes: int, image_size: int, alpha: float, dropout: float = 0.001) -> keras.Model:
    """Build the network with random weights.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier, at least 0.25. Widths are truncated to integers, not rounded to multiples of 8.
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
    x = conv(x, int(STEM_CHANNELS * alpha), kernel=3, stride=2, activation="relu6", name="stem")
    for number, (channels, stride) in enumerate(BLOCKS, 1):
        x = depthwise(x, kernel=3, stride=stride, activation="relu6", name=f"block{number}_depthwise")
        x = conv(x, int(channels * alpha), activation="relu6", name=f"block{number}_pointwise")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(pixels, logits, name=name)
