"""The changes that training images go through, each defined once, for every backend of Keras.

The order, for each image:

1. crop: a window of random area and aspect ratio (Szegedy et al. 2014, "Inception"), resized to a square;
2. flip of left and right;
3. RandAugment (Cubuk et al. 2019);
4. colour jitter: brightness, contrast, saturation, hue;
5. PCA lighting (Krizhevsky et al. 2012);
6. erasing of a rectangle (Zhong et al. 2017);
7. smoothing of the target (Szegedy et al. 2015);
8. Mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) with the other image of its pair.

All random numbers are drawn by `draw`, in numpy, as a function of seed, epoch, step and row; the rest is a function of
pixels and these numbers. So a batch is the same whatever computes it and wherever training was interrupted. 1 and 2
happen where images are decoded; 3 to 6 are `change`, 8 is `mix`, in `keras.ops`: in tf.data as well as under JAX's jit.

Why not Keras's own layers of the same names: their numbers come from a counter that the calls of a parallel map reach
in any order and that cannot be set to a step; RandAugment applies all eleven operations to every image, and one choice
to the whole batch; CutMix's targets are those of a rectangle that is not rounded to pixels. Their operations on pixels
(affine_transform, HSV) are Keras's here too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_cv.data.input_pipeline.sampler import Order
from edge_cv.recipe import Augment

ATTEMPTS = 10  # windows tried before the fallback, as torchvision's RandomResizedCrop
FILL = 128.0  # of the corners that a turned or shifted image leaves
OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast"),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)

# Principal components of RGB over ImageNet's training set, pixels 0..1: Krizhevsky's, as in his cuda-convnet.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
)
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow

Draws = dict[str, np.ndarray]


def draw(augment: Augment, order: Order, epoch: int, step: int, size: int) -> Draws:
    """The random numbers of this host's batch, each array `(batch_size, ...)`, only those that `augment` needs.

    Each operation draws from a generator of its own, so that switching one on leaves the others' numbers alone. The
    numbers are those of the global batch: several hosts together get what one would get.
    """
    count = order.batch_size * order.shard_count

    def generator(tag: int) -> np.random.Generator:
        return np.random.default_rng([order.seed, epoch, tag, step])

    numbers: Draws = {}
    if augment.crop_scale is not None:
        numbers["crop"] = generator(2).random((count, ATTEMPTS + 1, 2))
    if augment.flip:
        numbers["flip"] = generator(3).random(count) < augment.flip
    if augment.randaugment:
        rng = generator(4)
        numbers["operations"] = rng.integers(len(OPERATIONS), size=(count, augment.randaugment))
        numbers["signs"] = rng.choice([-1.0, 1.0], (count, augment.randaugment))
    jitter = np.array([augment.brightness, augment.contrast, augment.saturation, augment.hue])
    if jitter.any():
        numbers["jitter"] = np.array([1.0, 1, 1, 0]) + jitter * generator(5).uniform(-1, 1, (count, 4))
    if augment.lighting:
        strengths = generator(6).normal(0, augment.lighting, (count, 3))
        numbers["lighting"] = 255 * (strengths * _EIGENVALUES) @ _EIGENVECTORS.T
    if augment.erasing:
        rng = generator(7)
        erased = rng.random(count) < augment.erasing
        windows = random_windows(rng.random((count, ATTEMPTS + 1, 2)), (0.02, 1 / 3), (0.3, 3.3), size, size)
        numbers["erased"] = np.where(erased[:, None], windows, 0)
        numbers["colour"] = rng.integers(256, size=(count, 3))
    if augment.mixup or augment.cutmix:
        own, box = _shares(augment, generator(8), -(-count // 2), size)
        # the two of a pair exchange the same share, so that together they keep all of both
        numbers["own"], numbers["box"] = own.repeat(2)[:count], box.repeat(2, axis=0)[:count]
    return {name: _compact(values[order.rows]) for name, values in numbers.items()}


def _shares(augment: Augment, rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much each keeps of itself `(count,)`, and which box it takes from its partner, `(count, 4)` or empty."""
    alphas = augment.mixup, augment.cutmix
    cut = rng.random(count) < 0.5 if all(alphas) else np.full(count, bool(augment.cutmix))
    mixed, kept = (rng.beta(alpha, alpha, count) if alpha else np.ones(count) for alpha in alphas)
    side, centre = np.sqrt(1 - kept)[:, None], rng.random((count, 2))
    low, high = (np.clip(np.rint(size * (centre + part * side)), 0, size) for part in (-0.5, 0.5))
    box = np.where(cut[:, None], np.concatenate([low, high - low], 1), 0)
    return np.where(cut, 1 - box[:, 2] * box[:, 3] / size**2, mixed), box


def _compact(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == bool else values.astype(np.int32 if values.dtype.kind == "i" else np.float32)


def windows(augment: Augment, numbers: Draws, heights: Any, widths: Any) -> np.ndarray:
    """Which part of each upright photo is taken, int32 `(batch, 4)` of top, left, height, width in pixels.

    Args:
        augment: range of area and aspect ratio.
        numbers: the batch's.
        heights, widths: of the photos, int `(batch,)`, or a number for a batch of one.
    """
    if augment.crop_scale is not None:
        return random_windows(numbers["crop"], augment.crop_scale, augment.crop_ratio, heights, widths)
    heights, widths = np.atleast_1d(heights), np.atleast_1d(widths)
    side = np.minimum(heights, widths)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], 1).astype(np.int32)


def random_windows(
    uniform: np.ndarray, scale: tuple[float, ...], ratio: tuple[float, ...], heights: Any, widths: Any
) -> np.ndarray:
    """Windows as torchvision's RandomResizedCrop takes them, int32 `(batch, 4)` of top, left, height, width.

    The first of ten that fit; where none fits, the largest central one whose aspect ratio is allowed.

    Args:
        uniform: numbers in 0..1 `(batch, 11, 2)`: ten of area and aspect ratio, one of position.
        scale: share of the area, least and most.
        ratio: width over height, least and most; its logarithm is uniform.
        heights, widths: of the photos, int `(batch,)` or a number.
    """
    rows = np.arange(len(uniform))
    heights, widths = (np.broadcast_to(lengths, len(rows)) for lengths in (heights, widths))
    areas = (heights * widths)[:, None] * (scale[0] + (scale[1] - scale[0]) * uniform[:, :-1, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    roots = np.exp((low + (high - low) * uniform[:, :-1, 1]) / 2)  # of the aspect ratios
    sides = np.sqrt(areas)
    w, h = np.rint(sides * roots), np.rint(sides / roots)
    fits = (w > 0) & (h > 0) & (w <= widths[:, None]) & (h <= heights[:, None])
    first = fits.argmax(1)
    w, h = w[rows, first], h[rows, first]
    top = np.floor(uniform[:, -1, 0] * (heights - h + 1))
    left = np.floor(uniform[:, -1, 1] * (widths - w + 1))
    found = np.stack([top, left, h, w], 1)
    for row in np.flatnonzero(~fits[rows, first]):
        h = max(1, round(min(heights[row], widths[row] / ratio[0])))
        w = max(1, round(min(widths[row], heights[row] * ratio[1])))
        found[row] = (heights[row] - h) // 2, (widths[row] - w) // 2, h, w
    return found.astype(np.int32)


def smooth(targets: np.ndarray, share: float, multi_label: bool) -> np.ndarray:
    """Targets `(batch, classes)` of which `share` is given to all classes alike; to yes and no for `multi_label`."""
    if not share:
        return targets
    return (targets * (1 - share) + share / (2 if multi_label else targets.shape[1])).astype(np.float32)


# ------------------------------------------------------------------------------- pixels, in keras.ops on any backend


def changes(augment: Augment) -> bool:
    """Whether `change` has anything to do."""
    jitter = augment.brightness or augment.contrast or augment.saturation or augment.hue
    return bool(augment.randaugment or jitter or augment.lighting or augment.erasing)


def change(image: Any, numbers: dict[str, Any], augment: Augment) -> Any:
    """Steps 3 to 6 on one image.

    Args:
        image: uint8 `(height, width, 3)`, already cropped and flipped.
        numbers: the image's row of each of the batch's numbers.
        augment: which steps there are.

    Returns:
        uint8 of the same shape.
    """
    from keras import ops

    image = ops.cast(image, "float32")
    for nth in range(augment.randaugment):
        image = _operate(image, numbers["operations"][nth], numbers["signs"][nth], augment.magnitude / 30)
    if "jitter" in numbers:
        for nth, jitter in enumerate((brightness, contrast, saturation, hue)):
            if getattr(augment, jitter.__name__):
                image = jitter(image, numbers["jitter"][nth])
    if "lighting" in numbers:
        image = image + numbers["lighting"]
    if "erased" in numbers:
        inside = _inside(image, numbers["erased"])
        image = ops.where(inside, ops.cast(numbers["colour"], "float32"), image)
    return _to_uint8(image)


def mix(images: Any, targets: Any, numbers: dict[str, Any]) -> tuple[Any, Any]:
    """Step 8: each image with the other one of its pair, the first with the second, the third with the fourth.

    The batch is shuffled, so any pairing is as good as any other; with this one the parts of several hosts are what one
    would have. Each pair has a share of its own. The last one of an odd number stays as it is.

    Args:
        images: uint8 `(batch, height, width, 3)`.
        targets: float32 `(batch, classes)`.
        numbers: the batch's.

    Returns:
        Images and targets of the same shapes and types.
    """
    from keras import ops

    count = images.shape[0]
    partner = np.minimum(np.arange(count) ^ 1, count - 1)
    own, box = numbers["own"], numbers["box"]
    images = ops.cast(images, "float32")
    others = ops.take(images, partner, axis=0)
    cut = ops.reshape(box[:, 2] * box[:, 3] > 0, (-1, 1, 1, 1))
    share = ops.reshape(own, (-1, 1, 1, 1))
    mixed = ops.where(cut, images, share * images + (1 - share) * others)
    mixed = ops.where(_inside(images, box), others, mixed)
    own = ops.reshape(own, (-1, 1))
    return _to_uint8(mixed), own * targets + (1 - own) * ops.take(targets, partner, axis=0)


def brightness(image: Any, factor: Any) -> Any:
    """Times `factor`, as Pillow's ImageEnhance.Brightness."""
    return _clip(image * factor)


def contrast(image: Any, factor: Any) -> Any:
    """The distance from the mean grey times `factor`, as Pillow's ImageEnhance.Contrast."""
    from keras import ops

    return _blend(ops.mean(_grey(image)), image, factor)


def saturation(image: Any, factor: Any) -> Any:
    """The distance from grey times `factor`, as Pillow's ImageEnhance.Color."""
    return _blend(_grey(image), image, factor)


def hue(image: Any, turn: Any) -> Any:
    """The hue turned by a part of a whole turn, in HSV."""
    from keras import ops

    hsv = ops.image.rgb_to_hsv(image / 255)
    turned = ops.mod(hsv[..., :1] + turn, 1.0)
    return 255 * ops.image.hsv_to_rgb(ops.concatenate([turned, hsv[..., 1:]], axis=-1))


def sharpness(image: Any, factor: Any) -> Any:
    """The distance from a smoothed copy times `factor`, as Pillow's ImageEnhance.Sharpness; the edge stays."""
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
    """Each channel stretched to 0..255, as Pillow's ImageOps.autocontrast."""
    from keras import ops

    low, high = ops.min(image, axis=(0, 1), keepdims=True), ops.max(image, axis=(0, 1), keepdims=True)
    span = high - low
    return ops.where(span > 0, (image - low) * (255 / ops.maximum(span, 1.0)), image)


def equalize(image: Any) -> Any:
    """Each channel's histogram made even, as Pillow's ImageOps.equalize."""
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
    """The image turned, sheared or shifted about its centre, bilinear; `FILL` where there is nothing.

    Args:
        image: float32 `(height, width, 3)`.
        matrix: a, b, c, d of the map from a pixel (x, y) of the result, seen from the centre, to one of the image:
            (a x + b y, c x + d y).
        shift: x and y in pixels that are added to it.
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


def _operate(image: Any, operation: Any, sign: Any, strength: float) -> Any:
    """One operation of RandAugment, `strength` 0..1, with torchvision's ranges."""
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

    return ops.sum(image * np.float32(_GREY), axis=-1, keepdims=True)


def _blend(without: Any, image: Any, factor: Any) -> Any:
    return _clip(without + factor * (image - without))


def _clip(image: Any) -> Any:
    from keras import ops

    return ops.clip(image, 0, 255)


def _to_uint8(image: Any) -> Any:
    from keras import ops

    return ops.cast(ops.round(_clip(image)), "uint8")


def _inside(images: Any, boxes: Any) -> Any:
    """Which pixels lie in the box (top, left, height, width) of their image: bool `(..., height, width, 1)`."""
    height, width = images.shape[-3:-1]
    top, left, tall, wide = (boxes[..., nth, None, None, None] for nth in range(4))
    row = np.arange(height)[:, None, None]
    column = np.arange(width)[None, :, None]
    return (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)


@functools.cache
def compiled(augment: Augment) -> Callable[[Any, Any, dict[str, Any]], tuple[Any, Any]]:
    """Steps 3 to 8 on a batch, compiled by Keras's backend: images, targets, numbers -> images, targets."""
    import keras
    from keras import ops

    def steps(images: Any, targets: Any, numbers: dict[str, Any]) -> tuple[Any, Any]:
        if changes(augment):
            images = each(lambda given: change(given[0], given[1], augment), (images, numbers))
        return mix(images, targets, numbers) if "own" in numbers else (images, targets)

    if keras.backend.backend() == "jax":
        import jax

        # On a GPU all images at once, though that computes every operation of RandAugment for each.
        each = ops.map if jax.default_backend() == "cpu" else ops.vectorized_map
        return jax.jit(steps)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def each(function: Any, given: Any) -> Any:
            return tf.map_fn(function, given, fn_output_signature=tf.uint8)

        return tf.function(steps)
    each = ops.map
    return steps
