"""Labelled images with random access: what every source of photos, to train or to measure on, is opened as."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from dataclasses import dataclass

import numpy as np

from converters.errors import InputError
from edge_cv.data.places import Place, Places

UNKNOWN = -1  # the label of an image of which nobody says what it shows


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images in a fixed order: a table that is made from names, headers and indices, without reading an image.

    It lies flat in memory: 1.3 million photos take some tens of megabytes. It can be pickled, and read by several
    threads at once.

    Attributes:
        name: for logs and reports.
        classes: the class names in order; empty where no image has a label.
        labels: int32 `(n,)`, -1 where the class is not known; with any number of labels an image bool `(n, classes)`.
        places: where the images lie.
        rows: int `(n,)`, which of the places each sample has.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    places: Places
    rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.places), dtype=np.int32))
        self._check()

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.rows)

    def encoded(self, index: int) -> bytes:
        """The image as it is stored (JPEG, PNG, ...).

        Raises:
            ImageError: it cannot be read.
        """
        return self.place(index).read()

    def place(self, index: int) -> Place:
        """Where the image lies: a `FilePart` (path, offset, length) where a native reader can take it from a file."""
        return self.places.place(self.rows[index])

    def select(self, indices: np.ndarray) -> Samples:
        """The samples at these places, int `(m,)`, in that order."""
        return dataclasses.replace(self, labels=self.labels[indices], rows=self.rows[indices])

    def take(self, count: int | None) -> Samples:
        """`count` of the samples, evenly spread over all of them; None or too many is all.

        Spread, because folders come class by class: the first hundred of ImageNet would all be fish.
        """
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise InputError(f"the number of photos must be at least 1. Received: {count}")
        return self.select(np.arange(count) * len(self) // count)

    def _check(self) -> None:
        labels, classes = self.labels, len(self.classes)
        shape, dtype = ((len(self), classes), bool) if self.multi_label else ((len(self),), np.int32)
        if not len(self):
            raise InputError(f"{self.name} must hold at least one photo. Received: none")
        if labels.dtype != dtype or labels.shape != shape:
            raise InputError(f"labels must be {np.dtype(dtype).name} {shape}. Received: {labels.dtype} {labels.shape}")
        outside = np.flatnonzero((labels < UNKNOWN) | (labels >= classes)) if not self.multi_label else ()
        if len(outside):
            raise InputError(
                f"a label must be in 0..{classes - 1}, for {classes} classes. "
                f"Received: {labels[outside[0]]} for {self.place(outside[0])}"
            )


def shard(samples: Samples, index: int, count: int) -> Samples:
    """Part `index` of `count` parts that share no sample and together are all of them: each host of several takes one.

    Every `count`-th sample, so that the parts have the same classes; the first ones may have one sample more.

    Raises:
        InputError: no such part, or there are fewer samples than parts.
    """
    if not 0 <= index < count:
        raise InputError(f"the index of a shard must be in 0..{count - 1}. Received: {index}")
    if len(samples) < count:
        raise InputError(f"{count} shards need as many samples. Received: {len(samples)} in {samples.name}")
    return samples.select(np.arange(index, len(samples), count))


def split_by_name(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """A training and a validation part, drawn class by class.

    Each image's part is decided by a hash of the seed and its name alone. So an image keeps its part when others are
    added or taken away, and nothing that a model was trained on is ever measured on later; the price is that the share
    is met on average and not to the image. A class of two or more images is in both parts, whatever the hash says.

    Args:
        samples: with one label an image, or several.
        share: of the images that go to validation, 0..1.
        seed: another one draws other images.

    Raises:
        InputError: the share is not between 0 and 1, or there are too few images.
    """
    if not 0 < share < 1:
        raise InputError(f"the share of images for validation must be between 0 and 1. Received: {share}")
    if len(samples) < 2:
        raise InputError(f"two images are the least that can be split. Received: {len(samples)} in {samples.name}")
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


def with_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    """The samples with their labels counted by other class names, among which must be all that have an image.

    Raises:
        InputError: a class that is not among `classes`, or a name that stands for two.
    """
    if tuple(samples.classes) == tuple(classes):
        return samples
    positions = {name: index for index, name in enumerate(classes)}
    used = np.flatnonzero(class_counts(samples))
    names = [samples.classes[index] for index in used]
    missing = [name for name in names if name not in positions]
    if missing:
        raise InputError(f"{samples.name} has images of classes that are not wanted: {some(missing)}")
    if len(set(names)) < len(names) or len(positions) < len(classes):
        raise InputError(f"class names must differ to be matched. Received: {samples.name} with names that repeat")
    target = np.array([positions[name] for name in names], np.int64)
    if samples.multi_label:
        labels = np.zeros((len(samples), len(classes)), bool)
        labels[:, target] = samples.labels[:, used]
    else:
        table = np.full(len(samples.classes) + 1, UNKNOWN, np.int32)  # the last one is UNKNOWN's
        table[used] = target
        labels = table[samples.labels]
    return dataclasses.replace(samples, classes=tuple(classes), labels=labels)


def check_trainable(samples: Samples) -> None:
    """Raise InputError where a classifier cannot learn: fewer than two classes, one without an image, or no labels."""
    if not samples.multi_label and (samples.labels == UNKNOWN).any():
        without = int(np.argmax(samples.labels == UNKNOWN))
        raise InputError(f"each image to train on must have a label. Received: {samples.place(without)} without one")
    if len(samples.classes) < (1 if samples.multi_label else 2):
        raise InputError(f"a classifier needs at least two classes. Received: {len(samples.classes)} in {samples.name}")
    empty = np.flatnonzero(class_counts(samples) == 0)
    if len(empty):
        raise InputError(
            f"{samples.name}: each of the {len(samples.classes)} classes must have an image to train on. "
            f"Received: none for {some([samples.classes[i] for i in empty])} (see `classes_to_train`)"
        )


def check_disjoint(train: Samples, validation: Samples) -> None:
    """Raise InputError where images that are trained on would be measured on: the same places in the same files.

    Copies of images in other files are found by `edge-cv data check`.
    """
    shared = np.flatnonzero(np.isin(_fingerprints(validation), _fingerprints(train)))
    if len(shared) == len(validation):
        raise InputError(f"the validation set must not be the training set. Received: the same images in {train.name}")
    if len(shared):
        raise InputError(
            f"no image may be in both the training and the validation set. Received: {len(shared)} of "
            f"{len(validation)}, such as {validation.place(shared[0])}"
        )


def class_counts(samples: Samples) -> np.ndarray:
    """The number of images of each class, int64 `(classes,)`."""
    if samples.multi_label:
        return samples.labels.sum(axis=0, dtype=np.int64)
    return np.bincount(samples.labels[samples.labels >= 0], minlength=len(samples.classes))


def some(names: list[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _fingerprints(samples: Samples) -> np.ndarray:
    """64 bits of each sample's location, uint64 `(n,)`; links to folders and archives are followed."""
    real: dict[bytes, bytes] = {}

    def fingerprint(location: bytes) -> int:
        folder, _, name = location.rpartition(b"/")
        if folder not in real:
            real[folder] = os.path.realpath(folder) + b"/"
        return int.from_bytes(hashlib.blake2b(real[folder] + name, digest_size=8).digest(), "big")

    locations = map(samples.places.location, samples.rows)
    return np.fromiter(map(fingerprint, locations), np.uint64, len(samples))
