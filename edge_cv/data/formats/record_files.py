"""Images in record files: TFRecord and ArrayRecord shards of tf.train.Example, and TensorFlow Datasets' folders."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError
from edge_cv.data.formats import tfrecord
from edge_cv.data.formats.example import BytesWindow, FileWindow, Malformed, Window, byte_strings, find, integers
from edge_cv.data.formats.folders import imagenet_names, scan
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.labels import wnid_to_index
from edge_cv.data.places import Packed, Parts, Places
from edge_cv.data.samples import UNKNOWN, Samples, some
from edge_cv.parallel.processes import in_processes

logger = logging.getLogger(__name__)

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"

_TFRECORD_NAME = re.compile(r".*\.tfrec(ord)?s?([-_.].*)?", re.IGNORECASE)
_ARRAY_RECORD_NAME = re.compile(r".*\.(array_?record|arecord)([-_.].*)?", re.IGNORECASE)
_SHARD_NAME = re.compile(r"(?P<before>.*?)(?P<index>\d{5})-of-(?P<count>\d{5})(?P<after>.*)")
_LARGE_BYTES = 2**30  # of files together; below, starting processes takes longer than they save
_MAX_LABEL_BYTES = 2**33  # a table of several labels an image: ImageNet-21k's would just fit


@dataclass(frozen=True)
class Features:
    """What the features of an Example are called; of several names the first that a record has counts."""

    image: tuple[bytes, ...] = (b"image/encoded", b"image")
    label: tuple[bytes, ...] = (b"image/class/label", b"label")
    wnid: tuple[bytes, ...] = (b"image/class/synset",)
    text: tuple[bytes, ...] = (b"image/class/text",)
    file_name: tuple[bytes, ...] = (b"image/filename", b"file_name")

    @functools.cached_property
    def names(self) -> frozenset[bytes]:
        return frozenset((*self.image, *self.label, *self.wnid, *self.text, *self.file_name))


@dataclass(frozen=True)
class Record:
    """An image within one record of an ArrayRecord file; `name` is what it was called before, where that is known."""

    path: str
    number: int
    features: Features = field(default=Features(), repr=False)
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else f"{self.path}[{self.number}]"

    def read(self) -> bytes:
        try:
            content = array_record_reader(self.path, os.getpid()).read([self.number])[0]
            offset, length = encoded_image(content, self.features)
        except (InputError, Malformed, IndexError, RuntimeError, ValueError) as error:
            raise ImageError(str(self), str(error)) from error
        return content[offset : offset + length]


@dataclass(frozen=True, eq=False)
class Records:
    """Images in the records of ArrayRecord files, which only their own library reads.

    Attributes:
        files: paths of the files.
        file: int32 `(n,)`, which of them holds each image.
        number: int32 `(n,)`, the record's number in it.
        features: what the image is called in a record.
        names: what each was called before; None where that is not known.
    """

    files: tuple[str, ...]
    file: np.ndarray
    number: np.ndarray
    features: Features = field(default=Features())
    names: Packed | None = None

    def __len__(self) -> int:
        return len(self.file)

    def place(self, row: int) -> Record:
        name = "" if self.names is None else os.fsdecode(self.names[row])
        return Record(self.files[self.file[row]], int(self.number[row]), self.features, name)

    def key(self, row: int) -> bytes:
        if self.names is not None:
            return self.names[row]
        return f"{os.path.basename(self.files[self.file[row]])}[{self.number[row]}]".encode()

    def location(self, row: int) -> bytes:
        return os.fsencode(f"{self.files[self.file[row]]}/{self.number[row]}")


@functools.lru_cache(maxsize=512)  # a reader keeps its file open, and a process may open 1024
def array_record_reader(path: str, process: int):
    """The reader of a file in this process; a forked one must open its own, for threads do not survive a fork."""
    return open_array_record(path, "readahead_buffer_size:0")


def open_array_record(path: str, options: str = ""):
    """A reader of the library's own, or InputError."""
    module = array_record_module()
    if not Path(path).is_file():
        raise InputError(f"{path} must be a file that exists")
    reader = module.ArrayRecordReader(path, options)
    if not reader.ok():
        raise InputError(f"{path} must be an ArrayRecord file. Received: no such, or a part of one")
    return reader


def array_record_module():
    try:
        from array_record.python import array_record_module as module
    except ImportError:
        raise InputError(
            "ArrayRecord files need the package array-record, which is not installed: pip install 'edge-cv[grain]'"
        ) from None
    return module


def shards(path: Path) -> Layout | None:
    """A TFRecord or ArrayRecord file, or a folder of them: train-00000-of-00016, val_3.tfrec, data.array_record, ...

    What they hold is in tf.train.Example, by default as tf/slim names it (image/encoded, image/class/label).
    """
    if path.is_dir():
        files = [path / entry.name for entry in scan(path) if format_of(entry.name) and (path / entry.name).is_file()]
    else:
        files = [path] if path.is_file() and format_of(path.name) else []
    if not files:
        return None
    formats = {format_of(file.name) for file in files}
    if len(formats) > 1:
        raise InputError(f"{path} must hold record files of one kind. Received: {' and '.join(sorted(formats))}")
    (kind,) = formats
    names = _labels_txt(path if path.is_dir() else path.parent)
    groups: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[-_.\d]+", file.name.lower())
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "")
        groups.setdefault(split, []).append(file)

    def opener(split: str) -> Callable[[Sequence[str] | None], Samples]:
        title = f"{path.name} ({split})" if split else path.name
        return lambda classes: _open(title, groups[split], kind, Features(), names or classes)

    splits = {split: opener(split) for split in groups if split}
    if splits and "" in groups:
        logger.warning("%d record files in %s whose names tell no split are not used", len(groups[""]), path)
    return Layout(splits, None if splits else opener(""))


def tfds(path: Path) -> Layout | None:
    """A folder of TensorFlow Datasets: DATASET/[CONFIG/]VERSION with dataset_info.json and features.json.

    Any dataset whose records have one image and one class label; of several versions the newest.
    """
    if not path.is_dir():
        return None
    if not (path / "dataset_info.json").is_file():
        versions = [
            p for p in path.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / "features.json").is_file()
        ]
        if not versions:
            return None
        path = max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
    info = _json(path / "dataset_info.json")
    try:
        features, label = _tfds_features(_json(path / "features.json"))
        name, kind = str(info["name"]), info.get("fileFormat", TFRECORD)
        counts = {
            str(split["name"]): [int(count) for count in split.get("shardLengths", ())]
            for split in info.get("splits", ())
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} must have features.json with one image and one class label: {error!r}") from error
    if not all(re.fullmatch(r"\w[\w.-]*", part) for part in (name, label, *counts)):
        raise InputError(f"{path} must have names that files can have. Received: {name!r}, {label!r}, {list(counts)}")
    if kind not in (TFRECORD, ARRAY_RECORD):
        raise InputError(f"{path}: the files must be of the format tfrecord or array_record. Received: {kind}")
    labels = path / f"{label}.labels.txt"
    names = tuple(_lines(labels)) if labels.is_file() else None
    wnids = tuple(wnid_to_index())
    splits = {}
    for split, lengths in counts.items():
        files = [path / f"{name}-{split}.{kind}-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]

        def open_split(classes, split=split, files=files, lengths=lengths) -> Samples:
            wanted = imagenet_names() if classes is None and names == wnids else names
            return _open(f"{name} ({split})", files, kind, features, wanted, lengths)

        splits[SPLIT_WORDS.get(split, split)] = open_split
    return Layout(splits)


def _open(
    title: str,
    files: Sequence[Path],
    kind: str,
    features: Features,
    classes: Sequence[str] | None,
    lengths: Sequence[int] | None = None,
) -> Samples:
    """The samples of record files; `lengths`, when known, is how many records each must hold."""
    _check_complete(files)
    scanned = _scan_all(kind, features, tuple(_stamp(file) for file in files))
    for file, found, length in zip(files, scanned, lengths or [None] * len(files), strict=True):
        if length is not None and len(found.offset) != length:
            raise InputError(f"{file} must hold {length} records. Received: {len(found.offset)}")
    counts = [len(found.offset) for found in scanned]
    if not sum(counts):
        raise InputError(f"{title} must hold at least one record. Received: none")
    paths, file = tuple(map(str, files)), np.repeat(np.arange(len(files), dtype=np.int32), counts)
    first, second = (np.concatenate([getattr(found, column) for found in scanned]) for column in ("offset", "length"))
    has_names = all(len(found.names) == count for found, count in zip(scanned, counts, strict=True))
    names = Packed(found.names[i] for found in scanned for i in range(len(found.names))) if has_names else None
    places: Places
    if kind == TFRECORD:
        places = Parts(paths, file, first, second, names)
    else:
        places = Records(paths, file, first.astype(np.int32), features, names)
    labels, class_names = _labels(title, scanned, classes)
    return Samples(title, class_names, labels, places)


@dataclass(frozen=True, eq=False)
class _Scan:
    """What a file's records say: offsets and lengths of images (ArrayRecord: record numbers), and their labels.

    Attributes:
        offset, length: int64 `(n,)`.
        names: what each record calls its image; empty unless all do.
        label, labels: int64 of all records, one after the other, and how many each has, int32 `(n,)`.
        classes: for each label seen its (wnid, text), as far as the records have them.
    """

    offset: np.ndarray
    length: np.ndarray
    names: Packed
    label: np.ndarray
    labels: np.ndarray
    classes: dict[int, tuple[bytes, bytes]]


def _scan_tfrecord(path: str, features: Features) -> _Scan:
    with tfrecord.open_to_read(path) as file:
        window = FileWindow(file.fileno())
        found = tfrecord.records(path, window, os.fstat(file.fileno()).st_size)
        return _scanned(path, ((window, start, length) for start, length in found), features)


def _scan_array_record(path: str, features: Features) -> _Scan:
    """Reads the file whole: where a record begins only the library knows."""
    reader = open_array_record(path)
    try:

        def contents() -> Iterator[tuple[Window, int, int]]:
            total, step = reader.num_records(), 64
            for start in range(0, total, step):
                for content in reader.read(start, min(start + step, total)):
                    yield BytesWindow(content), 0, len(content)

        scan = _scanned(path, contents(), features)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be an ArrayRecord file that can be read: {error}") from error
    numbers = np.arange(len(scan.offset), dtype=np.int64)
    return _Scan(numbers, scan.length, scan.names, scan.label, scan.labels, scan.classes)


def _scanned(path: str, contents: Iterator[tuple[Window, int, int]], features: Features) -> _Scan:
    offsets, lengths, label, counts, names = [], [], [], [], []
    classes: dict[int, tuple[bytes, bytes]] = {}
    for number, (window, start, length) in enumerate(contents):
        try:
            spans = find(window, start, start + length, features.names)
            offset, size = _image(window, spans, features)
            offsets.append(offset)
            lengths.append(size)

            def value(keys: tuple[bytes, ...], spans=spans, window=window) -> bytes:
                for key in keys:
                    for begin, count in byte_strings(window, spans[key])[:1] if key in spans else ():
                        return window.at(begin, count) if count <= 4096 else b""
                return b""

            key = next((key for key in features.label if key in spans), None)
            numbers = [] if key is None else integers(window, spans[key])
            label += numbers
            counts.append(len(numbers))
            if len(numbers) == 1 and numbers[0] not in classes:
                classes[numbers[0]] = value(features.wnid), value(features.text)
            names.append(value(features.file_name))
        except Malformed as error:
            raise InputError(f"{path}, record {number}: must be a tf.train.Example with an image: {error}") from error
    return _Scan(
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
        Packed(names if all(names) else ()),
        np.array(label, np.int64),
        np.array(counts, np.int32),
        classes,
    )


def encoded_image(record: bytes, features: Features) -> tuple[int, int]:
    """Offset and length of the encoded image in a serialized Example; Malformed when there is none."""
    window = BytesWindow(record)
    return _image(window, find(window, 0, len(record), features.image), features)


def _image(window: Window, spans: Mapping[bytes, tuple[int, int]], features: Features) -> tuple[int, int]:
    for key in features.image:
        strings = byte_strings(window, spans[key]) if key in spans else ()
        if strings:
            return strings[0]
    raise Malformed(f"it has no {features.image[0].decode()}")


def _labels(title: str, scanned: Sequence[_Scan], classes: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all records, and the class names that they count.

    ImageNet's own converters count from 1 and leave 0 to the background, TensorFlow Datasets from 0. Where records name
    wnids, these decide; where class names are known, labels of 1 to their number are counted from 1.
    """
    label = np.concatenate([found.label for found in scanned])
    counts = np.concatenate([found.labels for found in scanned])
    seen: dict[int, tuple[bytes, bytes]] = {}
    for found in scanned:
        seen.update(found.classes)
    if not len(label) or ((label == UNKNOWN).all() and (counts == 1).all()):
        return np.full(len(counts), UNKNOWN, np.int32), ()
    low, high = int(label.min()), int(label.max())
    if (counts != 1).any():
        if low < 0 or (not classes and high >= 2**16):
            raise InputError(f"{title}: labels must be in 0..{2**16 - 1}. Received: {low}..{high}")
        names = tuple(classes or map(str, range(high + 1)))
        if high >= len(names):
            raise InputError(f"{title}: a label must be in 0..{len(names) - 1}. Received: {high}")
        if len(counts) * len(names) > _MAX_LABEL_BYTES:
            raise InputError(
                f"{title}: {len(names)} classes of {len(counts)} images are too many for several labels each"
            )
        several = np.zeros((len(counts), len(names)), bool)
        several[np.repeat(np.arange(len(counts)), counts), label] = True
        return several, names
    wnids = {number: wnid.decode(errors="replace") for number, (wnid, _) in seen.items()}
    if not classes and wnids and all(wnid in wnid_to_index() for wnid in wnids.values()):
        numbers = np.array(sorted(wnids))
        indices = np.array([wnid_to_index()[wnids[number]] for number in numbers], np.int32)
        return indices[np.searchsorted(numbers, label)], imagenet_names()
    if classes:
        shift = 1 if low == 1 and high == len(classes) else 0
        return (label - shift).clip(-(2**31), 2**31 - 1).astype(np.int32), tuple(classes)
    if low < UNKNOWN or high >= 2**16:
        raise InputError(f"{title}: labels must be in 0..{2**16 - 1}. Received: {low}..{high}")
    texts = {number: text.decode(errors="replace") for number, (_, text) in seen.items()}
    return label.astype(np.int32), tuple(texts.get(number) or str(number) for number in range(high + 1))


def _check_complete(files: Sequence[Path]) -> None:
    """Raise InputError where of train-00000-of-00016 and so on a file is missing."""
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
            raise InputError(f"{files[0].parent} must hold all of its {int(count)} shards. Missing: {some(names)}")


def format_of(name: str) -> str | None:
    """`tfrecord`, `array_record`, or None for a file that has the name of neither."""
    if _ARRAY_RECORD_NAME.fullmatch(name):
        return ARRAY_RECORD
    match = _SHARD_NAME.fullmatch(name)
    return TFRECORD if _TFRECORD_NAME.fullmatch(name) or (match and not match["after"]) else None


def _labels_txt(folder: Path) -> tuple[str, ...] | None:
    """The class names of tf/slim's labels.txt (`0:daisy`), or of a plain list."""
    if not (folder / "labels.txt").is_file():
        return None
    lines = _lines(folder / "labels.txt")
    numbered = [re.fullmatch(r"(\d+):(.*)", line) for line in lines]
    if all(numbered) and [int(match[1]) for match in numbered] == list(range(len(lines))):
        return tuple(match[2] for match in numbered)
    return tuple(lines)


def _tfds_features(described: dict) -> tuple[Features, str]:
    """What the image and the class label of features.json are called."""
    parts = described["featuresDict"]["features"]
    of_class = {name: str(part["pythonClassName"]).rsplit(".", 1)[-1] for name, part in parts.items()}
    (image,) = (name for name, kind in of_class.items() if kind == "Image")
    (label,) = (name for name, kind in of_class.items() if kind == "ClassLabel")
    return Features(image=(image.encode(),), label=(label.encode(),), wnid=(), text=()), label


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON file that can be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a JSON object. Received: {type(found).__name__}")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file that can be read: {error}") from error


def _stamp(file: Path) -> tuple[str, int, int]:
    """What tells a changed file from the same one: path, size and time."""
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=2)  # who opens a training and a validation part, or asks for the classes before
def _scan_all(kind: str, features: Features, files: tuple[tuple[str, int, int], ...]) -> list[_Scan]:
    """What the files say, found on all cores where they are large."""
    work = functools.partial(_scan_tfrecord if kind == TFRECORD else _scan_array_record, features=features)
    size = sum(size for _, size, _ in files)
    small = size < _LARGE_BYTES
    if not small:
        count, gigabytes = len(files), size / 1e9
        logger.warning("indexing %d files of %.0f GB; data prepare writes shards that open at once", count, gigabytes)
    return list(in_processes(work, [path for path, _, _ in files], small=small))
