"""`edge-cv data prepare`: any source of labelled images as shards that open at once and are read in long strides.

Which image goes into which shard is drawn by a seed, so that a shard read from end to end is already mixed. Every image
is decoded on the way: broken ones are named, and those that decoders read differently (CMYK, turned by EXIF, 16 bits,
animations, other formats than JPEG and PNG) are stored as upright RGB JPEGs. The shards are the same byte for byte
whatever the number of cores, and however often the work was stopped: each is written beside its place and renamed, and
its record is written last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from converters.errors import InputError, unknown
from converters.files import file_sha256, write_atomic
from converters.images.decoding import ImageError
from edge_cv.data.formats import example, tfrecord
from edge_cv.data.formats.prepared import (
    FORMATS,
    MANIFEST,
    Manifest,
    Shard,
    Split,
    index_content,
    index_name,
    is_whole,
    verify,
)
from edge_cv.data.formats.record_files import ARRAY_RECORD, TFRECORD, Features, array_record_module, encoded_image
from edge_cv.data.image_files import look
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.places import Packed
from edge_cv.data.samples import Samples
from edge_cv.parallel.processes import in_processes
from edge_cv.progress import Progress, silent

BROKEN = ("skip", "refuse")

_UNFINISHED = ".unfinished"  # folder of the records of finished shards, until all are
_SHARD_BYTES = 256 * 2**20  # a second's reading, and for ImageNet some 550 files
_SIZED = 200  # images whose size tells that of all
_JPEG_QUALITY = 95
_SMALL = 100  # images; so few are written before processes have started


@dataclass(frozen=True)
class ShardingOptions:
    """How a split is written: all that its bytes depend on beside the images.

    Attributes:
        format: `tfrecord` or `array_record`.
        shards: number of files; None is one for every 256 MB.
        max_side: images with a longer side are made smaller, in pixels; None keeps them as they are.
        broken: `skip` images that cannot be read and name them, or `refuse` the set.
        seed: which image goes into which shard.
    """

    format: str = TFRECORD
    shards: int | None = None
    max_side: int | None = None
    broken: str = "skip"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format of shards", self.format, FORMATS)
        if self.broken not in BROKEN:
            raise unknown("way with broken images", self.broken, BROKEN)
        for name in ("shards", "max_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1. Received: {value}")
        if self.shards is not None and self.shards > 99999:
            raise InputError(f"shards must be at most 99999. Received: {self.shards}")


def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    plan: ShardingOptions = ShardingOptions(),
    *,
    split: str | None = None,
    classes: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Write a source's splits as shards with a manifest, verified; go on where an earlier call was stopped.

    Args:
        source: what `open_samples` opens.
        out: a folder that is empty or not there, or that holds a part of the same set.
        plan: how.
        split: one of the source's; by default each that it brings, or `train` and `validation` drawn from it.
        classes: as `open_samples` takes them; by default as `classes_to_train` says.
        progress: tells a person how far it is.

    Raises:
        InputError: the source cannot be used, an image is broken and that is refused, the folder holds something else,
            or the disk is full. What was finished stays, and the next call goes on from there.
    """
    out = Path(out)
    if plan.format == ARRAY_RECORD:
        array_record_module()  # missing, it is named before any work
    splits: tuple[str | None, ...] = (split,) if split is not None else splits_of(source)
    classes = classes_to_train(source) if classes is None else classes
    if not splits:
        splits = ("train", "validation") if open_samples(source, None, classes).classes else (None,)
    manifest = _begun(out)
    for name in sorted(splits, key=lambda name: name != "train"):  # the classes are the training part's
        samples = open_samples(source, name, classes)
        if manifest is None:
            title = Path(os.fspath(source)).name
            manifest = Manifest(title, plan.format, samples.classes, samples.multi_label, {})
        if not samples.classes:  # a test part without labels
            samples = dataclasses.replace(samples, classes=manifest.classes)
        manifest = _with_split(out, manifest, name or "all", samples, plan, progress)
    return manifest


def _begun(out: Path) -> Manifest | None:
    if out.exists() and not out.is_dir():
        raise InputError(f"the folder for shards must be a folder. Received: {out}")
    manifest = Manifest.read(out)
    if manifest is None and out.is_dir() and any(out.iterdir()) and not (out / _UNFINISHED).is_dir():
        raise InputError(f"the folder for shards must be empty, or hold shards of the same set. Received: {out}")
    return manifest


def _with_split(
    out: Path, manifest: Manifest, name: str, samples: Samples, plan: ShardingOptions, progress: Progress
) -> Manifest:
    """The manifest with one more split, whose shards have been written and verified."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"a split must have a name that files can have. Received: {name!r}")
    if (manifest.format, manifest.classes, manifest.multi_label) != (plan.format, samples.classes, samples.multi_label):
        raise InputError(f"the splits in {out} must have one format and the same classes. Received: others for {name}")
    count = plan.shards or _shards_for(samples)
    if count > len(samples):
        raise InputError(f"there must be at most a shard an image. Received: {count} for {len(samples)} images")
    order = np.random.default_rng(plan.seed).permutation(len(samples))
    parts = np.array_split(order, count)
    key = _key(samples, order, plan, count)
    if name in manifest.splits and manifest.splits[name].key == key:
        return manifest
    if name in manifest.splits:
        raise InputError(f"{out} holds {name} of other images or made otherwise; name another folder, or delete it")
    records = out / _UNFINISHED / name
    _check_begun(records, key, out, name)

    suffix = {TFRECORD: "tfrecord", ARRAY_RECORD: "array_record"}[plan.format]
    files = [f"{name}-{i:05d}-of-{count:05d}.{suffix}" for i in range(count)]
    _remove_parts(out, name)  # of a process that was killed
    found: list[_Written | None] = [_Written.read(records / f"{i}.npz", out / files[i]) for i in range(count)]
    with progress(f"writing {name}") as update:
        done = sum(len(parts[i]) for i in range(count) if found[i] is not None)
        update(done, len(samples))
        missing = [i for i in range(count) if found[i] is None]
        given = (samples, plan, parts, [str(out / file) for file in files], str(records))
        if missing:
            try:
                small = len(samples) < _SMALL
                for i in in_processes(_write_shard, missing, start=_receive, given=given, small=small):
                    found[i] = _Written.read(records / f"{i}.npz", out / files[i])
                    done += len(parts[i])
                    update(done, len(samples))
            finally:
                _remove_parts(out, name)
    written = [one for one in found if one is not None]
    rows = np.concatenate([one.rows for one in written])
    skipped = tuple(pair for one in written for pair in one.skipped)
    if not len(rows):
        raise InputError(f"none of the {len(samples)} images of {samples.name} could be read. The first: {skipped[0]}")
    shard = np.repeat(np.arange(count, dtype=np.int32), [len(one.rows) for one in written])
    offset, length = (np.concatenate([getattr(one, column) for one in written]) for column in ("offset", "length"))
    names = Packed(_name(samples, row) for row in rows)
    index = write_atomic(out / index_name(name), index_content(shard, offset, length, samples.labels[rows], names))
    shards = tuple(one.shard for one in written)
    part = Split(key, len(rows), shards, file_sha256(index), skipped)
    manifest = dataclasses.replace(manifest, splits={**manifest.splits, name: part})
    pending = out / _UNFINISHED / MANIFEST
    write_atomic(pending, manifest.to_json())
    with progress(f"verifying {name}") as update:
        try:
            verify(out, update, name, manifest)
        except InputError:
            for number, one in enumerate(written):  # the next call writes again what is not as it was written
                if not is_whole(out, one.shard):
                    (records / f"{number}.npz").unlink(missing_ok=True)
            raise
    os.replace(pending, out / MANIFEST)
    shutil.rmtree(records)
    if not any(entry.is_dir() for entry in (out / _UNFINISHED).iterdir()):
        shutil.rmtree(out / _UNFINISHED)
    return manifest


def _remove_parts(out: Path, name: str) -> None:
    for part in out.glob(f".{name}-*.part"):
        part.unlink(missing_ok=True)


def _check_begun(records: Path, key: str, out: Path, name: str) -> None:
    """Raise InputError where another set, or the same in another way, was begun in the folder."""
    place = records / "key"
    if not place.is_file():
        write_atomic(place, key)
    elif place.read_text(encoding="utf-8", errors="replace") != key:
        raise InputError(
            f"{out} holds the beginning of {name} of other images or made otherwise; go on as it was begun, name "
            "another folder, or delete it"
        )


def _shards_for(samples: Samples) -> int:
    """One for every 256 MB, by the size of some of the images."""
    some = samples.take(_SIZED)
    sizes = []
    for index in range(len(some)):
        try:
            sizes.append(len(some.encoded(index)))
        except ImageError:
            continue
    return min(len(samples), 99999, 1 + int(np.mean(sizes or [0]) * len(samples)) // _SHARD_BYTES)


def _key(samples: Samples, order: np.ndarray, plan: ShardingOptions, count: int) -> str:
    """What the shards depend on but for the images' content: names, labels, their order, and the plan."""
    how = dataclasses.asdict(dataclasses.replace(plan, shards=count))
    digest = hashlib.sha256(json.dumps([how, samples.classes]).encode())
    digest.update(samples.labels.tobytes())
    digest.update(order.astype(np.int64).tobytes())
    for index in range(len(samples)):
        digest.update(_name(samples, index) + b"\0")
    return digest.hexdigest()


def _name(samples: Samples, index: int) -> bytes:
    return samples.places.key(samples.rows[index]).replace(b"\0", b"")


# ------------------------------------------------------------------------------------------------ in a worker process


@dataclass(frozen=True, eq=False)
class _Written:
    """The record of a finished shard.

    Attributes:
        shard: the file.
        rows: int64 `(n,)`, which of the samples it holds.
        offset, length: int64 `(n,)`, as the index has them.
        skipped: (name, why) of each sample that could not be read.
    """

    shard: Shard
    rows: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    skipped: tuple[tuple[str, str], ...]

    def save(self, path: Path) -> None:
        stream = io.BytesIO()
        said = json.dumps([dataclasses.asdict(self.shard), self.skipped]).encode()
        np.savez(stream, rows=self.rows, offset=self.offset, length=self.length, said=np.frombuffer(said, np.uint8))
        write_atomic(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path, shard: Path) -> _Written | None:
        """The record of a shard that is there; None where it has to be written (again)."""
        try:
            with np.load(path, allow_pickle=False) as found:
                fields, skipped = json.loads(found["said"].tobytes())
                record = cls(
                    Shard(**fields), found["rows"], found["offset"], found["length"], tuple(map(tuple, skipped))
                )
            return record if shard.stat().st_size == record.shard.bytes else None
        except Exception:  # whatever is wrong with it, the shard is written again
            return None


_given: tuple[Samples, ShardingOptions, list[np.ndarray], list[str], str]


def _receive(*given) -> None:
    global _given
    _given = given


def _write_shard(number: int) -> int:
    samples, plan, parts, files, records = _given
    path = Path(files[number])
    rows, offsets, lengths, skipped = [], [], [], []
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        write = (_TFRecordWriter if plan.format == TFRECORD else _ArrayRecordWriter)(temporary)
        for row in parts[number].tolist():
            try:
                record = _record(samples, row, plan)
            except ImageError as error:
                if plan.broken == "refuse":
                    raise InputError(f"every image must be whole. Received: {error}") from error
                skipped.append((str(samples.place(row)), error.why))
                continue
            offset, length = encoded_image(record, Features())
            rows.append(row)
            offsets.append(write(record) + offset if plan.format == TFRECORD else write(record))
            lengths.append(length)
        write.close()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        shard = Shard(path.name, len(rows), os.path.getsize(temporary), file_sha256(Path(temporary)))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: array_record's
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be written: {why}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    columns = (np.array(column, np.int64) for column in (rows, offsets, lengths))
    _Written(shard, *columns, tuple(skipped)).save(Path(records) / f"{number}.npz")
    return number


class _TFRecordWriter:
    """Writes a record and says at which byte its data begin."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115

    def __call__(self, record: bytes) -> int:
        start = self._file.tell() + tfrecord.HEADER_BYTES
        self._file.write(tfrecord.frame(record))
        return start

    def close(self) -> None:
        self._file.close()


class _ArrayRecordWriter:
    """Writes a record and says its number."""

    def __init__(self, path: str) -> None:
        # Images are compressed already; a group of one is found without decoding its neighbours.
        self._writer = array_record_module().ArrayRecordWriter(path, "group_size:1,uncompressed")
        self._count = 0

    def __call__(self, record: bytes) -> int:
        self._writer.write(record)
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        self._writer.close()


def _record(samples: Samples, row: int, plan: ShardingOptions) -> bytes:
    """One image as the Example that is stored."""
    content = samples.encoded(row)
    try:
        facts, image = look(content)
    except ImageError as error:
        raise ImageError(str(samples.place(row)), error.why) from error
    width, height, format = facts.width, facts.height, facts.format
    too_large = plan.max_side is not None and max(width, height) > plan.max_side
    if too_large or not facts.plain:
        if too_large:
            image.thumbnail((plan.max_side, plan.max_side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=_JPEG_QUALITY)
        content, (width, height), format = stream.getvalue(), image.size, "JPEG"
    label = samples.labels[row]
    features: dict = {
        "image/encoded": content,
        "image/format": format,
        "image/height": height,
        "image/width": width,
        "image/filename": _name(samples, row),
    }
    if samples.multi_label:
        features["image/class/label"] = np.flatnonzero(label).tolist()
    else:
        features["image/class/label"] = int(label)
        if label >= 0:
            features["image/class/text"] = samples.classes[label]
    return example.encode(features)
