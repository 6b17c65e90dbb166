"""`edge-cv data check`: what is wrong with a set of labelled images, before anything is trained or measured on it.

Every image is decoded once, on all cores. What is kept of it are some numbers: its size, a hash of its bytes and a
perceptual one, so that a million images take some tens of megabytes.
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
from edge_cv.data.formats import tfrecord
from edge_cv.data.formats.record_files import TFRECORD, format_of
from edge_cv.data.image_files import look
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.places import Parts
from edge_cv.data.samples import UNKNOWN, Samples, class_counts
from edge_cv.parallel.processes import in_processes
from edge_cv.progress import Progress, silent

NEAR_BITS = 4  # of 64: see `converters.images.image_hash`
TINY_PIXELS = 32  # side; a smaller image has too few frequencies to be told from its like
ODD_ASPECT = 4.0  # long side over short side
IMBALANCE = 10.0  # images of the largest class over those of the smallest
EXAMPLES = 5

_CHUNK = 64  # images that one process looks at before it reports
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}


@dataclass(frozen=True)
class DataIssue:
    """One kind of thing that was found.

    Attributes:
        part: the split, or two of them.
        what: it is, in words.
        count: of images, classes or files.
        harms: whether training or measuring on the set goes wrong with it; else it is worth knowing.
        examples: some of them.
    """

    part: str
    what: str
    count: int
    harms: bool
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        parts: for each split its numbers: images, classes, images of the smallest and the largest class, and the
            median width and height in pixels.
        findings: what harms first.
    """

    parts: tuple[dict[str, Any], ...]
    findings: tuple[DataIssue, ...]

    @property
    def harms(self) -> bool:
        return any(finding.harms for finding in self.findings)


def check(
    source: str | os.PathLike,
    against: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    progress: Progress = silent,
) -> Check:
    """Look at every image of a source, and for duplicates across its splits and with another source.

    Args:
        source: what `open_samples` opens; all of its splits are looked at.
        against: another source, such as the validation set of the first.
        split: look at this split of `source` only.
        progress: tells a person how far it is.

    Raises:
        InputError: a source cannot be opened.
    """
    parts = _parts(source, split)
    if against is not None:
        others = _parts(against, None)
        prefix = Path(os.fspath(against)).name
        parts.update({name if name not in parts else f"{prefix}/{name}": part for name, part in others.items()})
    names, samples = list(parts), list(parts.values())
    with progress("looking at images") as update:
        table = _look_at_all(samples, update)
    findings: list[DataIssue] = []
    for number, part in enumerate(names):
        findings += _of_part(part, samples[number], table.of(number))
    with progress("checking the shards' checksums"):
        findings += [finding for part in names for finding in _of_shards(part, parts[part])]
    with progress("looking for duplicates"):
        findings += _duplicates(names, samples, table)
    findings.sort(key=lambda finding: not finding.harms)
    numbers = (_numbers(name, samples[i], table.of(i)) for i, name in enumerate(names))
    return Check(tuple(numbers), tuple(findings))


@dataclass(frozen=True, eq=False)
class _Table:
    """What is known of each image, in columns `(n,)`, the parts one after the other.

    Attributes:
        part: int32, which part it is in.
        index: int32, which of the part's samples.
        width, height: int32, pixels; 0 for an image that cannot be read.
        flags: uint8, of `_FLAGS`.
        digest: uint64, of the encoded bytes.
        hash: uint64, perceptual.
        why: of the broken ones, by their place in the table.
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
        start, stop = np.searchsorted(self.part, [part, part + 1])
        columns = (getattr(self, name)[start:stop] for name in _COLUMNS)
        return _Table(*columns, {row - start: why for row, why in self.why.items() if start <= row < stop})

    def rows(self, flag: str) -> np.ndarray:
        """The places of the images that have a flag."""
        return np.flatnonzero(self.flags & _FLAGS[flag])


_COLUMNS = ("part", "index", "width", "height", "flags", "digest", "hash")
_FLAGS = {"broken": 1, "unlike": 2, "animated": 4, "misnamed": 8, "flat": 16}


def _parts(source: str | os.PathLike, split: str | None) -> dict[str, Samples]:
    classes = classes_to_train(source)
    names = (split,) if split is not None else splits_of(source)
    if not names:
        return {Path(os.fspath(source)).name or "images": open_samples(source, None, classes)}
    return {name: open_samples(source, name, classes) for name in names}


def _look_at_all(samples: Sequence[Samples], update: Callable[[int, int], None]) -> _Table:
    chunks = [
        (number, start, min(start + _CHUNK, len(part)))
        for number, part in enumerate(samples)
        for start in range(0, len(part), _CHUNK)
    ]
    total, done = sum(map(len, samples)), 0
    found = np.zeros((len(_COLUMNS), total), np.uint64)
    why: dict[int, str] = {}
    for columns, reasons in in_processes(_look_at, chunks, start=_receive, given=(samples,)):
        count = columns.shape[1]
        found[:, done : done + count] = columns
        why.update({done + row: reason for row, reason in reasons.items()})
        done += count
        update(done, total)
    small = (found[row].astype(np.int32) for row in range(4))
    return _Table(*small, found[4].astype(np.uint8), found[5], found[6], why)


_samples: Sequence[Samples]


def _receive(samples: Sequence[Samples]) -> None:
    global _samples
    _samples = samples


def _look_at(chunk: tuple[int, int, int]) -> tuple[np.ndarray, dict[int, str]]:
    """The columns of a chunk of one part, uint64 `(columns, n)`, and why images of it cannot be read."""
    number, start, stop = chunk
    samples = _samples[number]
    columns = np.zeros((len(_COLUMNS), stop - start), np.uint64)
    reasons = {}
    for row in range(stop - start):
        try:
            values = _look_at_one(samples, start + row)
        except ImageError as error:
            reasons[row] = error.why
            values = 0, 0, _FLAGS["broken"], 0, 0
        columns[:, row] = np.array([number, start + row, *values], np.uint64)
    return columns, reasons


def _look_at_one(samples: Samples, index: int) -> tuple[int, int, int, int, int]:
    content = samples.encoded(index)
    facts, image = look(content)
    name = os.fsdecode(samples.places.key(samples.rows[index])).lower()
    suffix = os.path.splitext(name)[1]
    known = any(suffix in suffixes for suffixes in _SUFFIXES.values())
    flags = 0 if facts.plain or facts.frames > 1 else _FLAGS["unlike"]
    flags |= _FLAGS["animated"] if facts.frames > 1 else 0
    flags |= _FLAGS["misnamed"] if known and suffix not in _SUFFIXES[facts.format] else 0
    flags |= _FLAGS["flat"] if all(low == high for low, high in image.getextrema()) else 0
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    return facts.width, facts.height, flags, digest, image_hash(image)


# ------------------------------------------------------------------------------------------------ from columns to words


def _of_part(part: str, samples: Samples, table: _Table) -> Iterator[DataIssue]:
    """What is to be said of one part for itself."""

    def names(rows: np.ndarray, extra: Callable[[int], str] = lambda row: "") -> tuple[str, ...]:
        return tuple(f"{samples.place(table.index[row])}{extra(row)}" for row in rows[:EXAMPLES].tolist())

    def finding(
        what: str, rows: np.ndarray, harms: bool, extra: Callable[[int], str] = lambda row: ""
    ) -> list[DataIssue]:
        return [DataIssue(part, what, len(rows), harms, names(rows, extra))] if len(rows) else []

    def size(row: int) -> str:
        return f" ({table.width[row]} x {table.height[row]})"

    broken = table.rows("broken")
    yield from finding("cannot be read", broken, True, lambda row: f": {table.why[row]}")
    unlike = "are read differently by other decoders (CMYK, turned by EXIF, 16 bits, transparent, ...)"
    yield from finding(unlike, table.rows("unlike"), False)
    yield from finding("are animated: only the first frame counts", table.rows("animated"), False)
    yield from finding("have a suffix of another format", table.rows("misnamed"), False)
    yield from finding("are of one colour", table.rows("flat"), False)
    short, long = np.minimum(table.width, table.height), np.maximum(table.width, table.height)
    tiny = np.flatnonzero((short > 0) & (short < TINY_PIXELS))
    yield from finding(f"are tiny (a side under {TINY_PIXELS} pixels)", tiny, False, size)
    yield from finding(f"are longer than {ODD_ASPECT:g} : 1", np.flatnonzero(long > ODD_ASPECT * short), False, size)
    if not samples.classes:
        return
    if not samples.multi_label:
        yield from finding("have no label", np.flatnonzero(samples.labels == UNKNOWN), True)
        if len(samples.classes) < 2:
            yield DataIssue(part, "one class only: nothing can be learned", 1, True, samples.classes)
    read = np.flatnonzero(table.width)
    counts = class_counts(samples.select(read)) if len(read) else np.zeros(len(samples.classes), int)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        shown = tuple(samples.classes[i] for i in empty[:EXAMPLES])
        yield DataIssue(part, "classes have no image that can be read", len(empty), part == "train", shown)
    elif counts.max() > IMBALANCE * counts.min():
        order = np.argsort(counts, kind="stable")
        shown = tuple(f"{samples.classes[i]}: {counts[i]}" for i in (*order[: EXAMPLES - 1], order[-1]))
        few = int((counts * IMBALANCE < counts.max()).sum())
        yield DataIssue(part, f"classes have under a {IMBALANCE:g}th of the largest one's images", few, False, shown)


def _of_shards(part: str, samples: Samples) -> list[DataIssue]:
    """The TFRecord files of a part whose data do not fit their checksums."""
    places = samples.places
    if not isinstance(places, Parts):
        return []
    used = [places.files[i] for i in np.unique(places.file[samples.rows])]
    files = [file for file in used if format_of(os.path.basename(file)) == TFRECORD]
    small = sum(map(os.path.getsize, files)) < 2**28  # read before processes have started
    broken = [why for why in in_processes(_broken_shard, files, small=small) if why]
    return [DataIssue(part, "shards are broken", len(broken), True, tuple(broken[:EXAMPLES]))] if broken else []


def _broken_shard(file: str) -> str | None:
    try:
        tfrecord.check_data(file)
    except InputError as error:
        return str(error)
    return None


def _duplicates(names: Sequence[str], samples: Sequence[Samples], table: _Table) -> Iterator[DataIssue]:
    """Images that are the same bytes, and others that look the same, within parts and across them."""
    unread = table.flags & _FLAGS["broken"] != 0
    blank = (table.flags & _FLAGS["flat"] != 0) | (np.minimum(table.width, table.height) < TINY_PIXELS)
    _, same = np.unique(table.digest, return_inverse=True)
    alike = _alike(table.hash, np.flatnonzero(~unread & ~blank))
    same[unread] = alike[unread] = -1

    def finding(a: int, b: int, what: str, pairs: np.ndarray, harms: bool) -> DataIssue:
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
                yield finding(a, b, f"are the same images: {names[b]} must not be {names[a]}", exact, True)
            elif len(exact):
                yield finding(a, b, "are in both" if across else "are there twice", exact, across)
            if len(near):
                yield finding(a, b, "look like one in the other" if across else "look like another", near, across)
            if not samples[a].multi_label and not samples[b].multi_label and samples[a].classes == samples[b].classes:
                labels = [samples[part].labels[table.index[exact[:, i]]] for i, part in ((0, a), (1, b))]
                differ = exact[(labels[0] != labels[1]) & (np.minimum(*labels) >= 0)]
                if len(differ):
                    yield finding(a, b, "are the same image with another label", differ, True)


def _pairs(groups: np.ndarray, parts: np.ndarray, a: int, b: int) -> np.ndarray:
    """For each image of part `b` whose group is in part `a`: (the first of it there, the image), int `(n, 2)`."""
    mine = np.flatnonzero((parts == a) & (groups >= 0))
    found, first = np.unique(groups[mine], return_index=True)
    others = np.flatnonzero((parts == b) & (groups >= 0))
    others = others[np.isin(groups[others], found)]
    origin = mine[first][np.searchsorted(found, groups[others])]
    return np.stack([origin, others], axis=1)[origin != others]


def _alike(hashes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For each image a number that it shares with those that look like it, int64 `(n,)`; -1 outside of `rows`."""
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
