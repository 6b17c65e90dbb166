"""From an image file to the crop for training, by Pillow, and the replacement of broken files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from converters.errors import InputError
from converters.images.decoding import ImageError, decode_image
from edge_cv.data.input_pipeline.draws import Draws, draw, smooth, windows
from edge_cv.data.input_pipeline.jpeg import read_header
from edge_cv.data.input_pipeline.sampler import Sampler
from edge_cv.recipe import Augment

logger = logging.getLogger(__name__)

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the crop's sides are then still this many times the result's:
# Pillow's `reducing_gap`. Its documentation calls 3.0 indistinguishable from exact resampling, and 2.0 close.
REDUCING_GAP = 2.0
ATTEMPTS = 1000  # consecutive images that cannot be read before an error is raised


class Encoded(Protocol):
    """The part of `Samples` that training uses: labels and encoded images."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def multi_label(self) -> bool: ...

    @property
    def labels(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes: ...


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """All that determines a batch, except the pixels. It can be pickled.

    Attributes:
        samples: the images and their labels.
        sampler: assigns images to batches.
        augment: the augmentation.
        shape: `(height, width, channels)` of the batches' images.
    """

    samples: Encoded
    sampler: Sampler
    augment: Augment
    shape: tuple[int, int, int]

    def draws(self, epoch: int, step: int) -> Draws:
        """The random numbers of a batch."""
        return draw(self.augment, self.sampler, epoch, step, self.shape[:2])

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """Smoothed targets of the images at these indices, float32 `(batch, classes)`."""
        samples = self.samples
        targets = one_hot(samples.labels[indices], len(samples.classes))
        return smooth(targets, self.augment.label_smoothing, samples.multi_label)


@dataclass(frozen=True, eq=False)
class BrokenImages:
    """The images that cannot be read; each is logged once.

    Attributes:
        samples: the images.
        reasons: the reason by the image's index.
        quiet: whether nothing is logged.
    """

    samples: Any
    reasons: dict[int, str] = field(default_factory=dict)
    quiet: bool = False

    def add(self, index: int, why: str) -> None:
        if index in self.reasons:
            return
        self.reasons[index] = why
        if not self.quiet:
            logger.warning("%s is replaced by another image: %s", self.name(index), why)

    def name(self, index: int) -> str:
        """What a person finds an image by: its path, or its number in images without a path."""
        path = getattr(self.samples, "path", None)
        return f"image {index} of {self.samples.name}" if path is None else str(path(index))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets, float32 `(n, classes)`, of labels `(n,)`, or of labels `(n, classes)` of 0 and 1."""
    return np.asarray(labels if labels.ndim == 2 else labels[:, None] == np.arange(classes), np.float32)


def first_readable(
    plan: BatchPlan, epoch: int, step: int, row: int, read: Callable[[int], Any], broken: BrokenImages
) -> tuple[int, Any]:
    """Read the image of a row of a batch, or the next one in the epoch's order that can be read.

    Args:
        plan: of the batches.
        epoch, step, row: the image's position.
        read: reads the image at an index; raises ImageError or OSError for a broken one.
        broken: collects the images that cannot be read.

    Returns:
        The image's index and the result of `read`.

    Raises:
        InputError: no image can be read.
    """
    tries = min(ATTEMPTS, plan.sampler.count)
    for nth in range(tries):
        index = plan.sampler.following(epoch, step, row, nth)
        if index in broken.reasons:
            continue
        try:
            return index, read(index)
        except (InputError, OSError) as error:
            broken.add(index, error.why if isinstance(error, ImageError) else str(error))
    raise InputError(
        f"{plan.samples.name} must hold images that can be read. Received: {tries} consecutive ones that cannot, "
        f"the last: {broken.name(list(broken.reasons)[-1])}: {list(broken.reasons.values())[-1]}"
    )


def crop(content: bytes, draws: Draws, augment: Augment, shape: tuple[int, int, int]) -> np.ndarray:
    """Steps 1 and 2 of augmentation (crop and flip) on one image file, by Pillow, antialiased.

    Args:
        content: of the file.
        draws: the image's row of the batch's random numbers (`row_of`).
        augment: ranges of the crop.
        shape: `(height, width, channels)` of the result; one channel is grey.

    Returns:
        uint8 of that shape.

    Raises:
        ImageError: the content cannot be read as an image.
    """
    header = read_header(content)
    if header is None:
        return crop_of_image(decode_image(content), draws, augment, shape)
    turned = header.orientation > 4
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    (window,) = windows(augment, draws, height, width, shape)
    reduce = reduction(window, shape)
    return _resized(decode_image(content, reduce=reduce), window / reduce, draws, shape)


def crop_of_image(image: Image.Image, draws: Draws, augment: Augment, shape: tuple[int, int, int]) -> np.ndarray:
    """As `crop`, for an upright Pillow image, RGB or grey."""
    (window,) = windows(augment, draws, image.height, image.width, shape)
    return _resized(image, window, draws, shape)


def _resized(image: Image.Image, window: np.ndarray, draws: Draws, shape: tuple[int, int, int]) -> np.ndarray:
    top, left, height, width = (float(value) for value in window)
    box = left, top, min(left + width, image.width), min(top + height, image.height)
    image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=box)  # antialiased
    if "flip" in draws and draws["flip"][0]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # ten times faster than numpy
    return np.asarray(image.convert("RGB" if shape[2] == 3 else "L")).reshape(shape)


def reduction(window: Sequence[int] | np.ndarray, size: int | Sequence[int]) -> int:
    """The factor, 1, 2, 4 or 8, by which a JPEG may be reduced while it is decoded.

    Args:
        window: top, left, height and width of the crop, in pixels.
        size: of the result: one number for a square, or a sequence that begins with height and width.
    """
    height, width = (size, size) if isinstance(size, int) else size[:2]
    room = min(window[2] / height, window[3] / width) / REDUCING_GAP
    return 8 if room >= 8 else 4 if room >= 4 else 2 if room >= 2 else 1


def row_of(draws: Draws, row: int) -> Draws:
    """One image's row of the random numbers, as arrays of one row."""
    return {name: values[row : row + 1] for name, values in draws.items()}
