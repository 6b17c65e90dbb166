"""EfficientNet-Lite0 to Lite4: one baseline, scaled in width, depth and resolution together.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Tan and Le 2019, https://arxiv.org/abs/1905.11946
EfficientNet-Lite: the same networks made fit for integer arithmetic on phones,
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

| name               | input | trainable parameters |    MACs | published ImageNet top-1 (float32) |
|--------------------|-------|----------------------|---------|------------------------------------|
| efficientnet_lite0 |   224 |            4,652,008 |   385 M |                             75.1 % |
| efficientnet_lite1 |   240 |            5,416,680 |   600 M |                             76.7 % |
| efficientnet_lite2 |   260 |            6,092,072 |   860 M |                             77.6 % |
| efficientnet_lite3 |   280 |            8,197,096 | 1,383 M |                             79.8 % |
| efficientnet_lite4 |   300 |           13,006,568 | 2,553 M |                             81.5 % |

What makes a network Lite: no squeeze-and-excitation, ReLU6 in place of swish, and neither the stem, the head nor the
depth of the first and the last stage is scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

    from converters.preprocessing import Preprocessing


class Scale(NamedTuple):
    """Multipliers of the baseline's channels, blocks a stage, and input size."""

    width: float
    depth: float
    resolution: float


def compound_scale(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scale:
    """The compound scaling of the paper (section 3.3): depth alpha^phi, width beta^phi, resolution gamma^phi.

    `phi` is the exponent of two of the MACs, nearly: alpha * beta^2 * gamma^2 is about 2. It may be a fraction, or
    negative for networks under the baseline.
    """
    if not isinstance(phi, int | float) or not math.isfinite(phi):
        raise InputError(f"phi must be a finite number. Received: {phi!r}")
    return Scale(width=beta**phi, depth=alpha**phi, resolution=gamma**phi)


class Stage(NamedTuple):
    """A row of the paper's table 1: MBConv blocks, of which the first has the stride."""

    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int


BASELINE = (
    Stage(expand=1, channels=16, blocks=1, stride=1, kernel=3),
    Stage(expand=6, channels=24, blocks=2, stride=2, kernel=3),
    Stage(expand=6, channels=40, blocks=2, stride=2, kernel=5),
    Stage(expand=6, channels=80, blocks=3, stride=2, kernel=3),
    Stage(expand=6, channels=112, blocks=3, stride=1, kernel=5),
    Stage(expand=6, channels=192, blocks=4, stride=2, kernel=5),
    Stage(expand=6, channels=320, blocks=1, stride=1, kernel=3),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class Variant:
    """A published scaling, and what was published of it.

    Attributes:
        width, depth: multipliers of the baseline.
        image_size: height and width of the input in pixels.
        dropout: rate before the last layer.
        parameters, macs: trainable parameters and multiply-accumulates with 1000 classes.
        top1: of the float32 network on ImageNet's 50,000 validation photos, as a share.
    """

    width: float
    depth: float
    image_size: int
    dropout: float
    parameters: int
    macs: int
    top1: float


VARIANTS = {  # width, depth, image_size, dropout, parameters, macs, top1
    "efficientnet_lite0": Variant(1.0, 1.0, 224, 0.2, 4_652_008, 385_000_000, 0.751),
    "efficientnet_lite1": Variant(1.0, 1.1, 240, 0.2, 5_416_680, 600_000_000, 0.767),
    "efficientnet_lite2": Variant(1.1, 1.2, 260, 0.3, 6_092_072, 860_000_000, 0.776),
    "efficientnet_lite3": Variant(1.2, 1.4, 280, 0.3, 8_197_096, 1_383_000_000, 0.798),
    "efficientnet_lite4": Variant(1.4, 1.8, 300, 0.3, 13_006_568, 2_553_000_000, 0.815),
}
NAMES = tuple(VARIANTS)

CROP_MARGIN = 32  # pixels: the photo's short side is image_size + 32 when the centre is cut out, as in the reference
BATCH_NORM_EPSILON = 1e-3
KERNEL_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
DENSE_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0 / 3.0, "mode": "fan_out", "distribution": "uniform"},
}


def published(name: str) -> Variant:
    """What the paper says of a variant: its `image_size`, `parameters`, `macs` and `top1`."""
    return VARIANTS[name]


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """What happens to a photo before the network sees it, for the variant's image size or another one."""
    from converters.preprocessing import Preprocessing

    size = image_size or VARIANTS[name].image_size
    return Preprocessing(size, resize_to=size + CROP_MARGIN, rule="crop_then_resize", interpolation="bicubic")


def network(
    name: str,
    *,
    classes: int,
    image_size: int,
    alpha: float,
    dropout: float | None = None,
    stochastic_depth: float = 0.2,
) -> keras.Model:
    """The network, with random weights.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier on top of the variant's own.
        dropout: rate before the last layer, 0 <= rate < 1; None is the variant's.
        stochastic_depth: rate at which the last block is skipped in training; it grows linearly from 0 over the blocks.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: when a rate is out of its range or a stage would have fewer than 8 channels.
    """
    import keras
    from keras import layers

    variant = VARIANTS[name]
    dropout = _rate("dropout", variant.dropout if dropout is None else dropout)
    stochastic_depth = _rate("stochastic_depth", stochastic_depth)
    width = variant.width * alpha
    if BASELINE[0].channels * width < CHANNEL_STEP:
        least = CHANNEL_STEP / BASELINE[0].channels / variant.width
        raise InputError(
            f"alpha must keep {CHANNEL_STEP} channels in every stage: at least {least:.3g} for {name}. "
            f"Received: {alpha}"
        )

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")(pixels)
    x = _conv(x, STEM_CHANNELS, kernel=3, stride=2, name="stem")

    stages = scaled_stages(width, variant.depth)
    done, total = 0, sum(stage.blocks for stage in stages)
    for number, stage in enumerate(stages, 1):
        for block in range(stage.blocks):
            x = _mbconv(
                x,
                stage,
                stride=stage.stride if block == 0 else 1,
                drop=stochastic_depth * done / total,
                name=f"block{number}{_letter(block)}",
            )
            done += 1

    x = _conv(x, HEAD_CHANNELS, kernel=1, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer=DENSE_INITIALIZER, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


CHANNEL_STEP = 8  # channels come in multiples of 8, which suits vector units


def scaled_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """The baseline's stages, scaled; the depth of the first and the last one stays (the Lite rule)."""
    last = len(BASELINE) - 1
    return tuple(
        stage._replace(
            channels=scaled_channels(stage.channels, width),
            blocks=stage.blocks if index in (0, last) else math.ceil(stage.blocks * depth),
        )
        for index, stage in enumerate(BASELINE)
    )


def scaled_channels(channels: int, width: float) -> int:
    """`channels * width`, rounded to a multiple of 8 that is not more than 10 % under it."""
    wanted = channels * width
    rounded = max(CHANNEL_STEP, int(wanted + CHANNEL_STEP / 2) // CHANNEL_STEP * CHANNEL_STEP)
    return rounded + CHANNEL_STEP if rounded < 0.9 * wanted else rounded


def _mbconv(x: keras.KerasTensor, stage: Stage, *, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """A mobile inverted bottleneck: expand, filter each channel, project, and add the input where the shapes agree."""
    from keras import layers

    shortcut = x
    channels = x.shape[-1]
    if stage.expand != 1:
        x = _conv(x, channels * stage.expand, kernel=1, name=f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=KERNEL_INITIALIZER,
        name=f"{name}_depthwise_conv",
    )(x)
    x = _norm(x, name=f"{name}_depthwise")
    x = layers.ReLU(max_value=6, name=f"{name}_depthwise_relu6")(x)
    x = _conv(x, stage.channels, kernel=1, activation=False, name=f"{name}_project")
    if stride != 1 or channels != stage.channels:
        return x
    if drop:  # one decision an image: the whole block is skipped
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _conv(
    x: keras.KerasTensor, channels: int, *, kernel: int, stride: int = 1, activation: bool = True, name: str
) -> keras.KerasTensor:
    """Convolution, batch normalization and, unless `activation` is False, ReLU6."""
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
    x = _norm(x, name=name)
    return layers.ReLU(max_value=6, name=f"{name}_relu6")(x) if activation else x


def _norm(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    from keras import layers

    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn")(x)


def _letter(block: int) -> str:
    """a, b, ... z, then ba, bb, ...: the published names of blocks, for any depth."""
    return ("" if block < 26 else _letter(block // 26)) + chr(ord("a") + block % 26)


def _rate(what: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise InputError(f"{what} must be a rate of at least 0 and under 1. Received: {value!r}")
    return float(value)
