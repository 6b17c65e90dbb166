"""Writing shards in worker processes: each is written under a temporary name, renamed, and then recorded."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from converters.errors import InputError, unknown
from converters.files import file_sha256, temporary_beside, write_atomic
from converters.images.decoding import ImageError
from edge_cv.data.formats import example, tfrecord
from edge_cv.data.formats.array_record import array_record_module, encoded_image
from edge_cv.data.formats.prepared import FORMATS, Shard
from edge_cv.data.formats.record_scan import ARRAY_RECORD, TFRECORD
from edge_cv.data.image_files import inspect
from edge_cv.data.samples import Samples
from edge_cv.parallel.processes import map_in_processes

BROKEN = ("skip", "refuse")

_SUFFIXES = {TFRECORD: "tfrecord", ARRAY_RECORD: "array_record"}
_JPEG_QUALITY = 95
_SMALL = 100  # images; fewer are written before processes have started


@dataclass(frozen=True)
class ShardingOptions:
    """How a split is written. With the images, they determine every byte of the shards.

    Attributes:
        format: `tfrecord` or `array_record`.
        shards: the number of files. Default: one for every 256 MB.
        max_side: images with a longer side are resized to it, in pixels. Default: images keep their size.
        broken: `skip` images that cannot be read and report them, or `refuse` the data set.
        seed: assigns the images to shards.
        short_side: images with a longer short side are resized to it, in pixels. Default: images keep their size.
    """

    format: str = TFRECORD
    shards: int | None = None
    max_side: int | None = None
    broken: str = "skip"
    seed: int = 0
    short_side: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format of shards", self.format, FORMATS)
        if self.broken not in BROKEN:
            raise unknown("treatment of broken images", self.broken, BROKEN)
        if self.max_side is not None and self.short_side is not None:
            raise InputError(
                "images must be shrunk by max_side or by short_side. "
                f"Received: max_side={self.max_side}, short_side={self.short_side}"
            )
        for name in ("shards", "max_side", "short_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1. Received: {value}")
        if self.shards is not None and self.shards > 99999:
            raise InputError(f"shards must be at most 99999. Received: {self.shards}")


@dataclass(frozen=True, eq=False)
class ShardRecord:
    """The record of a finished shard.

    Attributes:
        shard: the file.
        rows: int64 `(n,)`, the samples that it holds.
        offset, length: int64 `(n,)`, as in the index.
        skipped: (name, reason) of each sample that cannot be read.
    """

    shard: Shard
    rows: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    skipped: tuple[tuple[str, str], ...]

    def save(self, path: Path) -> None:
        stream = io.BytesIO()
        fields = json.dumps([dataclasses.asdict(self.shard), self.skipped]).encode()
        np.savez(stream, fields=np.frombuffer(fields, np.uint8), rows=self.rows, offset=self.offset, length=self.length)
        write_atomic(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path, shard: Path) -> ShardRecord | None:
        """The record of an existing shard; None where it has to be written."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fields, skipped = json.loads(arrays["fields"].tobytes())
                record = cls(
                    Shard(**fields),
                    arrays["rows"],
                    arrays["offset"],
                    arrays["length"],
                    tuple((name, reason) for name, reason in skipped),
                )
            return record if shard.stat().st_size == record.shard.bytes else None
        except Exception:  # any error means that the shard is written again
            return None


def write_shards(
    samples: Samples,
    options: ShardingOptions,
    parts: Sequence[np.ndarray],
    out: Path,
    name: str,
    records: Path,
    on_progress: Callable[[int, int], None],
) -> list[ShardRecord]:
    """Write the shards that are not recorded yet, on all cores.

    Args:
        samples: the images.
        options: how they are written.
        parts: for each shard the indices of its samples.
        out: the folder of the shards.
        name: of the split.
        records: the folder of the records.
        on_progress: called with the numbers of images done and of all images.
    """
    files = [out / f"{name}-{i:05d}-of-{len(parts):05d}.{_SUFFIXES[options.format]}" for i in range(len(parts))]
    written = {i: ShardRecord.read(records / f"{i}.npz", file) for i, file in enumerate(files)}
    missing = [i for i, record in written.items() if record is None]
    done = sum(len(part) for i, part in enumerate(parts) if written[i] is not None)
    on_progress(done, len(samples))
    shared = (samples, options, parts, files, records)
    for i in map_in_processes(_write_shard, missing, initializer=_share, initargs=shared, small=len(samples) < _SMALL):
        written[i] = ShardRecord.read(records / f"{i}.npz", files[i])
        done += len(parts[i])
        on_progress(done, len(samples))
    return [record for record in written.values() if record is not None]


def name_of(samples: Samples, index: int) -> bytes:
    """The name of an image in its source."""
    return samples.places.key(samples.rows[index]).replace(b"\0", b"")


# ------------------------------------------------------------------------------------------------ in a worker process

_shared: tuple[Samples, ShardingOptions, Sequence[np.ndarray], Sequence[Path], Path]


def _share(*shared) -> None:
    global _shared
    _shared = shared


def _write_shard(number: int) -> int:
    samples, options, parts, files, records = _shared
    path = files[number]
    handle, temporary = temporary_beside(path)
    os.close(handle)
    try:
        columns, skipped = _write_images(temporary, samples, parts[number], options)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        images = columns.shape[1]
        shard = Shard(path.name, images, os.path.getsize(temporary), file_sha256(Path(temporary)))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path} cannot be written: {reason}") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    ShardRecord(shard, columns[0], columns[1], columns[2], skipped).save(records / f"{number}.npz")
    return number


def _write_images(
    path: str, samples: Samples, part: np.ndarray, options: ShardingOptions
) -> tuple[np.ndarray, tuple[tuple[str, str], ...]]:
    """Write some samples; returns row, offset and length of each image, int64 `(3, n)`, and what is skipped."""
    rows, offsets, lengths, skipped = [], [], [], []
    writer = _TFRecordWriter(path) if options.format == TFRECORD else _ArrayRecordWriter(path)
    for row in part.tolist():
        try:
            record = _record(samples, row, options)
        except ImageError as error:
            if options.broken == "refuse":
                raise InputError(f"every image must be readable. Received: {error}") from error
            skipped.append((str(samples.place(row)), error.why))
            continue
        offset, length = encoded_image(record, example.Features())
        rows.append(row)
        offsets.append(writer.write(record, offset))
        lengths.append(length)
    writer.close()
    return np.array([rows, offsets, lengths], np.int64), tuple(skipped)


class _TFRecordWriter:
    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, record: bytes, offset: int) -> int:
        """Write a record; returns where the byte at `offset` of it is in the file."""
        start = self._file.tell() + tfrecord.HEADER_BYTES
        self._file.write(tfrecord.frame(record))
        return start + offset

    def close(self) -> None:
        self._file.close()


class _ArrayRecordWriter:
    def __init__(self, path: str) -> None:
        # Images are compressed already. With groups of one, a record is read without its neighbours.
        self._writer = array_record_module().ArrayRecordWriter(path, "group_size:1,uncompressed")
        self._count = 0

    def write(self, record: bytes, offset: int) -> int:
        """Write a record; returns its number."""
        self._writer.write(record)
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        self._writer.close()


def stored(content: bytes, options: ShardingOptions) -> bytes:
    """An encoded image as the shards hold it: unchanged, or shrunk, or as an upright RGB JPEG.

    Raises:
        ImageError: the content cannot be read as an image.
    """
    return _stored(content, options)[0]


def _stored(content: bytes, options: ShardingOptions) -> tuple[bytes, int, int, str]:
    """The image with its width, height and format."""
    facts, image = inspect(content)
    size = _shrunk(facts.width, facts.height, options)
    if facts.plain and size == image.size:
        return content, *size, facts.format
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue(), *size, "JPEG"


def _record(samples: Samples, row: int, options: ShardingOptions) -> bytes:
    """The Example of one image."""
    content = samples.encoded(row)
    try:
        content, width, height, format = _stored(content, options)
    except ImageError as error:
        raise ImageError(str(samples.place(row)), error.why) from error
    label = samples.labels[row]
    features: dict[str, bytes | str | int | Sequence[int]] = {
        "image/encoded": content,
        "image/format": format,
        "image/height": height,
        "image/width": width,
        "image/filename": name_of(samples, row),
    }
    if samples.multi_label:
        features["image/class/label"] = np.flatnonzero(label).tolist()
    else:
        features["image/class/label"] = int(label)
        if label >= 0:
            features["image/class/text"] = samples.classes[label]
    return example.encode(features)


def _shrunk(width: int, height: int, options: ShardingOptions) -> tuple[int, int]:
    """The width and height that an image is stored with."""
    if options.max_side is not None:
        share = options.max_side / max(width, height)
    elif options.short_side is not None:
        share = options.short_side / min(width, height)
    else:
        return width, height
    return (width, height) if share >= 1 else (max(1, round(width * share)), max(1, round(height * share)))
