"""Labelled images with random access: what every source of photos, to train or to measure on, is opened as."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError
from edge_cv.data.pixels import load_pixels
from edge_cv.data.places import Content, Files, Packed, Place, Places
from edge_cv.parallel.threads import map_in_threads

if TYPE_CHECKING:
    from converters.images.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

UNKNOWN = -1  # the label of an image of which nobody says what it shows


_ALL = np.empty(0, np.int32)


@dataclass(frozen=True)
class Sample:
    """One labelled image, light enough to be sent to a worker process.

    Attributes:
        place: where the encoded image is.
        label: the index of its class; None where it is not known, or where an image may have several classes.
        label_set: the indices of its classes where an image may have several; None elsewhere.
    """

    place: Place
    label: int | None
    label_set: tuple[int, ...] | None = None

    @property
    def path(self) -> Path:
        """What a person finds the image by."""
        return Path(str(self.place))


def with_content(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The samples with their encoded images in memory, for workers that cannot read the files."""
    return tuple(map(_with_content, samples))


def _with_content(sample: Sample) -> Sample:
    try:
        return dataclasses.replace(sample, place=Content(str(sample.place), sample.place.read()))
    except ImageError:  # decoding reports it
        return sample


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled images in a fixed order, as a table of names, offsets and labels.

    No image is read until it is asked for. The table is flat in memory: 1.3 million photos take some tens of megabytes.
    It can be pickled, and read from several threads at once.

    Attributes:
        name: for logs and reports.
        classes: the class names in order; empty where no image has a label.
        labels: int32 `(n,)`, -1 where the class is not known; bool `(n, classes)` where an image may have several.
        places: where the images are.
        rows: int32 `(n,)`, the row of `places` of each sample. Default: all rows in order.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    places: Places
    rows: np.ndarray = dataclasses.field(default_factory=lambda: _ALL)

    def __post_init__(self) -> None:
        if self.rows is _ALL:
            object.__setattr__(self, "rows", np.arange(len(self.places), dtype=np.int32))
        self._check()

    @classmethod
    def from_files(
        cls,
        name: str,
        files: Iterable[str | os.PathLike],
        labels: Sequence[int | None] | np.ndarray | None = None,
        classes: Sequence[str] = (),
    ) -> Samples:
        """Make samples of image files.

        Args:
            name: for logs and reports.
            files: the paths.
            labels: the index of each file's class, or None where it is not known; or bool `(n, classes)`. Default: no
                labels.
            classes: the class names in order.

        Raises:
            InputError: there is no file, or a label is outside the classes.
        """
        paths = Packed(os.fsencode(os.path.abspath(file)) for file in files)
        if labels is None:
            labels = [None] * len(paths)
        if not isinstance(labels, np.ndarray) or labels.ndim == 1:
            labels = np.array([UNKNOWN if label is None else label for label in labels], np.int32)
        return cls(name, tuple(classes), labels, Files("", paths))

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
        """Where the image is; a `FilePart` (path, offset, length) where a native reader can read it from a file."""
        return self.places.place(self.rows[index])

    def path(self, index: int) -> Path:
        """What a person finds the image by: its file, or the file that holds it and its name or offset there."""
        return Path(str(self.place(index)))

    def paths(self) -> Iterator[Path]:
        """The path of each sample, in order."""
        return map(self.path, range(len(self)))

    def label(self, index: int) -> int | None:
        """The index of the image's class; None where it is not known or `multi_label`."""
        if self.multi_label or self.labels[index] == UNKNOWN:
            return None
        return int(self.labels[index])

    def label_set(self, index: int) -> tuple[int, ...] | None:
        """The indices of the image's classes where `multi_label`, else None."""
        return tuple(np.flatnonzero(self.labels[index]).tolist()) if self.multi_label else None

    def chunk(self, start: int, stop: int) -> tuple[Sample, ...]:
        """The samples `start` to `stop`, excluded, to be sent to a worker process."""
        chosen = range(*slice(start, stop).indices(len(self)))
        return tuple(Sample(self.place(i), self.label(i), self.label_set(i)) for i in chosen)

    def select(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """The samples at these indices, int `(m,)`, in that order."""
        indices = np.asarray(indices)
        return dataclasses.replace(self, labels=self.labels[indices], rows=self.rows[indices])

    def take(self, count: int | None) -> Samples:
        """`count` of the samples, evenly spaced; all of them where count is None or larger than their number.

        Evenly spaced, because folders are ordered by class: the first hundred photos of ImageNet all show fish.
        """
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise InputError(f"the number of photos must be at least 1. Received: {count}")
        return self.select(np.arange(count) * len(self) // count)

    def pixels(
        self,
        preprocessing: Preprocessing,
        *,
        limit: int | None = None,
        on_skip: Callable[[Path, str], None] | None = None,
    ) -> Iterator[tuple[np.ndarray, int | None]]:
        """Decode, crop and resize each image, on all cores; memory does not grow with their number.

        Args:
            preprocessing: the crop and the size that the model takes.
            limit: the number of images to take, evenly spaced (`take`). Default: all.
            on_skip: called with path and reason for each image that cannot be read. Default: a warning is logged.

        Yields:
            uint8 array `(image_size, image_size, 3)` and the image's `label`, in order.

        Raises:
            InputError: no image can be read.
        """
        samples = self.take(limit)

        def load(index: int) -> np.ndarray | ImageError:
            try:
                return load_pixels(samples.place(index), preprocessing)
            except ImageError as error:
                return error

        skipped = 0
        for index, result in enumerate(map_in_threads(load, range(len(samples)))):
            if not isinstance(result, ImageError):
                yield result, samples.label(index)
                continue
            skipped += 1
            if skipped == len(samples):
                raise InputError(f"none of the {skipped} photos of {self.name} can be read. The last: {result}")
            if on_skip is None:
                logger.warning("skipped: %s", result)
            else:
                on_skip(samples.path(index), result.why)
        if skipped:
            logger.warning("%d of the %d photos of %s were skipped", skipped, len(samples), self.name)

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


def places_by_path(samples: Samples, paths: Iterable[Path]) -> dict[Path, Place]:
    """The places of the samples that have these paths."""
    wanted = set(paths)
    return {path: samples.place(index) for index, path in enumerate(samples.paths()) if path in wanted}


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
