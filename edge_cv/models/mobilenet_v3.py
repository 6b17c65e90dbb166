"""MobileNet V3: found by architecture search, with squeeze-and-excitation and hard-swish in some blocks.

Searching for MobileNetV3, Howard et al. 2019, https://arxiv.org/abs/1905.02244

| name               | form         | input | parameters (trainable) |  MACs | published ImageNet top-1 |
|--------------------|--------------|-------|------------------------|-------|--------------------------|
| mobilenet_v3_large |              |   224 |  5,507,432 (5,483,032) | 217 M |                   75.2 % |
| mobilenet_v3_large | minimalistic |   224 |  3,948,688 (3,924,288) | 209 M |                   72.3 % |
| mobilenet_v3_small |              |   224 |  2,554,968 (2,542,856) |  57 M |                   67.4 % |
| mobilenet_v3_small | minimalistic |   224 |  2,056,848 (2,044,736) |  52 M |                   61.9 % |

The minimalistic form has no squeeze-and-excitation, hard-swish and 5x5 filters, which suits integer accelerators and
quantization-aware training. Its accuracy is from https://github.com/tensorflow/models (slim/nets/mobilenet).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import InputError
from edge_cv.models._blocks import (
    KERNEL_INITIALIZER,
    activate,
    check_alpha,
    conv,
    depthwise,
    rate,
    scaled_channels,
    slim_preprocessing,
)
from edge_cv.models._blocks import squeeze_excite as weigh_channels

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile


class Block(NamedTuple):
    """A row of the paper's tables 1 and 2. `expand` multiplies the block's input channels."""

    kernel: int
    expand: float
    channels: int
    squeeze_excite: bool
    activation: str
    stride: int


LARGE = (
    Block(kernel=3, expand=1, channels=16, squeeze_excite=False, activation="relu", stride=1),
    Block(kernel=3, expand=4, channels=24, squeeze_excite=False, activation="relu", stride=2),
    Block(kernel=3, expand=3, channels=24, squeeze_excite=False, activation="relu", stride=1),
    Block(kernel=5, expand=3, channels=40, squeeze_excite=True, activation="relu", stride=2),
    Block(kernel=5, expand=3, channels=40, squeeze_excite=True, activation="relu", stride=1),
    Block(kernel=5, expand=3, channels=40, squeeze_excite=True, activation="relu", stride=1),
    Block(kernel=3, expand=6, channels=80, squeeze_excite=False, activation="hard_swish", stride=2),
    Block(kernel=3, expand=2.5, channels=80, squeeze_excite=False, activation="hard_swish", stride=1),
    Block(kernel=3, expand=2.3, channels=80, squeeze_excite=False, activation="hard_swish", stride=1),
    Block(kernel=3, expand=2.3, channels=80, squeeze_excite=False, activation="hard_swish", stride=1),
    Block(kernel=3, expand=6, channels=112, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=3, expand=6, channels=112, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=6, channels=160, squeeze_excite=True, activation="hard_swish", stride=2),
    Block(kernel=5, expand=6, channels=160, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=6, channels=160, squeeze_excite=True, activation="hard_swish", stride=1),
)
SMALL = (
    Block(kernel=3, expand=1, channels=16, squeeze_excite=True, activation="relu", stride=2),
    Block(kernel=3, expand=72 / 16, channels=24, squeeze_excite=False, activation="relu", stride=2),
    Block(kernel=3, expand=88 / 24, channels=24, squeeze_excite=False, activation="relu", stride=1),
    Block(kernel=5, expand=4, channels=40, squeeze_excite=True, activation="hard_swish", stride=2),
    Block(kernel=5, expand=6, channels=40, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=6, channels=40, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=3, channels=48, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=3, channels=48, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=6, channels=96, squeeze_excite=True, activation="hard_swish", stride=2),
    Block(kernel=5, expand=6, channels=96, squeeze_excite=True, activation="hard_swish", stride=1),
    Block(kernel=5, expand=6, channels=96, squeeze_excite=True, activation="hard_swish", stride=1),
)
STEM_CHANNELS = 16  # not scaled by alpha
SQUEEZE = 0.25  # the share of a block's channels between the two layers of squeeze-and-excite
HEAD_EXPAND = 6  # the last convolution's channels are 6 times its input's
LEAST_ALPHA = 0.25  # 16 channels become 4, which still round to 8
IMAGE_SIZE = 224  # pixels
URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/"


@dataclass(frozen=True)
class Variant:
    """A network of the paper, and what was published of it.

    Attributes:
        blocks: its bottlenecks.
        features: channels of the layer before the logits, not made narrower by alpha < 1.
        parameters, macs: trainable parameters and multiply-accumulates with 1000 classes.
        top1: top-1 accuracy of the float32 network on ImageNet's 50,000 validation photos, 0..1.
        image_size: height and width of the input in pixels.
    """

    blocks: tuple[Block, ...]
    features: int
    parameters: int
    macs: int
    top1: float
    image_size: int = IMAGE_SIZE


VARIANTS = {
    "mobilenet_v3_small": Variant(SMALL, 1024, 2_542_856, 56_510_400, 0.674),
    "mobilenet_v3_large": Variant(LARGE, 1280, 5_483_032, 216_589_760, 0.752),
}
NAMES = tuple(VARIANTS)

MD5 = {  # of the published files, by the form in their names
    "small_224_0.75_float": "cb65d4e5be93758266aa0a7f2c6708b7",
    "small_224_1.0_float": "8768d4c2e7dee89b9d02b2d03d65d862",
    "small_minimalistic_224_1.0_float": "99cd97fb2fcdad2bf028eb838de69e37",
    "large_224_0.75_float": "765b44a33ad4005b3ac83185abf1d0eb",
    "large_224_1.0_float": "59e551e166be033d707958cf9e29a6a7",
    "large_minimalistic_224_1.0_float": "675e7b876c45c57e9e63e6d90a36599c",
}


def published(name: str) -> Variant:
    """The paper's figures for a variant: `image_size`, `parameters`, `macs` and `top1`."""
    return VARIANTS[name]


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos: the central 87.5 %, bilinear, as in TF-slim's evaluation."""
    return slim_preprocessing(image_size or IMAGE_SIZE)


def imagenet_file(name: str, *, alpha: float = 1.0, minimalistic: bool = False, **_: Any) -> RemoteFile:
    """The published weights of a form, trained at 224 pixels."""
    from edge_cv.models.downloads import RemoteFile

    trained = (1.0,) if minimalistic else (0.75, 1.0)
    if alpha not in trained:
        raise InputError(
            f'alpha must be one of {", ".join(f"{a:g}" for a in trained)} with weights="imagenet" of {name}'
            f"{' (minimalistic)' if minimalistic else ''}. Received: {alpha}"
        )
    form = f"{name.removeprefix('mobilenet_v3_')}{'_minimalistic' if minimalistic else ''}_224_{float(alpha)}_float"
    return RemoteFile(f"weights_mobilenet_v3_{form}.h5", URL, MD5[form])


def network(
    name: str,
    *,
    classes: int,
    image_size: int,
    alpha: float,
    minimalistic: bool = False,
    dropout: float = 0.2,
) -> keras.Model:
    """Build the network with random weights.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier, at least 0.25; widths are rounded to multiples of 8.
        minimalistic: omit squeeze-and-excitation, use ReLU instead of hard-swish and 3x3 filters instead of 5x5.
        dropout: rate before the last layer, 0 <= rate < 1.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: if an option is out of range.
    """
    import keras
    from keras import layers

    variant = VARIANTS[name]
    dropout = rate("dropout", dropout)
    check_alpha(name, alpha, least=LEAST_ALPHA)
    if not isinstance(minimalistic, bool):
        raise InputError(f"minimalistic must be True or False. Received: {minimalistic!r}")
    blocks = variant.blocks
    if minimalistic:
        blocks = tuple(block._replace(kernel=3, squeeze_excite=False, activation="relu") for block in blocks)
    activation = "relu" if minimalistic else "hard_swish"

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(pixels)
    x = conv(x, STEM_CHANNELS, kernel=3, stride=2, activation=activation, name="stem")
    for number, block in enumerate(blocks, 1):
        x = _bottleneck(x, block, scaled_channels(block.channels, alpha), name=f"block{number}")
    x = conv(x, scaled_channels(x.shape[-1] * HEAD_EXPAND), activation=activation, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    features = scaled_channels(variant.features, max(alpha, 1.0))
    x = layers.Dense(features, kernel_initializer=KERNEL_INITIALIZER, name="features")(x)
    x = activate(x, activation, name="features")
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def _bottleneck(x: keras.KerasTensor, block: Block, channels: int, *, name: str) -> keras.KerasTensor:
    """Expand, filter each channel, weight the channels, project, and add the input if the shapes agree."""
    from keras import layers

    shortcut = x
    expanded = scaled_channels(shortcut.shape[-1], block.expand)
    if block.expand != 1:
        x = conv(x, expanded, activation=block.activation, name=f"{name}_expand")
    x = depthwise(x, kernel=block.kernel, stride=block.stride, activation=block.activation, name=f"{name}_depthwise")
    if block.squeeze_excite:
        squeezed = scaled_channels(expanded, SQUEEZE)
        x = weigh_channels(x, squeezed, activation="relu", gate="hard_sigmoid", name=f"{name}_se")
    x = conv(x, channels, activation=None, name=f"{name}_project")
    if block.stride != 1 or channels != shortcut.shape[-1]:
        return x
    return layers.Add(name=f"{name}_add")([shortcut, x])
