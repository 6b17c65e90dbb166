"""From an image file to the square that training takes of it, by Pillow; what stands in for a file that is broken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError, decode_image
from edge_cv.data.input_pipeline import augmentation
from edge_cv.data.input_pipeline.jpeg import read_header
from edge_cv.data.input_pipeline.sampler import Order
from edge_cv.recipe import Augment

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# A JPEG is decoded at 1/2, 1/4 or 1/8 where the window then still has this many times the result's pixels along each
# side: Pillow's `reducing_gap`, whose documentation calls 3.0 indistinguishable from a fair resampling, and 2.0 close.
REDUCING_GAP = 2.0
ATTEMPTS = 1000  # images in a row that cannot be read before it is an error


class Encoded(Protocol):
    """What is asked of a source of images here: labels, and each image as it is encoded."""

    name: str
    classes: tuple[str, ...]
    multi_label: bool
    labels: np.ndarray

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes: ...


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """What each batch is to be made of: everything but the pixels. It can be pickled.

    Attributes:
        samples: the images and their labels.
        order: which images make up which batch.
        augment: how they are changed.
        image_size: height and width of the result, in pixels.
    """

    samples: Encoded
    order: Order
    augment: Augment
    image_size: int

    def numbers(self, epoch: int, step: int) -> augmentation.Draws:
        """The random numbers of a batch."""
        return augmentation.draw(self.augment, self.order, epoch, step, self.image_size)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """Smoothed targets of some images, float32 `(batch, classes)`."""
        samples = self.samples
        targets = one_hot(samples.labels[indices], len(samples.classes))
        return augmentation.smooth(targets, self.augment.label_smoothing, samples.multi_label)


@dataclass(frozen=True, eq=False)
class BrokenImages:
    """The images that could not be read, and why; each is logged once.

    Attributes:
        name: of the source.
        reasons: by the image's index.
        quiet: whether nothing is logged.
    """

    name: str
    reasons: dict[int, str] = field(default_factory=dict)
    quiet: bool = False

    def add(self, index: int, why: str) -> None:
        if index in self.reasons:
            return
        self.reasons[index] = why
        if not self.quiet:
            logger.warning("image %d of %s is replaced by another: %s", index, self.name, why)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets, float32 `(n, classes)`, of labels `(n,)`; labels `(n, classes)` of 0 and 1 stay as they are."""
    return np.asarray(labels if labels.ndim == 2 else labels[:, None] == np.arange(classes), np.float32)


def first_readable(
    plan: BatchPlan, epoch: int, step: int, row: int, read: Callable[[int], Any], broken: BrokenImages
) -> tuple[int, Any]:
    """The image of a row of a batch, or the next one in the epoch's order that can be read: its index and its `read`.

    Args:
        plan: of the batches.
        epoch, step, row: which image.
        read: of an image's index; raises ImageError or OSError for an image that is broken.
        broken: where those that cannot be read are counted.

    Raises:
        InputError: none of them can.
    """
    tries = min(ATTEMPTS, plan.order.count)
    for nth in range(tries):
        index = plan.order.following(epoch, step, row, nth)
        if index in broken.reasons:
            continue
        try:
            return index, read(index)
        except (InputError, OSError) as error:
            broken.add(index, error.why if isinstance(error, ImageError) else str(error))
    raise InputError(
        f"{plan.samples.name} must hold images that can be read. Received: {tries} in a row that cannot, "
        f"the last: {list(broken.reasons.values())[-1]}"
    )


def square(content: bytes, numbers: augmentation.Draws, augment: Augment, size: int) -> np.ndarray:
    """Steps 1 and 2 of augmentation on one image file, by Pillow, antialiased.

    Args:
        content: of the file.
        numbers: the image's row of each of the batch's numbers, as arrays of one row.
        augment: ranges of the crop.
        size: height and width of the result, in pixels.

    Returns:
        uint8 `(size, size, 3)`.

    Raises:
        ImageError: it cannot be read as an image.
    """
    header = read_header(content)
    if header is None:
        return square_of_image(decode_image(content), numbers, augment, size)
    turned = header.orientation > 4
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    (window,) = augmentation.windows(augment, numbers, height, width)
    reduce = reduction(window, size)
    return _resized(decode_image(content, reduce=reduce), window / reduce, numbers, size)


def square_of_image(image: Image.Image, numbers: augmentation.Draws, augment: Augment, size: int) -> np.ndarray:
    """As `square`, of an upright Pillow image."""
    (window,) = augmentation.windows(augment, numbers, image.height, image.width)
    return _resized(image, window, numbers, size)


def _resized(image: Image.Image, window: np.ndarray, numbers: augmentation.Draws, size: int) -> np.ndarray:
    top, left, height, width = (float(value) for value in window)
    box = left, top, min(left + width, image.width), min(top + height, image.height)
    image = image.resize((size, size), 2, box=box)  # 2: Image.Resampling.BILINEAR, antialiased
    if "flip" in numbers and numbers["flip"][0]:
        image = image.transpose(0)  # 0: Image.Transpose.FLIP_LEFT_RIGHT, ten times faster than numpy's
    return np.asarray(image)


def reduction(window: Sequence[int] | np.ndarray, size: int) -> int:
    """By how much a JPEG may be reduced while it is decoded: 1, 2, 4 or 8."""
    room = min(window[2], window[3]) / (REDUCING_GAP * size)
    return 8 if room >= 8 else 4 if room >= 4 else 2 if room >= 2 else 1


def row_of(numbers: augmentation.Draws, row: int) -> augmentation.Draws:
    """One image's numbers, as arrays of one row."""
    return {name: values[row : row + 1] for name, values in numbers.items()}
