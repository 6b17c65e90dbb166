"""Augmentation of training images, defined once for every backend of Keras.

The steps, for each image:

1. crop: a window of random area and aspect ratio (Szegedy et al. 2014, "Inception"), resized to the input;
2. horizontal flip;
3. RandAugment (Cubuk et al. 2019);
4. colour jitter: brightness, contrast, saturation, hue;
5. PCA lighting (Krizhevsky et al. 2012);
6. random erasing of a rectangle (Zhong et al. 2017);
7. label smoothing (Szegedy et al. 2015);
8. Mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) with the other image of a pair.

All random numbers come from `draws.draw`; the steps are functions of pixels and these numbers. 1 and 2 happen where
images are decoded, 7 where targets are made; 3 to 6 are `change` and 8 is `mix`, in `keras.ops`, on the device that
trains: as a part of the compiled train step, or by `compiled` for a batch to look at.

Keras's own layers of the same names are not used: their random numbers come from a counter that a parallel map
increments in any order and that cannot be set to a step; RandAugment applies all eleven operations to every image, and
one choice to the whole batch; CutMix's targets are those of a rectangle that is not rounded to pixels. Their operations
on pixels (HSV) are used here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_cv.data.input_pipeline.image_operations import (
    GREY_WEIGHTS,
    brightness,
    clip,
    contrast,
    hue,
    randaugment,
    saturation,
)
from edge_cv.recipe import Augment

PIXELS = "pixels"  # the name of the images beside the random numbers in the inputs of a train step
_OF_PAIRS = ("kept", "box")  # the random numbers of `mix`


def changes(augment: Augment) -> bool:
    """Whether `change` does anything."""
    jitter = augment.brightness or augment.contrast or augment.saturation or augment.hue
    return bool(augment.randaugment or jitter or augment.lighting or augment.erasing)


def change(images: Any, draws: dict[str, Any], augment: Augment, *, lazy: bool = False) -> Any:
    """Steps 3 to 6 on images.

    Args:
        images: uint8 `(n, height, width, channels)`, already cropped and flipped. Grey images are changed as RGB ones
            of three equal channels, and become grey again.
        draws: the random numbers, `(n, ...)` each.
        augment: the steps.
        lazy: as for `randaugment`.

    Returns:
        uint8 of the same shape.
    """
    from keras import ops

    images, grey = ops.cast(images, "float32"), images.shape[-1] == 1
    images = ops.repeat(images, 3, axis=-1) if grey else images
    for nth in range(augment.randaugment):
        operations, signs = draws["operations"][:, nth], draws["signs"][:, nth]
        images = randaugment(images, operations, signs, augment.magnitude / 30, lazy=lazy)
    if "jitter" in draws:
        for nth, jitter in enumerate((brightness, contrast, saturation, hue)):
            if getattr(augment, jitter.__name__):
                images = jitter(images, draws["jitter"][:, nth, None, None, None])
    if "lighting" in draws:
        images = images + draws["lighting"][:, None, None, :]
    if "erased" in draws:
        inside = _inside(images, draws["erased"])
        images = ops.where(inside, ops.cast(draws["colour"], "float32")[:, None, None, :], images)
    if grey:
        images = ops.sum(images * ops.convert_to_tensor(GREY_WEIGHTS, "float32"), axis=-1, keepdims=True)
    return _to_uint8(images)


def mix(images: Any, targets: Any, draws: dict[str, Any]) -> tuple[Any, Any]:
    """Step 8: mix the first image with the second, the third with the fourth, and so on.

    The batch is shuffled, so the pairing is arbitrary; with this one, several hosts get the pairs of one. Each pair has
    its own share. The last image of an odd number is unchanged.

    Args:
        images: uint8 `(batch, height, width, channels)`.
        targets: float32 `(batch, classes)`.
        draws: the batch's random numbers.

    Returns:
        Images and targets of the same shapes and types.
    """
    from keras import ops

    count = images.shape[0]
    partner = np.minimum(np.arange(count) ^ 1, count - 1)
    kept, box = draws["kept"], draws["box"]
    images = ops.cast(images, "float32")
    others = ops.take(images, partner, axis=0)
    cut = ops.reshape(box[:, 2] * box[:, 3] > 0, (-1, 1, 1, 1))
    share = ops.reshape(kept, (-1, 1, 1, 1))
    mixed = ops.where(cut, images, share * images + (1 - share) * others)
    mixed = ops.where(_inside(images, box), others, mixed)
    kept = ops.reshape(kept, (-1, 1))
    return _to_uint8(mixed), kept * targets + (1 - kept) * ops.take(targets, partner, axis=0)


def augmented(images: Any, targets: Any, draws: dict[str, Any], augment: Augment) -> tuple[Any, Any]:
    """Steps 3 to 8 on a batch, in operations that every backend compiles, also as a part of a train step.

    Args:
        images: uint8 `(batch, height, width, channels)`, already cropped and flipped.
        targets: float32 `(batch, classes)`, already smoothed.
        draws: the batch's random numbers except those of steps 1 and 2 (`of_device`).
        augment: the steps.

    Returns:
        Images and targets of the same shapes and types.
    """
    if changes(augment):
        of_images = {name: values for name, values in draws.items() if name not in _OF_PAIRS}
        images = _one_by_one(images, of_images, augment) if _on_cpu() else change(images, of_images, augment)
    return mix(images, targets, draws) if "kept" in draws else (images, targets)


def of_device(draws: dict[str, Any]) -> dict[str, Any]:
    """The random numbers of steps 3 to 8."""
    return {name: values for name, values in draws.items() if name not in ("crop", "flip")}


@functools.cache
def compiled(augment: Augment) -> Callable[[Any, Any, dict[str, Any]], tuple[Any, Any]]:
    """`augmented`, compiled by Keras's backend."""
    import keras

    steps = functools.partial(augmented, augment=augment)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(steps)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(steps)
    return steps


def _one_by_one(images: Any, draws: dict[str, Any], augment: Augment) -> Any:
    """`change`, which on a CPU computes for each image only the groups of operations that it needs."""
    import keras

    def one(given: tuple[Any, dict[str, Any]]) -> Any:
        image, draws_of_image = given
        return change(image[None], {n: values[None] for n, values in draws_of_image.items()}, augment, lazy=True)[0]

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.map_fn(one, (images, draws), fn_output_signature=tf.uint8)
    return keras.ops.map(one, (images, draws))


def _on_cpu() -> bool:
    import keras

    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def _to_uint8(image: Any) -> Any:
    from keras import ops

    return ops.cast(ops.round(clip(image)), "uint8")


def _inside(images: Any, boxes: Any) -> Any:
    """Whether each pixel is in the box (top, left, height, width) of its image: bool `(..., height, width, 1)`."""
    height, width = images.shape[-3:-1]
    top, left, tall, wide = (boxes[..., nth, None, None, None] for nth in range(4))
    row = np.arange(height)[:, None, None]
    column = np.arange(width)[None, :, None]
    return (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
