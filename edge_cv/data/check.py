"""`edge-cv data check`: find issues in labelled images before a model is trained or measured on them.

Every image is decoded once, on all cores. Only its size, a hash of its bytes and a perceptual hash are kept: a million
images take some tens of megabytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError
from converters.images.image_hash import image_hash, near_duplicates
from edge_cv.data.class_counts import check_trainable, class_counts
from edge_cv.data.formats import tfrecord
from edge_cv.data.formats.record_scan import TFRECORD, format_of
from edge_cv.data.image_files import inspect
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.places import Parts
from edge_cv.data.samples import UNKNOWN, Samples
from edge_cv.data.split import split_for_training
from edge_cv.parallel.processes import map_in_processes
from edge_cv.progress import Progress, silent

NEAR_BITS = 4  # of 64: see `converters.images.image_hash`
TINY_PIXELS = 32  # a side; smaller images have too few frequencies for the perceptual hash
ODD_ASPECT = 4.0  # long side over short side
IMBALANCE = 10.0  # images of the largest class over those of the smallest
EXAMPLES = 5

_CHUNK = 64  # images of one task
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif", ".avif"),
}


@dataclass(frozen=True)
class DataIssue:
    """One kind of issue.

    Attributes:
        part: the split, or two splits.
        what: the issue in words, such as "cannot be read".
        count: the number of images, classes or files that have it.
        harms: whether training or measuring goes wrong with it.
        examples: some of the images, classes or files.
    """

    part: str
    what: str
    count: int
    harms: bool
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        parts: for each split the numbers of images, of classes, and of images in the smallest and the largest class,
            and the median width and height in pixels.
        findings: the issues; those that harm first.
    """

    parts: tuple[dict[str, Any], ...]
    findings: tuple[DataIssue, ...]

    @property
    def harms(self) -> bool:
        """Whether one of the issues harms."""
        return any(issue.harms for issue in self.findings)


def check(
    source: str | os.PathLike,
    against: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    progress: Progress = silent,
) -> Check:
    """Check every image of a source, and look for duplicates within and across its splits and another source.

    Args:
        source: what `open_samples` opens.
        against: another source, such as the validation set of the first.
        split: check this split of `source` only. Default: all splits.
        progress: shows the progress.

    Raises:
        InputError: a source cannot be opened.
    """
    parts = _parts(source, split)
    if against is not None:
        others = _parts(against, None)
        prefix = Path(os.fspath(against)).name
        parts.update({name if name not in parts else f"{prefix}/{name}": part for name, part in others.items()})
    names, samples = list(parts), list(parts.values())
    with progress("checking images") as update:
        table = _inspect_all(samples, update)
    issues: list[DataIssue] = []
    for number, part in enumerate(names):
        trained = part == "train" or (number == 0 and split is None and not splits_of(source))
        issues += _issues_of_part(part, samples[number], table.of(number), trained=trained)
    if split is None:
        issues += _issues_of_training(source, names[0])
    with progress("checking the shards' checksums"):
        issues += [issue for part in names for issue in _issues_of_shards(part, parts[part])]
    with progress("looking for duplicates"):
        issues += _duplicates(names, samples, table)
    issues.sort(key=lambda issue: not issue.harms)
    numbers = (_numbers(name, samples[i], table.of(i)) for i, name in enumerate(names))
    return Check(tuple(numbers), tuple(issues))


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns `(n,)` with a row for each image, one part after the other.

    Attributes:
        part: int32, the image's part.
        index: int32, its index in the part.
        width, height: int32, in pixels; 0 for an image that cannot be read.
        flags: uint8, bits of `_FLAGS`.
        digest: uint64, a hash of the encoded bytes.
        hash: uint64, the perceptual hash.
        why: the reason by row for each image that cannot be read.
    """

    part: np.ndarray
    index: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flags: np.ndarray
    digest: np.ndarray
    hash: np.ndarray
    why: dict[int, str]

    def of(self, part: int) -> _Table:
        """The rows of one part."""
        start, stop = np.searchsorted(self.part, [part, part + 1]).tolist()
        columns = {name: getattr(self, name)[start:stop] for name in _COLUMNS}
        return _Table(**columns, why={row - start: why for row, why in self.why.items() if start <= row < stop})

    def rows(self, flag: str) -> np.ndarray:
        """The rows of the images that have a flag."""
        return np.flatnonzero(self.flags & _FLAGS[flag])


_COLUMNS = ("part", "index", "width", "height", "flags", "digest", "hash")
_FLAGS = {"broken": 1, "unlike": 2, "animated": 4, "misnamed": 8, "flat": 16}


def _parts(source: str | os.PathLike, split: str | None) -> dict[str, Samples]:
    classes = classes_to_train(source)
    names = (split,) if split is not None else splits_of(source)
    if not names:
        return {Path(os.fspath(source)).name or "images": open_samples(source, None, classes)}
    return {name: open_samples(source, name, classes) for name in names}


def _inspect_all(samples: Sequence[Samples], update: Callable[[int, int], None]) -> _Table:
    chunks = [
        (number, start, min(start + _CHUNK, len(part)))
        for number, part in enumerate(samples)
        for start in range(0, len(part), _CHUNK)
    ]
    total, done = sum(map(len, samples)), 0
    values = np.zeros((len(_COLUMNS), total), np.uint64)
    why: dict[int, str] = {}
    for columns, reasons in map_in_processes(_inspect_chunk, chunks, initializer=_share, initargs=(samples,)):
        count = columns.shape[1]
        values[:, done : done + count] = columns
        why.update({done + row: reason for row, reason in reasons.items()})
        done += count
        update(done, total)
    part, index, width, height = (values[row].astype(np.int32) for row in range(4))
    return _Table(part, index, width, height, values[4].astype(np.uint8), values[5], values[6], why)


_samples: Sequence[Samples]


def _share(samples: Sequence[Samples]) -> None:
    global _samples
    _samples = samples


def _inspect_chunk(chunk: tuple[int, int, int]) -> tuple[np.ndarray, dict[int, str]]:
    """The columns of some images of one part, uint64 `(columns, n)`, and the reasons of those that cannot be read."""
    number, start, stop = chunk
    samples = _samples[number]
    columns = np.zeros((len(_COLUMNS), stop - start), np.uint64)
    reasons = {}
    for row in range(stop - start):
        try:
            values = _inspect_image(samples, start + row)
        except ImageError as error:
            reasons[row] = error.why
            values = 0, 0, _FLAGS["broken"], 0, 0
        columns[:, row] = np.array([number, start + row, *values], np.uint64)
    return columns, reasons


def _inspect_image(samples: Samples, index: int) -> tuple[int, int, int, int, int]:
    """Width, height, flags, digest and perceptual hash."""
    content = samples.encoded(index)
    facts, image = inspect(content)
    name = os.fsdecode(samples.places.key(samples.rows[index])).lower()
    suffix = os.path.splitext(name)[1]
    is_known = any(suffix in suffixes for suffixes in _SUFFIXES.values())
    flags = 0 if facts.plain or facts.frames > 1 else _FLAGS["unlike"]
    flags |= _FLAGS["animated"] if facts.frames > 1 else 0
    flags |= _FLAGS["misnamed"] if is_known and suffix not in _SUFFIXES.get(facts.format, ()) else 0
    pixels = np.asarray(image)
    flags |= _FLAGS["flat"] if (pixels == pixels[:1, :1]).all() else 0
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    return facts.width, facts.height, flags, digest, image_hash(image)


# -------------------------------------------------------------------------------------------- from columns to issues


def _issues_of_part(part: str, samples: Samples, table: _Table, *, trained: bool) -> Iterator[DataIssue]:
    """The issues of the images of one part; `trained` is whether models are trained on it."""

    def names(rows: np.ndarray, extra: Callable[[int], str] = lambda row: "") -> tuple[str, ...]:
        return tuple(f"{samples.place(table.index[row])}{extra(row)}" for row in rows[:EXAMPLES].tolist())

    def issue(
        what: str, rows: np.ndarray, harms: bool, extra: Callable[[int], str] = lambda row: ""
    ) -> list[DataIssue]:
        return [DataIssue(part, what, len(rows), harms, names(rows, extra))] if len(rows) else []

    def size(row: int) -> str:
        return f" ({table.width[row]} x {table.height[row]})"

    broken = table.rows("broken")
    yield from issue("cannot be read", broken, True, lambda row: f": {table.why[row]}")
    unlike = "are read differently by other decoders (CMYK, turned by EXIF, 16 bits, transparent, ...)"
    yield from issue(unlike, table.rows("unlike"), False)
    yield from issue("are animated: only the first frame counts", table.rows("animated"), False)
    yield from issue("have a suffix of another format", table.rows("misnamed"), False)
    yield from issue("are of one colour", table.rows("flat"), False)
    short, long = np.minimum(table.width, table.height), np.maximum(table.width, table.height)
    tiny = np.flatnonzero((short > 0) & (short < TINY_PIXELS))
    yield from issue(f"are tiny (a side under {TINY_PIXELS} pixels)", tiny, False, size)
    yield from issue(f"are longer than {ODD_ASPECT:g} : 1", np.flatnonzero(long > ODD_ASPECT * short), False, size)
    if not samples.classes:
        return
    if not samples.multi_label:
        yield from issue("have no label", np.flatnonzero(samples.labels == UNKNOWN), True)
        if len(samples.classes) < 2:
            yield DataIssue(part, "one class only: a classifier needs two", 1, True, samples.classes)
    read = np.flatnonzero(table.width)
    counts = class_counts(samples.select(read)) if len(read) else np.zeros(len(samples.classes), int)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        shown = tuple(samples.classes[i] for i in empty[:EXAMPLES])
        yield DataIssue(part, "classes have no image that can be read", len(empty), trained, shown)
    elif counts.max() > IMBALANCE * counts.min():
        order = np.argsort(counts, kind="stable")
        shown = tuple(f"{samples.classes[i]}: {counts[i]}" for i in dict.fromkeys((*order[: EXAMPLES - 1], order[-1])))
        few = int((counts * IMBALANCE < counts.max()).sum())
        yield DataIssue(part, f"classes have under a {IMBALANCE:g}th of the largest one's images", few, False, shown)


def _issues_of_training(source: str | os.PathLike, part: str) -> Iterator[DataIssue]:
    """Why no model can be trained on a labelled source as it is, if that is so."""
    splits = splits_of(source)
    if splits and "train" not in splits:
        return
    try:
        classes = classes_to_train(source)
        training = open_samples(source, "train" if splits else None, classes)
        if len(splits) == 1:  # measured on another source
            check_trainable(training)
        elif training.classes:
            split_for_training(os.fspath(source), None, 1, classes=classes)
    except InputError as error:
        yield DataIssue("train" if splits else part, "cannot be trained on", 1, True, (str(error),))


def _issues_of_shards(part: str, samples: Samples) -> list[DataIssue]:
    """The TFRecord files of a part whose data does not match their checksums."""
    places = samples.places
    if not isinstance(places, Parts):
        return []
    used = [places.files[i] for i in np.unique(places.file[samples.rows])]
    files = [file for file in used if format_of(os.path.basename(file)) == TFRECORD]
    small = sum(map(os.path.getsize, files)) < 2**28  # read faster than processes start
    broken = [why for why in map_in_processes(_broken_shard, files, small=small) if why]
    return [DataIssue(part, "shards are broken", len(broken), True, tuple(broken[:EXAMPLES]))] if broken else []


def _broken_shard(file: str) -> str | None:
    try:
        tfrecord.check_data(file)
    except InputError as error:
        return str(error)
    return None


def _duplicates(names: Sequence[str], samples: Sequence[Samples], table: _Table) -> Iterator[DataIssue]:
    """Images with the same bytes, and images that look alike, within parts and across them."""
    unread = table.flags & _FLAGS["broken"] != 0
    blank = (table.flags & _FLAGS["flat"] != 0) | (np.minimum(table.width, table.height) < TINY_PIXELS)
    _, same = np.unique(table.digest, return_inverse=True)
    alike = _look_alikes(table.hash, np.flatnonzero(~unread & ~blank))
    same[unread] = alike[unread] = -1

    def issue(a: int, b: int, what: str, pairs: np.ndarray, harms: bool) -> DataIssue:
        places = (
            tuple(str(samples[table.part[row]].place(table.index[row])) for row in pair) for pair in pairs[:EXAMPLES]
        )
        part = names[a] if a == b else f"{names[a]}, {names[b]}"
        return DataIssue(part, what, len(pairs), harms, tuple(f"{second} = {first}" for first, second in places))

    for a in range(len(names)):
        for b in range(a, len(names)):
            exact = _pairs(same, table.part, a, b)
            near = _pairs(alike, table.part, a, b)
            near = near[table.digest[near[:, 0]] != table.digest[near[:, 1]]]
            across = a != b
            if across and len(exact) == len(samples[a]) == len(samples[b]):
                yield issue(a, b, f"are the same images: {names[b]} must not be {names[a]}", exact, True)
            elif len(exact):
                yield issue(a, b, "are in both" if across else "occur twice", exact, across)
            if len(near):
                yield issue(a, b, "look like an image in the other" if across else "look like another", near, across)
            if not samples[a].multi_label and not samples[b].multi_label and samples[a].classes == samples[b].classes:
                labels = [samples[part].labels[table.index[exact[:, i]]] for i, part in ((0, a), (1, b))]
                differ = exact[(labels[0] != labels[1]) & (np.minimum(labels[0], labels[1]) >= 0)]
                if len(differ):
                    yield issue(a, b, "are the same image with another label", differ, True)


def _pairs(groups: np.ndarray, parts: np.ndarray, a: int, b: int) -> np.ndarray:
    """(first image of the group in part `a`, image of part `b`) for each image whose group is in both, int `(n, 2)`."""
    mine = np.flatnonzero((parts == a) & (groups >= 0))
    present, first = np.unique(groups[mine], return_index=True)
    others = np.flatnonzero((parts == b) & (groups >= 0))
    others = others[np.isin(groups[others], present)]
    origin = mine[first][np.searchsorted(present, groups[others])]
    return np.stack([origin, others], axis=1)[origin != others]


def _look_alikes(hashes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The group of each image, int64 `(n,)`: images that look alike share one; -1 outside of `rows`."""
    unique, inverse = np.unique(hashes[rows], return_inverse=True)
    group = np.arange(len(unique))

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for first, second in near_duplicates(unique, max_distance=NEAR_BITS).tolist():
        group[root(second)] = root(first)
    groups = np.full(len(hashes), -1, np.int64)
    groups[rows] = np.array([root(number) for number in range(len(unique))], np.int64)[inverse]
    return groups


def _numbers(name: str, samples: Samples, table: _Table) -> dict[str, Any]:
    counts = class_counts(samples) if samples.classes else np.zeros(1, int)
    seen = np.flatnonzero(table.width)
    return {
        "split": name,
        "images": len(samples),
        "classes": len(samples.classes),
        "smallest_class": int(counts.min()),
        "largest_class": int(counts.max()),
        "median_width": int(np.median(table.width[seen])) if len(seen) else 0,
        "median_height": int(np.median(table.height[seen])) if len(seen) else 0,
    }
