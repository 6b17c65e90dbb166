"""The random numbers of training batches, drawn in numpy as a function of seed, epoch, step and row.

A batch is therefore the same on every backend, for any number of threads, and wherever training was resumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_cv.data.input_pipeline.image_operations import OPERATIONS
from edge_cv.data.input_pipeline.sampler import Sampler
from edge_cv.recipe import Augment

ATTEMPTS = 10  # windows before the fallback, as in torchvision's RandomResizedCrop

# Principal components of RGB over ImageNet's training set, pixels 0..1 (Krizhevsky's cuda-convnet).
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
)

Draws = dict[str, np.ndarray]


def draw(augment: Augment, sampler: Sampler, epoch: int, step: int, size: int | tuple[int, int]) -> Draws:
    """Draw the random draws of this host's batch.

    Each operation has its own generator, so that switching one on does not change the others. The numbers are drawn
    for the global batch: several hosts together get the numbers of one.

    Args:
        augment: the operations.
        sampler: seed, batch size and host.
        epoch, step: the batch.
        size: height and width of the images, in pixels; one number for squares.

    Returns:
        Arrays `(batch_size, ...)` by name, only those that `augment` needs.
    """
    count = sampler.batch_size * sampler.shard_count
    height, width = (size, size) if isinstance(size, int) else size

    def generator(tag: int) -> np.random.Generator:
        return np.random.default_rng([sampler.seed, epoch, tag, step])

    draws: Draws = {}
    if augment.crop_scale is not None:
        draws["crop"] = generator(2).random((count, ATTEMPTS + 1, 2))
    if augment.flip:
        draws["flip"] = generator(3).random(count) < augment.flip
    if augment.randaugment:
        rng = generator(4)
        draws["operations"] = rng.integers(len(OPERATIONS), size=(count, augment.randaugment))
        draws["signs"] = rng.choice([-1.0, 1.0], (count, augment.randaugment))
    jitter = np.array([augment.brightness, augment.contrast, augment.saturation, augment.hue])
    if jitter.any():
        draws["jitter"] = np.array([1.0, 1, 1, 0]) + jitter * generator(5).uniform(-1, 1, (count, 4))
    if augment.lighting:
        strengths = generator(6).normal(0, augment.lighting, (count, 3))
        draws["lighting"] = 255 * (strengths * _EIGENVALUES) @ _EIGENVECTORS.T
    if augment.erasing:
        rng = generator(7)
        erased = rng.random(count) < augment.erasing
        windows = random_windows(rng.random((count, ATTEMPTS + 1, 2)), (0.02, 1 / 3), (0.3, 3.3), height, width)
        draws["erased"] = np.where(erased[:, None], windows, 0)
        draws["colour"] = rng.integers(256, size=(count, 3))
    if augment.mixup or augment.cutmix:
        kept, box = _mix_shares(augment, generator(8), -(-count // 2), (height, width))
        # both images of a pair use the same share, so that together they keep all of both
        draws["kept"], draws["box"] = kept.repeat(2)[:count], box.repeat(2, axis=0)[:count]
    return {name: _compact(values[sampler.rows]) for name, values in draws.items()}


def _mix_shares(
    augment: Augment, rng: np.random.Generator, count: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The share that each image of a pair keeps `(count,)`, and the box from the other `(count, 4)` (0 for Mixup)."""
    alphas = augment.mixup, augment.cutmix
    cut = rng.random(count) < 0.5 if all(alphas) else np.full(count, bool(augment.cutmix))
    mixed, kept = (rng.beta(alpha, alpha, count) if alpha else np.ones(count) for alpha in alphas)
    side, centre = np.sqrt(1 - kept)[:, None], rng.random((count, 2))
    sides = np.array(size)
    low, high = (np.clip(np.rint(sides * (centre + part * side)), 0, sides) for part in (-0.5, 0.5))
    box = np.where(cut[:, None], np.concatenate([low, high - low], 1), 0)
    return np.where(cut, 1 - box[:, 2] * box[:, 3] / sides.prod(), mixed), box


def _compact(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == bool else values.astype(np.int32 if values.dtype.kind == "i" else np.float32)


def windows(augment: Augment, draws: Draws, heights: Any, widths: Any, shape: Sequence[int] = (1, 1)) -> np.ndarray:
    """The crop of each upright photo.

    Args:
        augment: ranges of area and aspect ratio.
        draws: of the batch.
        heights, widths: of the photos, int `(batch,)`, or a number for a batch of one.
        shape: begins with height and width of the images that the crops become. The ranges of the aspect ratio are for
            a square, and are multiplied by width / height.

    Returns:
        int32 `(batch, 4)`: top, left, height, width in pixels.
    """
    tall, wide = shape[:2]
    if augment.crop_scale is not None:
        ratio = tuple(value * wide / tall for value in augment.crop_ratio)
        return random_windows(draws["crop"], augment.crop_scale, ratio, heights, widths)
    heights, widths = np.atleast_1d(heights), np.atleast_1d(widths)
    height = np.maximum(1, np.minimum(heights, widths * tall // wide))
    width = np.maximum(1, np.minimum(widths, heights * wide // tall))
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], 1).astype(np.int32)


def random_windows(
    uniform: np.ndarray, scale: tuple[float, ...], ratio: tuple[float, ...], heights: Any, widths: Any
) -> np.ndarray:
    """Random crops as in torchvision's RandomResizedCrop.

    The first of ten candidates that fits; where none fits, the largest central crop with an allowed aspect ratio.

    Args:
        uniform: numbers in 0..1 `(batch, 11, 2)`: ten pairs for area and aspect ratio, one for the position.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height; its logarithm is uniform.
        heights, widths: of the photos, int `(batch,)` or a number.

    Returns:
        int32 `(batch, 4)`: top, left, height, width in pixels.
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
    chosen = np.stack([top, left, h, w], 1)
    for row in np.flatnonzero(~fits[rows, first]):
        h = max(1, round(min(heights[row], widths[row] / ratio[0])))
        w = max(1, round(min(widths[row], heights[row] * ratio[1])))
        chosen[row] = (heights[row] - h) // 2, (widths[row] - w) // 2, h, w
    return chosen.astype(np.int32)


def smooth(targets: np.ndarray, share: float, multi_label: bool) -> np.ndarray:
    """Targets `(batch, classes)` with `share` spread over all classes, or over 0 and 1 for `multi_label`."""
    if not share:
        return targets
    return (targets * (1 - share) + share / (2 if multi_label else targets.shape[1])).astype(np.float32)
