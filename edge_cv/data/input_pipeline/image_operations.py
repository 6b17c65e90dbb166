"""Operations on the pixels of one image in `keras.ops`, on any backend; RandAugment's with torchvision's ranges.

Images are float32 `(height, width, 3)`, pixels 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

FILL = 128.0  # the pixels outside a rotated or shifted image
OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast"),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow


def brightness(image: Any, factor: Any) -> Any:
    """Multiply by `factor`, as Pillow's ImageEnhance.Brightness."""
    return clip(image * factor)


def contrast(image: Any, factor: Any) -> Any:
    """Multiply the difference from the mean grey by `factor`, as Pillow's ImageEnhance.Contrast."""
    from keras import ops

    return _blend(ops.mean(_grey(image)), image, factor)


def saturation(image: Any, factor: Any) -> Any:
    """Multiply the difference from grey by `factor`, as Pillow's ImageEnhance.Color."""
    return _blend(_grey(image), image, factor)


def hue(image: Any, turn: Any) -> Any:
    """Rotate the hue by a fraction of a turn, in HSV."""
    from keras import ops

    hsv = ops.image.rgb_to_hsv(image / 255)
    turned = ops.mod(hsv[..., :1] + turn, 1.0)
    return 255 * ops.image.hsv_to_rgb(ops.concatenate([turned, hsv[..., 1:]], axis=-1))


def sharpness(image: Any, factor: Any) -> Any:
    """Multiply the difference from a smoothed copy by `factor`, except at the border, as ImageEnhance.Sharpness."""
    from keras import ops

    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    height, width, _ = image.shape
    planes = ops.transpose(image, (2, 0, 1))[..., None]
    soft = ops.conv(planes, kernel[:, :, None, None], padding="valid")
    soft = ops.round(ops.transpose(soft[..., 0], (1, 2, 0)))
    soft = ops.pad(soft, ((1, 1), (1, 1), (0, 0)))
    inner = np.zeros((height, width, 1), bool)
    inner[1:-1, 1:-1] = True
    return _blend(ops.where(inner, soft, image), image, factor)


def autocontrast(image: Any) -> Any:
    """Stretch each channel to 0..255, as Pillow's ImageOps.autocontrast."""
    from keras import ops

    low, high = ops.min(image, axis=(0, 1), keepdims=True), ops.max(image, axis=(0, 1), keepdims=True)
    span = high - low
    return ops.where(span > 0, (image - low) * (255 / ops.maximum(span, 1.0)), image)


def equalize(image: Any) -> Any:
    """Equalize each channel's histogram, as Pillow's ImageOps.equalize."""
    from keras import ops

    levels = ops.cast(ops.round(image), "int32")
    channels = []
    for channel in range(3):
        flat = ops.reshape(levels[..., channel], (-1,))
        histogram = ops.segment_sum(ops.ones_like(flat), flat, num_segments=256)  # bincount cannot be compiled by JAX
        step = (flat.shape[0] - histogram[ops.max(flat)]) // 255
        before = ops.cumsum(histogram) - histogram
        table = ops.clip((before + step // 2) // ops.maximum(step, 1), 0, 255)
        channels.append(ops.where(step > 0, ops.take(table, flat), flat))
    return ops.cast(ops.reshape(ops.stack(channels, axis=-1), image.shape), "float32")


def affine(image: Any, matrix: tuple[Any, Any, Any, Any], shift: tuple[Any, Any] = (0.0, 0.0)) -> Any:
    """Rotate, shear or shift about the centre, with bilinear interpolation; `FILL` outside the image.

    Args:
        image: float32 `(height, width, 3)`.
        matrix: a, b, c, d of the map from a pixel (x, y) of the result, relative to the centre, to one of the image:
            (a x + b y, c x + d y).
        shift: x and y in pixels, added to it.
    """
    from keras import ops

    height, width, _ = image.shape
    x, y = (width - 1) / 2, (height - 1) / 2
    a, b, c, d = (ops.cast(value, "float32") for value in matrix)
    zero = ops.zeros_like(a)
    rows = [a, b, x - a * x - b * y + shift[0], c, d, y - c * x - d * y + shift[1], zero, zero]
    return ops.image.affine_transform(
        image, ops.stack(rows), interpolation="bilinear", fill_mode="constant", fill_value=FILL,
        data_format="channels_last",
    )  # fmt: skip


def randaugment(image: Any, operation: Any, sign: Any, strength: float) -> Any:
    """One operation of RandAugment.

    Args:
        image: the image.
        operation: an index into `OPERATIONS`.
        sign: -1 or 1, the direction.
        strength: 0..1.
    """
    from keras import ops

    height, width, _ = image.shape
    factor = 1 + 0.9 * strength * sign
    angle = sign * math.radians(30 * strength)
    bits = 2 ** round(4 * strength)
    one, zero = ops.ones_like(sign), ops.zeros_like(sign)
    shear = 0.3 * strength * sign
    move = round(150 / 331 * strength * width) * sign, round(150 / 331 * strength * height) * sign
    branches: dict[str, Callable[[], Any]] = {
        "identity": lambda: image,
        "autocontrast": lambda: autocontrast(image),
        "equalize": lambda: equalize(image),
        "rotate": lambda: affine(image, (ops.cos(angle), ops.sin(angle), -ops.sin(angle), ops.cos(angle))),
        "solarize": lambda: ops.where(image >= 255 * (1 - strength), 255 - image, image),
        "color": lambda: saturation(image, factor),
        "posterize": lambda: ops.floor(image / bits) * bits,
        "contrast": lambda: contrast(image, factor),
        "brightness": lambda: brightness(image, factor),
        "sharpness": lambda: sharpness(image, factor),
        "shear_x": lambda: affine(image, (one, shear, zero, one)),
        "shear_y": lambda: affine(image, (one, zero, shear, one)),
        "translate_x": lambda: affine(image, (one, zero, zero, one), (move[0], 0.0)),
        "translate_y": lambda: affine(image, (one, zero, zero, one), (0.0, move[1])),
    }
    return ops.clip(ops.round(ops.switch(operation, [branches[name] for name in OPERATIONS])), 0, 255)


def _grey(image: Any) -> Any:
    from keras import ops

    return ops.sum(image * _GREY, axis=-1, keepdims=True)


def _blend(without: Any, image: Any, factor: Any) -> Any:
    return clip(without + factor * (image - without))


def clip(image: Any) -> Any:
    """Pixels limited to 0..255."""
    from keras import ops

    return ops.clip(image, 0, 255)
