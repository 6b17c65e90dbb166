"""Labelled images with random access: what every source of photos to train or to measure on is opened as.

`Samples` is a table. It is made from names, headers and indices, without reading an image, and lies flat in memory: 1.3
million photos take some tens of megabytes, and so does a copy of the table for a worker process.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.decoding import ImageError
from converters.errors import InputError

MAX_ENCODED_BYTES = 256 * 2**20  # of one image: no photo comes near it, and a hostile length does not fill the memory
UNKNOWN = -1  # the label of an image of which nobody says what it shows


class Samples(Protocol):
    """Labelled images in a fixed order. Each kind of it can be pickled, and be read by several threads at once.

    Attributes:
        name: for logs and reports.
        classes: the class names in order; empty where no image has a label.
        labels: int32 `(n,)`, -1 where the class is not known; with several labels an image bool `(n, classes)`.
        multi_label: whether an image may have any number of labels.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray

    @property
    def multi_label(self) -> bool: ...

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """The image as it is stored (JPEG, PNG, ...); ImageError when it cannot be read."""
        ...

    def file(self, index: int) -> tuple[str, int, int | None] | None:
        """File, offset and number of bytes (None: up to its end) where `encoded` lies as it is, for native readers.

        None for an image that lies in no plain file.
        """
        ...

    def name_of(self, index: int) -> str:
        """What a person finds the image by: its file, and where in it."""
        ...

    def select(self, indices: np.ndarray) -> Samples:
        """The samples at these places, int `(m,)`, in that order."""
        ...


class Packed:
    """Many byte strings in two arrays: a million paths are not a million objects."""

    def __init__(self, strings: Iterable[bytes]) -> None:
        blob, ends = bytearray(), []
        for string in strings:
            blob += string
            ends.append(len(blob))
        self._blob = bytes(blob)
        self._ends = np.array([0, *ends], np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._blob[self._ends[index] : self._ends[index + 1]]


@dataclass(frozen=True, eq=False)
class FileSamples:
    """Images that lie in plain files: each in its own, or many in one (a tar archive, a TFRecord shard).

    Attributes:
        name, classes, labels: as `Samples` has them.
        root: the folder that the paths are relative to.
        paths: of the files, as the file system has them.
        files: int32 `(n,)`, which of the paths holds each image.
        offsets: int64 `(n,)`, where in the file it begins; None: every image is a file.
        lengths: int64 `(n,)`, its bytes.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    root: str
    paths: Packed
    files: np.ndarray
    offsets: np.ndarray | None = None
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.files)

    def file(self, index: int) -> tuple[str, int, int | None]:
        path = os.path.join(self.root, os.fsdecode(self.paths[self.files[index]]))
        if self.offsets is None:
            return path, 0, None
        return path, int(self.offsets[index]), int(self.lengths[index])

    def encoded(self, index: int) -> bytes:
        return read_part(*self.file(index))

    def name_of(self, index: int) -> str:
        return part_name(*self.file(index))

    def select(self, indices: np.ndarray) -> FileSamples:
        columns = ("labels", "files", "offsets", "lengths")
        chosen = {name: None if (column := getattr(self, name)) is None else column[indices] for name in columns}
        return dataclasses.replace(self, **chosen)


@dataclass(frozen=True, eq=False)
class MemorySamples:
    """Encoded images that lie in memory.

    Attributes:
        name, classes, labels: as `Samples` has them.
        images: the encoded images.
        rows: int32 `(n,)`, which of the images each sample is.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    images: Packed
    rows: np.ndarray

    def __post_init__(self) -> None:
        _check(self)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.rows)

    def file(self, index: int) -> None:
        return None

    def encoded(self, index: int) -> bytes:
        return self.images[self.rows[index]]

    def name_of(self, index: int) -> str:
        return f"{self.name}[{self.rows[index]}]"

    def select(self, indices: np.ndarray) -> MemorySamples:
        return dataclasses.replace(self, labels=self.labels[indices], rows=self.rows[indices])


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


def check_trainable(samples: Samples) -> None:
    """Raise InputError where a classifier cannot learn: fewer than two classes, one without an image, or no labels."""
    counts = class_counts(samples)
    if not samples.multi_label and (samples.labels == UNKNOWN).any():
        without = int(np.argmax(samples.labels == UNKNOWN))
        raise InputError(f"each image to train on must have a label. Received: {samples.name_of(without)} without one")
    if len(samples.classes) < 2:
        raise InputError(f"a classifier needs at least two classes. Received: {len(samples.classes)} in {samples.name}")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise InputError(
            f"{samples.name}: each of the {len(counts)} classes must have an image to train on. Received: none for "
            f"{_some([samples.classes[i] for i in empty])}"
        )


def check_disjoint(train: Samples, validation: Samples) -> None:
    """Raise InputError where images that are trained on would be measured on: the same places in the same files.

    Copies of images under other names are found by `edge-cv data check`.
    """
    seen = {_place(train, index) for index in range(len(train))}
    shared = [index for index in range(len(validation)) if _place(validation, index) in seen]
    if len(shared) == len(validation):
        raise InputError(f"the validation set must not be the training set. Received: the same images in {train.name}")
    if shared:
        raise InputError(
            f"no image may be in the training and in the validation set. Received: {len(shared)} of "
            f"{len(validation)}, such as {validation.name_of(shared[0])}"
        )


def class_counts(samples: Samples) -> np.ndarray:
    """The number of images of each class, int64 `(classes,)`."""
    if samples.multi_label:
        return samples.labels.sum(axis=0, dtype=np.int64)
    return np.bincount(samples.labels[samples.labels >= 0], minlength=len(samples.classes))


def read_part(path: str, offset: int = 0, length: int | None = None) -> bytes:
    """`length` bytes of a regular file (None: all from `offset` on).

    Raises:
        ImageError: missing, no regular file, shorter than that, or longer than `MAX_ENCODED_BYTES`.
    """
    name = part_name(path, offset, length)
    try:
        # Not to wait for ever for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(name, "it is not a regular file")
            wanted = status.st_size - offset if length is None else length
            if wanted > MAX_ENCODED_BYTES:
                raise ImageError(name, f"its {wanted} bytes are more than the {MAX_ENCODED_BYTES} that are accepted")
            content = os.pread(descriptor, wanted, offset)
            while 0 < len(content) < wanted and (
                more := os.pread(descriptor, wanted - len(content), offset + len(content))
            ):
                content += more
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ImageError(name, "no such file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(name, getattr(error, "strerror", None) or str(error)) from error
    if len(content) < wanted:
        raise ImageError(name, f"the file ends after {len(content)} of its {wanted} bytes")
    return content


def part_name(path: str, offset: int, length: int | None) -> str:
    return path if length is None else f"{path}@{offset}+{length}"


def _place(samples: Samples, index: int) -> object:
    place = samples.file(index)
    if place is None:
        return samples.name_of(index)
    return os.path.realpath(place[0]), *place[1:]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check(samples: Samples) -> None:
    labels, classes = samples.labels, len(samples.classes)
    if not len(samples):
        raise InputError(f"{samples.name} must hold at least one photo. Received: none")
    if samples.multi_label:
        if labels.dtype != bool or labels.shape != (len(samples), classes):
            raise InputError(
                f"labels must be bool ({len(samples)}, {classes}). Received: {labels.dtype} {labels.shape}"
            )
        return
    if labels.dtype != np.int32 or labels.shape != (len(samples),):
        raise InputError(f"labels must be int32 ({len(samples)},). Received: {labels.dtype} {labels.shape}")
    outside = np.flatnonzero((labels < UNKNOWN) | (labels >= classes))
    if len(outside):
        raise InputError(
            f"a label must be in 0..{classes - 1}, for {classes} classes. "
            f"Received: {labels[outside[0]]} for {samples.name_of(outside[0])}"
        )
