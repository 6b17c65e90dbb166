"""Operations on the pixels of images in `keras.ops`, on any backend; RandAugment's with torchvision's ranges.

Images are float32 `(n, height, width, 3)`, pixels 0..255. Factors and turns are one number, or `(n, 1, 1, 1)`.
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

GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow


def brightness(images: Any, factor: Any) -> Any:
    """Multiply by `factor`, as Pillow's ImageEnhance.Brightness."""
    return clip(images * factor)


def contrast(images: Any, factor: Any) -> Any:
    """Multiply the difference from the mean grey by `factor`, as Pillow's ImageEnhance.Contrast."""
    return _blend(_mean_grey(images), images, factor)


def saturation(images: Any, factor: Any) -> Any:
    """Multiply the difference from grey by `factor`, as Pillow's ImageEnhance.Color."""
    return _blend(_grey(images), images, factor)


def hue(images: Any, turn: Any) -> Any:
    """Rotate the hue by a fraction of a turn, in HSV."""
    from keras import ops

    hsv = ops.image.rgb_to_hsv(images / 255)
    turned = ops.mod(hsv[..., :1] + turn, 1.0)
    return 255 * ops.image.hsv_to_rgb(ops.concatenate([turned, hsv[..., 1:]], axis=-1))


def sharpness(images: Any, factor: Any) -> Any:
    """Multiply the difference from a smoothed copy by `factor`, except at the border, as ImageEnhance.Sharpness."""
    return _blend(_smoothed(images), images, factor)


def autocontrast(images: Any) -> Any:
    """Stretch each channel to 0..255, as Pillow's ImageOps.autocontrast."""
    from keras import ops

    low, high = ops.min(images, axis=(1, 2), keepdims=True), ops.max(images, axis=(1, 2), keepdims=True)
    span = high - low
    return ops.where(span > 0, (images - low) * (255 / ops.maximum(span, 1.0)), images)


def equalize(images: Any) -> Any:
    """Equalize each channel's histogram, as Pillow's ImageOps.equalize."""
    from keras import ops

    count, height, width, channels = images.shape
    bins = 256 * np.arange(count * channels, dtype=np.int32).reshape(count, 1, 1, channels)
    where = bins + ops.cast(ops.round(images), "int32")  # the bin of each pixel in the histogram of its channel
    flat = ops.reshape(where, (-1,))
    histogram = ops.segment_sum(ops.ones_like(flat), flat, num_segments=256 * count * channels)
    histogram = ops.reshape(histogram, (-1, 256))  # bincount cannot be compiled by JAX
    up_to = ops.cumsum(histogram, axis=1)
    brightest = ops.max(ops.where(up_to < height * width, 0, histogram), axis=1, keepdims=True)
    step = (height * width - brightest) // 255
    table = ops.clip((up_to - histogram + step // 2) // ops.maximum(step, 1), 0, 255)
    table = ops.where(step > 0, table, np.arange(256, dtype=np.int32)[None])
    return ops.cast(ops.reshape(ops.take(ops.reshape(table, (-1,)), flat), images.shape), "float32")


def affine(images: Any, matrix: tuple[Any, Any, Any, Any], shift: tuple[Any, Any] = (0.0, 0.0)) -> Any:
    """Rotate, shear or shift about the centre, with bilinear interpolation; `FILL` outside the image.

    Keras's affine_transform is a kernel that XLA does not compile on TensorFlow; this one is made of gathers.

    Args:
        images: float32 `(n, height, width, 3)`.
        matrix: a, b, c, d of the map from a pixel (x, y) of the result, relative to the centre, to one of the image:
            (a x + b y, c x + d y). Each is a number or `(n, 1, 1)`.
        shift: x and y in pixels, added to it.
    """
    from keras import ops

    count, height, width, channels = images.shape
    y, x = (np.arange(length, dtype=np.float32) - (length - 1) / 2 for length in (height, width))
    x, y = x[None, None, :], y[None, :, None]
    a, b, c, d = (ops.cast(value, "float32") for value in matrix)
    left = a * x + b * y + (shift[0] + (width - 1) / 2)
    top = c * x + d * y + (shift[1] + (height - 1) / 2)
    left, top = (ops.broadcast_to(place, (count, height, width)) for place in (left, top))
    column, row = ops.floor(left), ops.floor(top)
    flat = ops.reshape(images, (-1, channels))
    first = np.arange(count, dtype=np.int32)[:, None, None] * (height * width)
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            i, j = ops.cast(row, "int32") + down, ops.cast(column, "int32") + right
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            pixels = ops.take(flat, first + ops.clip(i, 0, height - 1) * width + ops.clip(j, 0, width - 1), axis=0)
            weight = (1 - ops.abs(top - row - down)) * (1 - ops.abs(left - column - right))
            total = total + weight[..., None] * ops.where(inside[..., None], pixels, FILL)
    return total


def randaugment(images: Any, operations: Any, signs: Any, strength: float, *, lazy: bool = False) -> Any:
    """One operation of RandAugment on each image, rounded to whole pixels.

    The operations are computed in four groups for all images, and each image takes the result of its own: an
    accelerator does this faster than one image after the other.

    Args:
        images: the images, whole numbers.
        operations: int `(n,)`, indices into `OPERATIONS`.
        signs: `(n,)`, -1 or 1: the directions.
        strength: 0..1.
        lazy: whether a group that no image needs is not computed, which a CPU does faster.
    """
    from keras import ops

    def needs(name: str) -> Any:
        return ops.reshape(ops.equal(operations, OPERATIONS.index(name)), (-1, 1, 1, 1))

    signs = ops.reshape(ops.cast(signs, "float32"), (-1, 1, 1, 1))
    for group, names in _GROUPS.items():
        needed = {name: needs(name) for name in names}

        def computed(images: Any = images, group: Callable[..., Any] = group, needed: dict[str, Any] = needed) -> Any:
            return clip(ops.round(group(images, needed, signs, strength)))

        def unchanged(images: Any = images) -> Any:
            return images

        some = ops.any(ops.concatenate(list(needed.values())))
        images = ops.cond(some, computed, unchanged) if lazy else computed()
    return images


def _points(images: Any, needed: dict[str, Any], signs: Any, strength: float) -> Any:
    from keras import ops

    bits = 2 ** round(4 * strength)
    results = {
        "autocontrast": autocontrast(images),
        "solarize": ops.where(images >= 255 * (1 - strength), 255 - images, images),
        "posterize": ops.floor(images / bits) * bits,
        "brightness": brightness(images, 1 + 0.9 * strength * signs),
    }
    for name, result in results.items():
        images = ops.where(needed[name], result, images)
    return images


def _equalized(images: Any, needed: dict[str, Any], signs: Any, strength: float) -> Any:
    from keras import ops

    return ops.where(needed["equalize"], equalize(images), images)


def _blended(images: Any, needed: dict[str, Any], signs: Any, strength: float) -> Any:
    from keras import ops

    without = images
    for name, other in (("color", _grey), ("contrast", _mean_grey), ("sharpness", _smoothed)):
        without = ops.where(needed[name], other(images), without)
    return _blend(without, images, 1 + 0.9 * strength * signs)  # an image of another group is blended with itself


def _moved(images: Any, needed: dict[str, Any], signs: Any, strength: float) -> Any:
    from keras import ops

    _, height, width, _ = images.shape
    needed = {name: needed_by[:, :, :, 0] for name, needed_by in needed.items()}
    signs = signs[:, :, :, 0]
    angle = ops.where(needed["rotate"], math.radians(30 * strength) * signs, 0.0)
    shear_x, shear_y = (ops.where(needed[name], 0.3 * strength * signs, 0.0) for name in ("shear_x", "shear_y"))
    move_x, move_y = (
        ops.where(needed[name], round(150 / 331 * strength * length) * signs, 0.0)
        for name, length in (("translate_x", width), ("translate_y", height))
    )
    matrix = ops.cos(angle), ops.sin(angle) + shear_x, shear_y - ops.sin(angle), ops.cos(angle)
    return affine(images, matrix, (move_x, move_y))  # of another group: by nothing


_GROUPS: dict[Callable[..., Any], tuple[str, ...]] = {
    _points: ("autocontrast", "solarize", "posterize", "brightness"),
    _equalized: ("equalize",),
    _blended: ("color", "contrast", "sharpness"),
    _moved: ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
}


def _grey(images: Any) -> Any:
    from keras import ops

    return ops.sum(images * GREY_WEIGHTS, axis=-1, keepdims=True)


def _mean_grey(images: Any) -> Any:
    from keras import ops

    return ops.mean(_grey(images), axis=(1, 2), keepdims=True)


def _smoothed(images: Any) -> Any:
    """The images under a 3 x 3 mean with weight 5 in the centre, except at the border."""
    from keras import ops

    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    _, height, width, _ = images.shape
    soft = 0.0
    for row, weights in enumerate(kernel):
        for column, weight in enumerate(weights):
            soft = soft + weight * images[:, row : height - 2 + row, column : width - 2 + column]
    soft = ops.pad(ops.round(soft), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inner = np.zeros((height, width, 1), bool)
    inner[1:-1, 1:-1] = True
    return ops.where(inner, soft, images)


def _blend(without: Any, images: Any, factor: Any) -> Any:
    return clip(without + factor * (images - without))


def clip(images: Any) -> Any:
    """Pixels limited to 0..255."""
    from keras import ops

    return ops.clip(images, 0, 255)
