"""Training images batch by batch, in an order that only the seed and the epoch decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from converters.errors import InputError
from edge_cv.data.order import Order


class Batches(Protocol):
    """Training images batch by batch, in an order that only the seed and the epoch decide.

    Attributes:
        classes: the class names in order.
        batch_size: images a step.
        multi_label: whether an image may have several classes.
    """

    classes: tuple[str, ...]
    batch_size: int
    multi_label: bool

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, number: int, first_step: int = 0) -> Iterable[tuple[Any, Any]]:
        """The batches of one epoch from `first_step` on; nothing before it is read.

        Yields:
            images, uint8 or float32 `(batch, height, width, 3)`, RGB pixels 0..255, and targets, float32
            `(batch, classes)`, whose rows sum to 1 (multi-hot for `multi_label`). Arrays of numpy or of the backend.
        """
        ...


def array_batches(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    batch_size: int,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Batches:
    """Batches of images that are in memory.

    Args:
        images: RGB pixels 0..255 `(n, height, width, 3)`, uint8 or float32.
        labels: int `(n,)`, or `(n, classes)` of 0 and 1 for several labels an image.
        classes: the class names in order.
        batch_size: images a step.
        seed: decides the order.
        shard_index, shard_count: which of how many hosts this is.

    Raises:
        InputError: images and labels that do not fit one another or `classes`.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype not in (np.uint8, np.float32):
        raise InputError(
            f"images must be uint8 or float32 (n, height, width, 3). Received: {images.dtype} {images.shape}"
        )
    if len(labels) != len(images):
        raise InputError(f"there must be one label an image. Received: {len(images)} images, {len(labels)} labels")
    order = Order(len(images), batch_size, seed, shard_index, shard_count)
    return _ArrayBatches(tuple(classes), batch_size, labels.ndim == 2, order, images, one_hot(labels, len(classes)))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Targets, float32 `(n, classes)`, of labels `(n,)`; labels `(n, classes)` of 0 and 1 stay as they are.

    Raises:
        InputError: a label that is no class.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == classes and np.isin(labels, (0, 1)).all():
        return labels.astype(np.float32)
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if not whole or not ((labels >= 0) & (labels < classes)).all():
        raise InputError(
            f"labels must be whole numbers (n,) in 0..{classes - 1}, or 0 and 1 (n, {classes}). "
            f"Received: {labels.dtype} {labels.shape}{f' up to {labels.max()}' if whole and labels.size else ''}"
        )
    return (labels[:, None] == np.arange(classes)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _ArrayBatches:
    classes: tuple[str, ...]
    batch_size: int
    multi_label: bool
    order: Order
    images: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return self.order.steps

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for step in range(first_step, len(self)):
            taken = self.order.indices(number, step)
            yield self.images[taken], self.targets[taken]
