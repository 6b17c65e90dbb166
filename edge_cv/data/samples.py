"""`Samples`: labelled images with random access, for training, calibration and evaluation alike."""

from __future__ import annotations

import dataclasses
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

UNKNOWN = -1  # the label of an image whose class is not known


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
            uint8 array `(height, width, channels)` and the image's `label`, in order.

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
        shape: tuple[int, ...] = (len(self), classes) if self.multi_label else (len(self),)
        dtype = np.bool_ if self.multi_label else np.int32
        if not len(self):
            raise InputError(f"{self.name} must hold at least one photo. Received: none")
        if labels.dtype != dtype or labels.shape != shape:
            raise InputError(f"labels must be {np.dtype(dtype).name} {shape}. Received: {labels.dtype} {labels.shape}")
        outside = [] if self.multi_label else np.flatnonzero((labels < UNKNOWN) | (labels >= classes)).tolist()
        if outside:
            raise InputError(
                f"a label must be in 0..{classes - 1}, for {classes} classes. "
                f"Received: {labels[outside[0]]} for {self.place(outside[0])}"
            )


def places_by_path(samples: Samples, paths: Iterable[Path]) -> dict[Path, Place]:
    """The places of the samples that have these paths."""
    wanted = set(paths)
    return {path: samples.place(index) for index, path in enumerate(samples.paths()) if path in wanted}


def shortened(names: Sequence[str]) -> str:
    """The first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
