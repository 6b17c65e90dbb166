"""EfficientNet B0 to B7 and Lite0 to Lite4: one baseline, scaled in width, depth and resolution together.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, Tan and Le 2019, https://arxiv.org/abs/1905.11946
EfficientNet-Lite: the same networks adapted to integer arithmetic on phones,
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

| name               | input | trainable parameters |     MACs | published ImageNet top-1 (float32) |
|--------------------|-------|----------------------|----------|------------------------------------|
| efficientnet_b0    |   224 |            5,288,548 |    386 M |                             77.1 % |
| efficientnet_b1    |   240 |            7,794,184 |    687 M |                             79.1 % |
| efficientnet_b2    |   260 |            9,109,994 |    994 M |                             80.1 % |
| efficientnet_b3    |   300 |           12,233,232 |  1,827 M |                             81.6 % |
| efficientnet_b4    |   380 |           19,341,616 |  4,394 M |                             82.9 % |
| efficientnet_b5    |   456 |           30,389,784 | 10,266 M |                             83.6 % |
| efficientnet_b6    |   528 |           43,040,704 | 19,068 M |                             84.0 % |
| efficientnet_b7    |   600 |           66,347,960 | 37,746 M |                             84.3 % |
| efficientnet_lite0 |   224 |            4,652,008 |    385 M |                             75.1 % |
| efficientnet_lite1 |   240 |            5,416,680 |    600 M |                             76.7 % |
| efficientnet_lite2 |   260 |            6,092,072 |    860 M |                             77.6 % |
| efficientnet_lite3 |   280 |            8,197,096 |  1,383 M |                             79.8 % |
| efficientnet_lite4 |   300 |           13,006,568 |  2,553 M |                             81.5 % |

The Lite form has no squeeze-and-excitation, ReLU6 instead of swish, and the same normalization for all channels. The
stem, the head, and the depth of the first and the last stage are not scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import InputError
from edge_cv.models._blocks import CHANNEL_STEP, check_alpha, conv, depthwise, rate, scaled_channels, squeeze_excite

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile


class Scale(NamedTuple):
    """Multipliers of the baseline's channels, blocks per stage, and input size."""

    width: float
    depth: float
    resolution: float


def compound_scale(phi: float, *, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15) -> Scale:
    """The compound scaling of the paper (section 3.3): depth alpha^phi, width beta^phi, resolution gamma^phi.

    The MACs grow by about 2^phi, because alpha * beta^2 * gamma^2 is about 2.

    Args:
        phi: exponent; it may be a fraction, or negative for networks smaller than the baseline.
        alpha: base of the depth.
        beta: base of the width.
        gamma: base of the resolution.

    Returns:
        The multipliers.

    Raises:
        InputError: if `phi` is not a finite number.
    """
    if isinstance(phi, bool) or not isinstance(phi, int | float) or not math.isfinite(phi):
        raise InputError(f"phi must be a finite number. Received: {phi!r}")
    return Scale(width=beta**phi, depth=alpha**phi, resolution=gamma**phi)


class Stage(NamedTuple):
    """A row of the paper's table 1: MBConv blocks. The stride applies to the first one."""

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
SQUEEZE = 0.25  # channels between the two layers of squeeze-and-excitation, relative to the block's input


@dataclass(frozen=True)
class Variant:
    """A published scaling and its published figures.

    Attributes:
        width, depth: multipliers of the baseline.
        image_size: height and width of the input in pixels.
        dropout: rate before the last layer.
        parameters, macs: trainable parameters and multiply-accumulates with 1000 classes.
        top1: top-1 accuracy of the float32 network on ImageNet's 50,000 validation photos, 0..1.
        md5: MD5 of the file of weights of keras.applications; "" if there is none.
    """

    width: float
    depth: float
    image_size: int
    dropout: float
    parameters: int
    macs: int
    top1: float
    md5: str = ""


B_VARIANTS = {  # width, depth, image_size, dropout, parameters, macs, top1, md5
    "efficientnet_b0": Variant(1.0, 1.0, 224, 0.2, 5_288_548, 385_800_000, 0.771, "902e53a9f72be733fc0bcb005b3ebbac"),
    "efficientnet_b1": Variant(1.0, 1.1, 240, 0.2, 7_794_184, 687_000_000, 0.791, "1d254153d4ab51201f1646940f018540"),
    "efficientnet_b2": Variant(1.1, 1.2, 260, 0.3, 9_109_994, 994_000_000, 0.801, "b15cce36ff4dcbd00b6dd88e7857a6ad"),
    "efficientnet_b3": Variant(
        1.2, 1.4, 300, 0.3, 12_233_232, 1_827_000_000, 0.816, "ffd1fdc53d0ce67064dc6a9c7960ede0"
    ),
    "efficientnet_b4": Variant(
        1.4, 1.8, 380, 0.4, 19_341_616, 4_394_000_000, 0.829, "18c95ad55216b8f92d7e70b3a046e2fc"
    ),
    "efficientnet_b5": Variant(
        1.6, 2.2, 456, 0.4, 30_389_784, 10_266_000_000, 0.836, "ace28f2a6363774853a83a0b21b9421a"
    ),
    "efficientnet_b6": Variant(
        1.8, 2.6, 528, 0.5, 43_040_704, 19_068_000_000, 0.840, "165f6e37dce68623721b423839de8be5"
    ),
    "efficientnet_b7": Variant(
        2.0, 3.1, 600, 0.5, 66_347_960, 37_746_000_000, 0.843, "8c03f828fec3ef71311cd463b6759d99"
    ),
}
LITE_VARIANTS = {  # width, depth, image_size, dropout, parameters, macs, top1
    "efficientnet_lite0": Variant(1.0, 1.0, 224, 0.2, 4_652_008, 385_000_000, 0.751),
    "efficientnet_lite1": Variant(1.0, 1.1, 240, 0.2, 5_416_680, 600_000_000, 0.767),
    "efficientnet_lite2": Variant(1.1, 1.2, 260, 0.3, 6_092_072, 860_000_000, 0.776),
    "efficientnet_lite3": Variant(1.2, 1.4, 280, 0.3, 8_197_096, 1_383_000_000, 0.798),
    "efficientnet_lite4": Variant(1.4, 1.8, 300, 0.3, 13_006_568, 2_553_000_000, 0.815),
}
VARIANTS = B_VARIANTS | LITE_VARIANTS
NAMES = tuple(VARIANTS)
BASELINES = ("efficientnet_b0", "efficientnet_lite0")  # which `phi` scales

MAX_PHI = 10.0  # a thousand times the baseline's MACs
CROP_MARGIN = 32  # pixels: the photo's short side is image_size + 32 before the central crop, as in the reference
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of R, G and B as shares of 255
IMAGENET_STD = (0.229, 0.224, 0.225)
URL = "https://storage.googleapis.com/keras-applications/"
DENSE_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0 / 3.0, "mode": "fan_out", "distribution": "uniform"},
}


def published(name: str) -> Variant:
    """The paper's figures for a variant: `image_size`, `parameters`, `macs` and `top1`."""
    return VARIANTS[name]


def default_image_size(name: str, *, phi: float | None = None, **_: Any) -> int:
    """The default height and width of the input in pixels: the variant's, scaled by `phi`."""
    return scaled_variant(name, phi).image_size


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos for the variant's image size or another one."""
    from converters.images.preprocessing import Preprocessing

    size = image_size or VARIANTS[name].image_size
    return Preprocessing(size, resize_to=size + CROP_MARGIN, rule="crop_then_resize", interpolation="bicubic")


def imagenet_file(
    name: str, *, alpha: float = 1.0, phi: float | None = None, lite: bool | None = None, **_: Any
) -> RemoteFile | None:
    """The file of weights of keras.applications for a B variant; None for Lite variants."""
    from edge_cv.models.downloads import RemoteFile

    for option, value, required in (
        ("alpha", alpha, 1),
        ("phi", phi, None),
        ("lite", lite if lite is not None else name in LITE_VARIANTS, name in LITE_VARIANTS),
    ):
        if value != required:
            raise InputError(f'{option} must be {required} with weights="imagenet" of {name}. Received: {value}')
    md5 = VARIANTS[name].md5
    return RemoteFile(f"{name.replace('_', '')}.h5", URL, md5) if md5 else None


def network(
    name: str,
    *,
    classes: int,
    image_size: int,
    alpha: float,
    phi: float | None = None,
    lite: bool | None = None,
    dropout: float | None = None,
    stochastic_depth: float = 0.2,
) -> keras.Model:
    """Build the network with random weights.

    Args:
        name: one of `NAMES`.
        classes: number of logits.
        image_size: height and width of the input in pixels.
        alpha: width multiplier in addition to the variant's own.
        phi: exponent of the compound scaling, at most 10, only for the baselines B0 and Lite0: for example 1.5 for a
            network between the published ones or -1 for a smaller one. 1 has the width and depth of B2.
        lite: whether to build the Lite form of a B variant; None is the variant's own form.
        dropout: rate before the last layer, 0 <= rate < 1; None is the variant's.
        stochastic_depth: rate at which the last block is skipped in training; it grows linearly from 0 over the blocks.

    Returns:
        A model from pixels `(batch, image_size, image_size, 3)`, RGB 0..255, to logits `(batch, classes)`.

    Raises:
        InputError: if an option is out of range or a stage would have fewer than 8 channels.
    """
    import keras
    from keras import layers

    variant = scaled_variant(name, phi)
    lite = _form(name, lite)
    dropout = rate("dropout", variant.dropout if dropout is None else dropout)
    stochastic_depth = rate("stochastic_depth", stochastic_depth)
    width = variant.width * alpha
    check_alpha(name, alpha, least=CHANNEL_STEP / BASELINE[0].channels / variant.width)
    activation = "relu6" if lite else "swish"
    outer_width = 1.0 if lite else width

    pixels = keras.Input((image_size, image_size, 3), dtype="float32", name="pixels")
    x = _normalization(lite)(pixels)
    x = conv(x, scaled_channels(STEM_CHANNELS, outer_width), kernel=3, stride=2, activation=activation, name="stem")

    stages = scaled_stages(width, variant.depth, lite=lite)
    x = _blocks(x, stages, activation=activation, squeeze=None if lite else SQUEEZE, drop=stochastic_depth)
    x = conv(x, scaled_channels(HEAD_CHANNELS, outer_width), activation=activation, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer=DENSE_INITIALIZER, name="logits")(x)
    return keras.Model(pixels, logits, name=name)


def scaled_variant(name: str, phi: float | None = None) -> Variant:
    """The published variant, or the baseline with compound scaling if `phi` is a number.

    A scaled variant has the dropout of the published variant that is nearest in depth, and an image size that is a
    multiple of 8 pixels.

    Raises:
        InputError: if `phi` is not a number, above 10, or given for a variant that is already scaled.
    """
    variant = VARIANTS[name]
    if phi is None:
        return variant
    if name not in BASELINES:
        raise InputError(
            f"phi must be omitted for a variant that is already scaled ({name}); it scales "
            f"{' and '.join(BASELINES)}. Received: {phi!r}"
        )
    scale = compound_scale(phi)
    if phi > MAX_PHI:
        raise InputError(f"phi must be at most {MAX_PHI:g}. Received: {phi!r}")
    family = B_VARIANTS if name in B_VARIANTS else LITE_VARIANTS
    nearest = min(family.values(), key=lambda other: abs(other.depth - scale.depth))
    size = max(4, round(variant.image_size * scale.resolution / 8)) * 8
    return Variant(scale.width, scale.depth, size, nearest.dropout, 0, 0, 0.0)


def _form(name: str, lite: bool | None) -> bool:
    is_lite = name in LITE_VARIANTS
    if lite is not None and not isinstance(lite, bool):
        raise InputError(f"lite must be True, False or None. Received: {lite!r}")
    if is_lite and lite is False:
        raise InputError(f"lite must be omitted for {name}, which is already a Lite variant. Received: {lite}")
    return is_lite if lite is None else lite


def _normalization(lite: bool) -> keras.layers.Layer:
    """The normalization of pixels 0..255 with which the weights were trained."""
    from keras import layers

    if lite:
        return layers.Rescaling(1 / 128, offset=-127 / 128, name="normalize")
    return layers.Rescaling(
        [1 / 255 / std for std in IMAGENET_STD],
        offset=[-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)],
        name="normalize",
    )


def scaled_stages(width: float, depth: float, *, lite: bool) -> tuple[Stage, ...]:
    """The baseline's scaled stages. In the Lite form the depth of the first and the last stage is not scaled."""
    last = len(BASELINE) - 1
    return tuple(
        stage._replace(
            channels=scaled_channels(stage.channels, width),
            blocks=stage.blocks if lite and index in (0, last) else math.ceil(stage.blocks * depth),
        )
        for index, stage in enumerate(BASELINE)
    )


def _blocks(
    x: keras.KerasTensor, stages: tuple[Stage, ...], *, activation: str, squeeze: float | None, drop: float
) -> keras.KerasTensor:
    """All blocks. The rate at which a block is skipped in training grows from 0 to `drop`."""
    done, total = 0, sum(stage.blocks for stage in stages)
    for number, stage in enumerate(stages, 1):
        for block in range(stage.blocks):
            x = _mbconv(
                x,
                stage,
                stride=stage.stride if block == 0 else 1,
                activation=activation,
                squeeze=squeeze,
                drop=drop * done / total,
                name=f"block{number}{_letter(block)}",
            )
            done += 1
    return x


def _mbconv(
    x: keras.KerasTensor,
    stage: Stage,
    *,
    stride: int,
    activation: str,
    squeeze: float | None,
    drop: float,
    name: str,
) -> keras.KerasTensor:
    """A mobile inverted bottleneck: expand, filter each channel, weight the channels, project, and add the input.

    The input is added if the shapes agree. With `squeeze=None` there is no squeeze-and-excitation.
    """
    from keras import layers

    shortcut = x
    channels = x.shape[-1]
    if stage.expand != 1:
        x = conv(x, channels * stage.expand, activation=activation, name=f"{name}_expand")
    x = depthwise(x, kernel=stage.kernel, stride=stride, activation=activation, name=f"{name}_depthwise")
    if squeeze is not None:
        squeezed = max(1, int(channels * squeeze))
        x = squeeze_excite(x, squeezed, activation=activation, gate="sigmoid", name=f"{name}_se")
    x = conv(x, stage.channels, activation=None, name=f"{name}_project")
    if stride != 1 or channels != stage.channels:
        return x
    if drop:  # one decision an image: the whole block is skipped
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _letter(block: int) -> str:
    """a, b, ... z, then ba, bb, ...: the published names of blocks, for any depth."""
    return ("" if block < 26 else _letter(block // 26)) + chr(ord("a") + block % 26)
