"""Opening record files of tf.train.Example: finding the images in them, and the classes that their labels index."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv.data.formats import tfrecord
from edge_cv.data.formats.array_record import ArrayRecordImages, open_array_record
from edge_cv.data.formats.example import (
    BytesWindow,
    Features,
    FileWindow,
    Malformed,
    Span,
    Window,
    byte_strings,
    find,
    image_span,
    integers,
)
from edge_cv.data.labels import imagenet_names, wnid_to_index
from edge_cv.data.places import Packed, Parts, Places
from edge_cv.data.samples import UNKNOWN, Samples, shortened
from edge_cv.parallel.processes import map_in_processes

logger = logging.getLogger(__name__)

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"

_TFRECORD_NAME = re.compile(r".*\.tfrec(ord)?s?([-_.].*)?", re.IGNORECASE)
_ARRAY_RECORD_NAME = re.compile(r".*\.(array_?record|arecord)([-_.].*)?", re.IGNORECASE)
_SHARD_NAME = re.compile(r"(?P<before>.*?)(?P<index>\d{5})-of-(?P<count>\d{5})(?P<after>.*)")
_LARGE_BYTES = 2**30  # of all files; below, one process is faster than several that must be started
_MAX_LABEL_BYTES = 2**33  # of a bool table of labels: enough for ImageNet-21k
_MAX_CLASSES = 2**16  # where only the labels give their number
_MAX_TEXT_BYTES = 4096


def format_of(name: str) -> str | None:
    """The format of a file by its name: `tfrecord`, `array_record`, or None."""
    if _ARRAY_RECORD_NAME.fullmatch(name):
        return ARRAY_RECORD
    match = _SHARD_NAME.fullmatch(name)
    return TFRECORD if _TFRECORD_NAME.fullmatch(name) or (match and not match["after"]) else None


def open_record_files(
    title: str,
    files: Sequence[Path],
    format: str,
    features: Features,
    classes: Sequence[str] | None,
    lengths: Sequence[int] | None = None,
) -> Samples:
    """Open record files.

    Args:
        title: the samples' name.
        files: all of one format.
        format: `tfrecord` or `array_record`.
        features: the names of an Example's features.
        classes: the class names in order; empty or None where they are not known.
        lengths: the number of records in each file, where it is known, to be checked.

    Raises:
        InputError: a file is missing, broken or of another length, or the labels do not fit the classes.
    """
    _check_complete(files)
    scans = _scan_all(format, features, tuple(_stamp(file) for file in files))
    counts = [len(scan.offset) for scan in scans]
    for file, count, expected in zip(files, counts, lengths or counts, strict=True):
        if count != expected:
            raise InputError(f"{file} must hold {expected} records. Received: {count}")
    if not sum(counts):
        raise InputError(f"{title} must hold at least one record. Received: none")
    paths, owner = tuple(map(str, files)), np.repeat(np.arange(len(files), dtype=np.int32), counts)
    offset, length = (np.concatenate([getattr(scan, column) for scan in scans]) for column in ("offset", "length"))
    has_names = all(len(scan.names) == count for scan, count in zip(scans, counts, strict=True))
    names = Packed(scan.names[i] for scan in scans for i in range(len(scan.names))) if has_names else None
    places: Places
    if format == TFRECORD:
        places = Parts(paths, owner, offset, length, names)
    else:
        places = ArrayRecordImages(paths, owner, offset.astype(np.int32), features, names)
    labels, class_names = _labels(title, scans, classes)
    return Samples(title, class_names, labels, places)


def _check_complete(files: Sequence[Path]) -> None:
    """Raise InputError where a file of a numbered series (train-00000-of-00016, ...) is missing."""
    for file in files:
        if not file.is_file():
            raise InputError(f"{file} must be a file that exists: the shard is missing")
    series: dict[tuple[str, str, str], set[int]] = {}
    for file in files:
        match = _SHARD_NAME.fullmatch(file.name)
        if match:
            series.setdefault((match["before"], match["count"], match["after"]), set()).add(int(match["index"]))
    for (before, count, after), indices in series.items():
        missing = sorted(set(range(min(int(count), 10**5))) - indices)
        if missing and len(files) > 1:
            names = [f"{before}{index:05d}-of-{count}{after}" for index in missing]
            raise InputError(f"{files[0].parent} must hold all of its {int(count)} shards. Missing: {shortened(names)}")


# ------------------------------------------------------------------------------------------------------------ scanning


@dataclass(frozen=True, eq=False)
class _Scan:
    """The images and labels in the n records of a file.

    Attributes:
        offset: int64 `(n,)`, of the encoded image in the file; in an ArrayRecord file the record's number.
        length: int64 `(n,)`, of the encoded image, in bytes.
        names: of the images; empty unless every record has one.
        label: int64, the labels of all records one after the other.
        counts: int32 `(n,)`, the number of labels of each record.
        classes: (wnid, text) of each label, empty where the records have none.
    """

    offset: np.ndarray
    length: np.ndarray
    names: Packed
    label: np.ndarray
    counts: np.ndarray
    classes: dict[int, tuple[bytes, bytes]]


def _stamp(file: Path) -> tuple[str, int, int]:
    """Path, size and time: a changed file has another stamp."""
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=2)  # a source is opened for its training and its validation split, and for its classes
def _scan_all(format: str, features: Features, files: tuple[tuple[str, int, int], ...]) -> list[_Scan]:
    work = functools.partial(_scan_tfrecord if format == TFRECORD else _scan_array_record, features=features)
    size = sum(size for _, size, _ in files)
    small = size < _LARGE_BYTES
    if not small:
        count, gigabytes = len(files), size / 1e9
        logger.warning("indexing %d files of %.0f GB; data prepare writes shards that open at once", count, gigabytes)
    return list(map_in_processes(work, [path for path, _, _ in files], small=small))


def _scan_tfrecord(path: str, features: Features) -> _Scan:
    with tfrecord.open_to_read(path) as file:
        window = FileWindow(file.fileno())
        records = tfrecord.records(path, window, os.fstat(file.fileno()).st_size)
        return _scan(path, ((window, start, length) for start, length in records), features)


def _scan_array_record(path: str, features: Features) -> _Scan:
    """Reads the whole file, because only the library knows where a record begins."""
    reader = open_array_record(path)

    def records() -> Iterator[tuple[Window, int, int]]:
        total, step = reader.num_records(), 64
        for start in range(0, total, step):
            for content in reader.read(start, min(start + step, total)):
                yield BytesWindow(content), 0, len(content)

    try:
        scan = _scan(path, records(), features)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be an ArrayRecord file that can be read: {error}") from error
    numbers = np.arange(len(scan.offset), dtype=np.int64)
    return _Scan(numbers, scan.length, scan.names, scan.label, scan.counts, scan.classes)


def _scan(path: str, records: Iterator[tuple[Window, int, int]], features: Features) -> _Scan:
    offsets, lengths, labels, counts, names = [], [], [], [], []
    classes: dict[int, tuple[bytes, bytes]] = {}
    for number, (window, start, length) in enumerate(records):
        try:
            spans = find(window, start, start + length, features.names)
            offset, size = image_span(window, spans, features)
            offsets.append(offset)
            lengths.append(size)
            key = next((key for key in features.label if key in spans), None)
            values = [] if key is None else integers(window, spans[key])
            labels += values
            counts.append(len(values))
            if len(values) == 1 and values[0] not in classes:
                classes[values[0]] = _text(window, spans, features.wnid), _text(window, spans, features.text)
            names.append(_text(window, spans, features.file_name))
        except Malformed as error:
            raise InputError(f"{path}, record {number}: must be a tf.train.Example with an image: {error}") from error
    return _Scan(
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
        Packed(names if all(names) else ()),
        np.array(labels, np.int64),
        np.array(counts, np.int32),
        classes,
    )


def _text(window: Window, spans: Mapping[bytes, Span], keys: tuple[bytes, ...]) -> bytes:
    """The first byte string of the first of these features that a record has; empty without one."""
    for key in keys:
        for begin, count in byte_strings(window, spans[key])[:1] if key in spans else ():
            return window.at(begin, count) if count <= _MAX_TEXT_BYTES else b""
    return b""


# -------------------------------------------------------------------------------------------------------------- labels


def _labels(title: str, scans: Sequence[_Scan], classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all records, and the class names that they index.

    ImageNet's own converters count from 1 and reserve 0 for the background; TensorFlow Datasets counts from 0. Where
    records have wnids, these decide. Where class names are known, labels 1 to their number are counted from 1.
    """
    label = np.concatenate([scan.label for scan in scans])
    counts = np.concatenate([scan.counts for scan in scans])
    described: dict[int, tuple[bytes, bytes]] = {}
    for scan in scans:
        described.update(scan.classes)
    if not len(label) or ((label == UNKNOWN).all() and (counts == 1).all()):
        return np.full(len(counts), UNKNOWN, np.int32), ()
    low, high = int(label.min()), int(label.max())
    if (counts != 1).any():
        return _label_sets(title, label, counts, classes)
    wnids = {number: wnid.decode(errors="replace") for number, (wnid, _) in described.items()}
    if not classes and wnids and all(wnid in wnid_to_index() for wnid in wnids.values()):
        numbers = np.array(sorted(wnids))
        indices = np.array([wnid_to_index()[wnids[number]] for number in numbers], np.int32)
        return indices[np.searchsorted(numbers, label)], imagenet_names()
    if classes:
        shift = 1 if low == 1 and high == len(classes) else 0
        return (label - shift).clip(-(2**31), 2**31 - 1).astype(np.int32), tuple(classes)
    if low < UNKNOWN or high >= _MAX_CLASSES:
        raise InputError(f"{title}: labels must be in 0..{_MAX_CLASSES - 1}. Received: {low}..{high}")
    texts = {number: text.decode(errors="replace") for number, (_, text) in described.items()}
    return label.astype(np.int32), tuple(texts.get(number) or str(number) for number in range(high + 1))


def _label_sets(
    title: str, label: np.ndarray, counts: np.ndarray, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `_labels`, where records have several labels or none: bool `(n, classes)`."""
    low, high = int(label.min()), int(label.max())
    if low < 0 or (not classes and high >= _MAX_CLASSES):
        raise InputError(f"{title}: labels must be in 0..{_MAX_CLASSES - 1}. Received: {low}..{high}")
    names = tuple(classes or map(str, range(high + 1)))
    if high >= len(names):
        raise InputError(f"{title}: a label must be in 0..{len(names) - 1}. Received: {high}")
    if len(counts) * len(names) > _MAX_LABEL_BYTES:
        raise InputError(f"{title}: {len(names)} classes of {len(counts)} images are too many for several labels each")
    label_sets = np.zeros((len(counts), len(names)), bool)
    label_sets[np.repeat(np.arange(len(counts)), counts), label] = True
    return label_sets, names
