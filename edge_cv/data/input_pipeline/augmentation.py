"""Augmentation of training images, defined once for every backend of Keras.

The steps, for each image:

1. crop: a window of random area and aspect ratio (Szegedy et al. 2014, "Inception"), resized to a square;
2. horizontal flip;
3. RandAugment (Cubuk et al. 2019);
4. colour jitter: brightness, contrast, saturation, hue;
5. PCA lighting (Krizhevsky et al. 2012);
6. random erasing of a rectangle (Zhong et al. 2017);
7. label smoothing (Szegedy et al. 2015);
8. Mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) with the other image of a pair.

All random numbers come from `draws.draw`; the steps are functions of pixels and these numbers. 1 and 2 happen where
images are decoded; 3 to 6 are `change` and 8 is `mix`, in `keras.ops`, which runs in tf.data and under JAX's jit.

Keras's own layers of the same names are not used: their random numbers come from a counter that a parallel map
increments in any order and that cannot be set to a step; RandAugment applies all eleven operations to every image, and
one choice to the whole batch; CutMix's targets are those of a rectangle that is not rounded to pixels. Their operations
on pixels (affine_transform, HSV) are used here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_cv.data.input_pipeline.image_operations import brightness, clip, contrast, hue, randaugment, saturation
from edge_cv.recipe import Augment


def changes(augment: Augment) -> bool:
    """Whether `change` does anything."""
    jitter = augment.brightness or augment.contrast or augment.saturation or augment.hue
    return bool(augment.randaugment or jitter or augment.lighting or augment.erasing)


def change(image: Any, draws: dict[str, Any], augment: Augment) -> Any:
    """Steps 3 to 6 on one image.

    Args:
        image: uint8 `(height, width, 3)`, already cropped and flipped.
        draws: the image's row of each of the batch's random numbers.
        augment: the steps.

    Returns:
        uint8 of the same shape.
    """
    from keras import ops

    image = ops.cast(image, "float32")
    for nth in range(augment.randaugment):
        image = randaugment(image, draws["operations"][nth], draws["signs"][nth], augment.magnitude / 30)
    if "jitter" in draws:
        for nth, jitter in enumerate((brightness, contrast, saturation, hue)):
            if getattr(augment, jitter.__name__):
                image = jitter(image, draws["jitter"][nth])
    if "lighting" in draws:
        image = image + draws["lighting"]
    if "erased" in draws:
        inside = _inside(image, draws["erased"])
        image = ops.where(inside, ops.cast(draws["colour"], "float32"), image)
    return _to_uint8(image)


def mix(images: Any, targets: Any, draws: dict[str, Any]) -> tuple[Any, Any]:
    """Step 8: mix the first image with the second, the third with the fourth, and so on.

    The batch is shuffled, so the pairing is arbitrary; with this one, several hosts get the pairs of one. Each pair has
    its own share. The last image of an odd number is unchanged.

    Args:
        images: uint8 `(batch, height, width, 3)`.
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


@functools.cache
def compiled(augment: Augment) -> Callable[[Any, Any, dict[str, Any]], tuple[Any, Any]]:
    """Steps 3 to 8 on a batch, compiled by Keras's backend: (images, targets, draws) -> (images, targets)."""
    import keras
    from keras import ops

    def steps(images: Any, targets: Any, draws: dict[str, Any]) -> tuple[Any, Any]:
        if changes(augment):
            images = each(lambda given: change(given[0], given[1], augment), (images, draws))
        return mix(images, targets, draws) if "kept" in draws else (images, targets)

    if keras.backend.backend() == "jax":
        import jax

        # On a GPU all images at once, although that computes every operation of RandAugment for each image.
        each = ops.map if jax.default_backend() == "cpu" else ops.vectorized_map
        return jax.jit(steps)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def each(function: Any, given: Any) -> Any:
            return tf.map_fn(function, given, fn_output_signature=tf.uint8)

        return tf.function(steps)
    each = ops.map
    return steps


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
