"""Parts of samples: shards for hosts, a split by hashed names, and the check that parts are disjoint."""

from __future__ import annotations

import hashlib
import itertools
import os

import numpy as np

from converters.errors import InputError
from edge_cv.data.samples import Samples


def shard(samples: Samples, index: int, count: int) -> Samples:
    """Part `index` of `count` disjoint parts, one for each host.

    It takes every `count`-th sample, so that the parts have the same classes. The first parts may have one sample more.

    Raises:
        InputError: there is no such part, or there are fewer samples than parts.
    """
    if not 0 <= index < count:
        raise InputError(f"the index of a shard must be in 0..{count - 1}. Received: {index}")
    if len(samples) < count:
        raise InputError(f"{count} shards need as many samples. Received: {len(samples)} in {samples.name}")
    return samples.select(np.arange(index, len(samples), count))


def split_by_name(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Draw a training and a validation part, class by class.

    A hash of the seed and the image's name alone decides each image's part. An image therefore keeps its part when
    images are added or removed, and no model is ever validated on an image that it was trained on before. The price is
    that the share is met only on average. A class of two or more images is in both parts in any case.

    Args:
        samples: with one or several labels an image.
        share: the share of images in the validation part, 0..1.
        seed: decides which images these are.

    Returns:
        The training and the validation part.

    Raises:
        InputError: the share is not between 0 and 1, or there are fewer than two images.
    """
    if not 0 < share < 1:
        raise InputError(f"the share of images for validation must be between 0 and 1. Received: {share}")
    if len(samples) < 2:
        raise InputError(f"a split needs at least two images. Received: {len(samples)} in {samples.name}")
    keys = (samples.places.key(row) for row in samples.rows)
    salt = seed.to_bytes(8, "big", signed=True)
    digests = (int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "big") for key in keys)
    draw = np.fromiter(digests, np.uint64, len(samples))
    validation = draw < np.uint64(int(share * 2**64))
    groups = np.zeros(len(samples), np.int32) if samples.multi_label else samples.labels
    order = np.lexsort((draw, groups))
    bounds = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1, append=groups[order[-1]] + 1))
    for start, stop in itertools.pairwise(bounds):
        if stop - start >= 2:
            validation[order[start]], validation[order[stop - 1]] = True, False
    return samples.select(np.flatnonzero(~validation)), samples.select(np.flatnonzero(validation))


def check_disjoint(train: Samples, validation: Samples) -> None:
    """Raise InputError where an image is in both parts, that is, at the same place in the same file.

    Copies of images in other files are found by `edge_cv.data.check`.
    """
    shared = np.flatnonzero(np.isin(_fingerprints(validation), _fingerprints(train)))
    if len(shared) == len(validation):
        raise InputError(f"the validation set must not be the training set. Received: the same images in {train.name}")
    if len(shared):
        raise InputError(
            f"no image may be in both the training and the validation set. Received: {len(shared)} of "
            f"{len(validation)}, such as {validation.place(shared[0])}"
        )


def _fingerprints(samples: Samples) -> np.ndarray:
    """A 64-bit hash of each sample's location, uint64 `(n,)`; links to folders and archives are followed."""
    real: dict[bytes, bytes] = {}

    def fingerprint(location: bytes) -> int:
        folder, _, name = location.rpartition(b"/")
        if folder not in real:
            real[folder] = os.path.realpath(folder) + b"/"
        return int.from_bytes(hashlib.blake2b(real[folder] + name, digest_size=8).digest(), "big")

    locations = map(samples.places.location, samples.rows)
    return np.fromiter(map(fingerprint, locations), np.uint64, len(samples))
