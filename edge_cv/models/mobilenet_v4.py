"""MobileNet V4, the convolutional variants: universal inverted bottlenecks, found by architecture search.

MobileNetV4: Universal Models for the Mobile Ecosystem, Qin et al. 2024, https://arxiv.org/abs/2404.10518 (section 3;
appendix D lists the blocks). The stages are those of the authors' code,
https://github.com/tensorflow/models/blob/master/official/vision/modeling/backbones/mobilenet.py

| name                     | input | trainable parameters |    MACs | published ImageNet top-1 (float32) |
|--------------------------|-------|----------------------|---------|------------------------------------|
| mobilenet_v4_conv_small  |   224 |            3,774,024 |   186 M |                             73.8 % |
| mobilenet_v4_conv_medium |   256 |            9,715,512 | 1,080 M |                             79.9 % |

The top-1 is the paper's. Published counts of the same networks: 3.77 M parameters and 0.2 G MACs at 224, 9.72 M and
1.1 G at 256 (model cards of timm's ports, https://huggingface.co/timm/mobilenetv4_conv_small.e2400_r224_in1k and
https://huggingface.co/timm/mobilenetv4_conv_medium.e500_r256_in1k). The authors published no weights.

A universal inverted bottleneck is an inverted bottleneck with two optional depthwise convolutions, one before the
expansion and one after it. It includes four known blocks: only the second, MobileNet V2's (IB); only the first,
ConvNeXt's; both, the paper's extra depthwise (ExtraDW); none, a feed-forward network (FFN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edge_cv.models._blocks import check_alpha, conv, depthwise, rate, scaled_channels

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing


class Conv(NamedTuple):
    """A convolution with batch normalization and ReLU."""

    channels: int
    kernel: int
    stride: int


class Fused(NamedTuple):
    """A fused inverted bottleneck: one convolution both filters and expands, another projects."""

    channels: int
    kernel: int
    stride: int
    expand: int


class Uib(NamedTuple):
    """A universal inverted bottleneck; `start` and `middle` are depthwise kernels, 0 for none."""

    start: int
    middle: int
    stride: int
    channels: int
    expand: int


Block = Conv | Fused | Uib

SMALL = (
    (Conv(32, kernel=3, stride=2),),
    (Conv(32, kernel=3, stride=2), Conv(32, kernel=1, stride=1)),
    (Conv(96, kernel=3, stride=2), Conv(64, kernel=1, stride=1)),
    (
        Uib(5, 5, stride=2, channels=96, expand=3),
        Uib(0, 3, stride=1, channels=96, expand=2),
        Uib(0, 3, stride=1, channels=96, expand=2),
        Uib(0, 3, stride=1, channels=96, expand=2),
        Uib(0, 3, stride=1, channels=96, expand=2),
        Uib(3, 0, stride=1, channels=96, expand=4),
    ),
    (
        Uib(3, 3, stride=2, channels=128, expand=6),
        Uib(5, 5, stride=1, channels=128, expand=4),
        Uib(0, 5, stride=1, channels=128, expand=4),
        Uib(0, 5, stride=1, channels=128, expand=3),
        Uib(0, 3, stride=1, channels=128, expand=4),
        Uib(0, 3, stride=1, channels=128, expand=4),
    ),
)
MEDIUM = (
    (Conv(32, kernel=3, stride=2),),
    (Fused(48, kernel=3, stride=2, expand=4),),
    (
        Uib(3, 5, stride=2, channels=80, expand=4),
        Uib(3, 3, stride=1, channels=80, expand=2),
    ),
    (
        Uib(3, 5, stride=2, channels=160, expand=6),
        Uib(3, 3, stride=1, channels=160, expand=4),
        Uib(3, 3, stride=1, channels=160, expand=4),
        Uib(3, 5, stride=1, channels=160, expand=4),
        Uib(3, 3, stride=1, channels=160, expand=4),
        Uib(3, 0, stride=1, channels=160, expand=4),
        Uib(0, 0, stride=1, channels=160, expand=2),
        Uib(3, 0, stride=1, channels=160, expand=4),
    ),
    (
        Uib(5, 5, stride=2, channels=256, expand=6),
        Uib(5, 5, stride=1, channels=256, expand=4),
        Uib(3, 5, stride=1, channels=256, expand=4),
        Uib(3, 5, stride=1, channels=256, expand=4),
        Uib(0, 0, stride=1, channels=256, expand=4),
        Uib(3, 0, stride=1, channels=256, expand=4),
        Uib(3, 5, stride=1, channels=256, expand=2),
        Uib(5, 5, stride=1, channels=256, expand=4),
        Uib(0, 0, stride=1, channels=256, expand=4),
        Uib(0, 0, stride=1, channels=256, expand=4),
        Uib(5, 0, stride=1, channels=256, expand=2),
    ),
)
NECK_CHANNELS = 960  # before the pooling
HEAD_CHANNELS = 1280  # after it; not reduced by alpha, as in the authors' code


@dataclass(frozen=True)
class Variant:
    """A published network and its published figures.

    Attributes:
        stages: the blocks; the first block of each stage halves the resolution.
        image_size: height and width of the input in pixels.
        dropout: rate before the last layer.
        stochastic_depth: rate at which the last block is skipped in training.
        parameters, macs: trainable parameters and multiply-accumulates with 1000 classes.
        top1: top-1 accuracy of the float32 network on ImageNet's 50,000 validation photos, 0..1.
    """

    stages: tuple[tuple[Block, ...], ...]
    image_size: int
    dropout: float
    stochastic_depth: float
    parameters: int
    macs: int
    top1: float


VARIANTS = {  # stages, image_size, dropout, stochastic_depth, parameters, macs, top1
    "mobilenet_v4_conv_small": Variant(SMALL, 224, 0.3, 0.0, 3_774_024, 186_000_000, 0.738),
    "mobilenet_v4_conv_medium": Variant(MEDIUM, 256, 0.2, 0.075, 9_715_512, 1_080_000_000, 0.799),
}
NAMES = tuple(VARIANTS)

CROP_SHARE = 0.875  # of the photo's short side: 224 of the usual 256
LEAST_ALPHA = 8 / 32  # of the stem's channels


def published(name: str) -> Variant:
    """The paper's figures for a variant: `image_size`, `parameters`, `macs` and `top1`."""
    return VARIANTS[name]


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos for the variant's image size or another one."""
    from converters.images.preprocessing import Preprocessing

    size = image_size or VARIANTS[name].image_size
    return Preprocessing(size, round(size / CROP_SHARE), rule="crop_then_resize", interpolation="bicubic")


def network(
    name: str,
    *,
    classes: int,
    image_size: int,
    alpha: float,
    dropout: float | None = None,
    stochastic_depth: float | None = None,
) -> keras.Model:
    """Build the network with random weights.

    Pixels are scaled to -1..1 with one scale for all channels, which an int8 input tensor represents at no cost.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier.
        dropout: rate before the last layer, 0 <= rate < 1; None is the variant's.
        stochastic_depth: rate at which the last block is skipped in training, growing linearly from 0 over the blocks;
            None is the variant's.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: if a rate is out of range or a stage would have fewer than 8 channels.
    """
    import keras
    from keras import layers

    variant = VARIANTS[name]
    dropout = rate("dropout", variant.dropout if dropout is None else dropout)
    stochastic_depth = rate(
        "stochastic_depth", variant.stochastic_depth if stochastic_depth is None else stochastic_depth
    )
    check_alpha(name, alpha, least=LEAST_ALPHA)

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(pixels)

    x = _blocks(x, variant.stages, alpha=alpha, drop=stochastic_depth)
    x = conv(x, scaled_channels(NECK_CHANNELS, alpha), activation="relu", name="neck")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = conv(x, scaled_channels(HEAD_CHANNELS, max(alpha, 1.0)), activation="relu", name="head")
    x = layers.Flatten(name="flatten")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def _blocks(
    x: keras.KerasTensor, stages: tuple[tuple[Block, ...], ...], *, alpha: float, drop: float
) -> keras.KerasTensor:
    """All blocks. The rate at which a block is skipped in training grows from 0 to `drop`."""
    done, total = 0, sum(len(stage) for stage in stages)
    for number, stage in enumerate(stages):
        for index, block in enumerate(stage):
            block = block._replace(channels=scaled_channels(block.channels, alpha))
            name = f"block{number}{chr(ord('a') + index)}"
            if isinstance(block, Conv):
                x = conv(x, block.channels, kernel=block.kernel, stride=block.stride, activation="relu", name=name)
            else:
                x = _bottleneck(x, block, drop=drop * done / total, name=name)
            done += 1
    return x


def _bottleneck(x: keras.KerasTensor, block: Fused | Uib, *, drop: float, name: str) -> keras.KerasTensor:
    """An inverted bottleneck, fused or universal. The input is added if the shapes agree."""
    from keras import layers

    shortcut = x
    expanded = scaled_channels(x.shape[-1], block.expand)
    if isinstance(block, Fused):
        x = conv(x, expanded, kernel=block.kernel, stride=block.stride, activation="relu", name=f"{name}_expand")
    else:
        if block.start:
            stride = 1 if block.middle else block.stride
            x = depthwise(x, kernel=block.start, stride=stride, activation=None, name=f"{name}_start")
        x = conv(x, expanded, activation="relu", name=f"{name}_expand")
        if block.middle:
            x = depthwise(x, kernel=block.middle, stride=block.stride, activation="relu", name=f"{name}_middle")
    x = conv(x, block.channels, activation=None, name=f"{name}_project")
    if shortcut.shape != x.shape or block.stride != 1:
        return x
    if drop:  # per image the whole block is skipped
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])
