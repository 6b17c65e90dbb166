"""The order of images in an epoch, a function of seed and epoch alone, shared equally by several hosts."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from converters.errors import InputError


@dataclass(frozen=True)
class Sampler:
    """Assigns images to batches.

    Every image is taken once an epoch; the epoch's first images fill the last batch. Several hosts share each global
    batch of `shard_count * batch_size` images: host i takes the i-th part. All hosts have the same number of steps,
    and their parts together are the batches of one host with that larger batch.

    Attributes:
        count: the number of images.
        batch_size: images a step on this host.
        seed: with the epoch, decides the order.
        shard_index: this host, 0..shard_count - 1.
        shard_count: the number of hosts.
        balanced: the class of each image, int `(count,)`, to take all classes equally often: an epoch has the same
            length, takes one image a class in shuffled rounds, and cycles through each class's images in shuffled
            order. Default: each image is taken once.
    """

    count: int
    batch_size: int
    seed: int
    shard_index: int = 0
    shard_count: int = 1
    balanced: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError("there must be at least one image to train on. Received: none")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1. Received: {self.batch_size}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed must be a whole number of at least 0. Received: {self.seed!r}")
        if not 0 <= self.shard_index < self.shard_count:
            raise InputError(
                f"shard_index must be in 0..shard_count - 1. Received: {self.shard_index} of {self.shard_count}"
            )

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-self.count // (self.batch_size * self.shard_count))

    @property
    def rows(self) -> slice:
        """This host's part of a global batch."""
        return slice(self.shard_index * self.batch_size, (self.shard_index + 1) * self.batch_size)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """The indices of the images in this host's batch, int64 `(batch_size,)`."""
        every = _epoch(self, epoch)
        start = step * self.batch_size * self.shard_count + self.rows.start
        return every[np.arange(start, start + self.batch_size) % self.count]

    def following(self, epoch: int, step: int, row: int, nth: int) -> int:
        """The image `nth` places after a row of the batch in the epoch's order, which replaces broken ones."""
        position = step * self.batch_size * self.shard_count + self.rows.start + row + nth
        return int(_epoch(self, epoch)[position % self.count])


@functools.lru_cache(maxsize=4)
def _shuffled_epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(count)


def _epoch(sampler: Sampler, epoch: int) -> np.ndarray:
    if sampler.balanced is None:
        return _shuffled_epoch(sampler.count, sampler.seed, epoch)
    labels = sampler.balanced
    return _balanced_epoch(sampler.count, sampler.seed, epoch, labels.tobytes(), labels.dtype.str)


@functools.lru_cache(maxsize=4)
def _balanced_epoch(count: int, seed: int, epoch: int, labels: bytes, dtype: str) -> np.ndarray:
    rng = np.random.default_rng([seed, epoch, 1])
    shuffled = rng.permutation(count)
    of = np.frombuffer(labels, dtype)[shuffled]
    by_class = [shuffled[of == label] for label in np.unique(of)]
    rounds = -(-count // len(by_class))
    columns = [np.resize(images, rounds) for images in by_class]
    return rng.permuted(np.stack(columns, axis=1), axis=1).reshape(-1)[:count]
