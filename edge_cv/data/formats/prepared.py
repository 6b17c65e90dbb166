"""Shards that `edge-cv data prepare` wrote: their manifest, their index, and their verification.

    manifest.json          the classes, and for each split its shards with counts and SHA-256
    train-index.npz        shard, offset, label and name of each image, so that the shards need not be scanned
    train-00000-of-00016.tfrecord (or .array_record), ...

The records are tf.train.Example with the feature names of tf/slim (image/encoded, image/class/label from 0, ...), so
that other programs read them as well.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters import strict_json
from converters.errors import InputError
from converters.files import file_sha256
from converters.strict_json import mapping
from edge_cv.data.formats import tfrecord
from edge_cv.data.formats.array_record import ArrayRecordImages, open_array_record
from edge_cv.data.formats.layout import Layout
from edge_cv.data.formats.record_scan import ARRAY_RECORD, TFRECORD
from edge_cv.data.places import Packed, Parts, Places
from edge_cv.data.samples import Samples
from edge_cv.parallel.processes import map_in_processes

MANIFEST = "manifest.json"
SCHEMA = 1
MAX_FILE_NAME = 200  # characters
FORMATS = (TFRECORD, ARRAY_RECORD)


@dataclass(frozen=True)
class Shard:
    """One file of a split: its name, number of images, size in bytes and SHA-256."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        key: a digest of the images' names and labels and of the options.
        images: the number of images in all shards.
        shards: the files.
        index_sha256: of the index.
        skipped: (name, reason) of each image that was left out.
    """

    key: str
    images: int
    shards: tuple[Shard, ...]
    index_sha256: str
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Manifest:
    """The content of a prepared data set."""

    name: str
    format: str
    classes: tuple[str, ...]
    multi_label: bool
    splits: dict[str, Split]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder; None without one. InputError when it is broken."""
        path = folder / MANIFEST
        if not path.is_file():
            return None
        try:
            fields = mapping(strict_json.parse(path.read_bytes(), "it"), "it")
            if fields.get("schema") != SCHEMA or fields.get("format") not in FORMATS:
                received = f"schema {fields.get('schema')!r:.20}, format {fields.get('format')!r:.20}"
                raise InputError(f"it must have schema {SCHEMA} and a format of {', '.join(FORMATS)}, not {received}")
            manifest: Manifest = strict_json.typed(cls, fields, "it")
            for name in (*manifest.splits, *(s.file for part in manifest.splits.values() for s in part.shards)):
                _check_file_name(name)
            return manifest
        except (OSError, InputError) as error:
            raise InputError(f"{path} must be a manifest of `edge-cv data prepare`. Received: {error}") from error


def prepared(path: Path) -> Layout | None:
    """Recognize a folder with a manifest."""
    manifest = Manifest.read(path) if path.is_dir() else None
    if manifest is None:
        return None
    return Layout({split: functools.partial(_open, path, manifest, split) for split in manifest.splits})


def index_name(split: str) -> str:
    return f"{split}-index.npz"


def index_content(
    shard: np.ndarray, offset: np.ndarray, length: np.ndarray, labels: np.ndarray, names: Packed
) -> bytes:
    """The index of a split as an .npz file.

    Args:
        shard: int32 `(n,)`, the shard of each image.
        offset: int64 `(n,)`, of the encoded image in the shard; in ArrayRecord files the record's number.
        length: int64 `(n,)`, of the encoded image, in bytes.
        labels: as in `Samples`.
        names: of the images in their source.
    """
    stream = io.BytesIO()
    joined = b"\0".join(names[i] for i in range(len(names)))
    np.savez(stream, shard=shard, offset=offset, length=length, labels=labels, names=np.frombuffer(joined, np.uint8))
    return stream.getvalue()


def verify(
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
    split: str | None = None,
    manifest: Manifest | None = None,
) -> Manifest:
    """Read every shard of a prepared data set and compare it with the manifest.

    Args:
        folder: of the data set.
        on_progress: called with the numbers of images done and of all images.
        split: verify this split only. Default: all splits.
        manifest: what to compare with. Default: the folder's own.

    Raises:
        InputError: there is no manifest, or a file is missing, differs, or holds another number of images.
    """
    manifest = manifest or Manifest.read(folder)
    if manifest is None:
        raise InputError(f"{folder} must hold a {MANIFEST} of `edge-cv data prepare`. Received: none")
    chosen = {name: part for name, part in manifest.splits.items() if split in (None, name)}
    for name, part in chosen.items():
        index = folder / index_name(name)
        if not index.is_file() or file_sha256(index) != part.index_sha256:
            raise InputError(
                f"{index} does not match the manifest's SHA-256 (missing or modified); run `edge-cv data prepare` again"
            )
        _open(folder, manifest, name, None)
    shards = [shard for part in chosen.values() for shard in part.shards]
    total, done = sum(shard.images for shard in shards), 0
    small = sum(shard.bytes for shard in shards) < 2**28  # read faster than processes start
    for shard in map_in_processes(functools.partial(_check_shard, folder, manifest.format), shards, small=small):
        done += shard.images
        if on_progress is not None:
            on_progress(done, total)
    return manifest


def is_whole(folder: Path, shard: Shard) -> bool:
    """Whether a shard's file has the size and the SHA-256 that were recorded."""
    path = folder / shard.file
    return path.is_file() and path.stat().st_size == shard.bytes and file_sha256(path) == shard.sha256


def _check_shard(folder: Path, format: str, shard: Shard) -> Shard:
    path = folder / shard.file
    if not is_whole(folder, shard):
        raise InputError(
            f"{path} does not match the manifest's size and SHA-256 (missing or modified); "
            "run `edge-cv data prepare` again"
        )
    images = tfrecord.check_data(path) if format == TFRECORD else open_array_record(str(path)).num_records()
    if images != shard.images:
        raise InputError(f"{path} must hold {shard.images} images. Received: {images}")
    return shard


def _open(folder: Path, manifest: Manifest, split: str, classes: Sequence[str] | None) -> Samples:
    part = manifest.splits[split]
    files = tuple(str(folder / shard.file) for shard in part.shards)
    for path, shard in zip(files, part.shards, strict=True):
        if not os.path.isfile(path) or os.path.getsize(path) != shard.bytes:
            raise InputError(
                f"{path} must be a file of {shard.bytes} bytes, as in the manifest; it is missing or modified"
            )
    index = folder / index_name(split)
    columns = _columns(index)
    owner, offset, length, labels = (columns[name] for name in ("shard", "offset", "length", "labels"))
    joined = columns["names"].tobytes()
    names = Packed(joined.split(b"\0"))
    if not len(owner) == len(offset) == len(length) == len(labels) == len(names) == part.images:
        raise InputError(f"{index} must have {part.images} images. Received: {len(owner)}")
    if owner.min() < 0 or owner.max() >= len(files) or offset.min() < 0 or length.min() < 0:
        raise InputError(f"{index} must point into the {len(files)} shards. Received: an offset outside them")
    places: Places
    if manifest.format == TFRECORD:
        if (offset + length > np.array([s.bytes for s in part.shards])[owner]).any():
            raise InputError(f"{index} must point into the {len(files)} shards. Received: an offset outside them")
        places = Parts(files, owner, offset, length, names)
    else:
        places = ArrayRecordImages(files, owner, offset.astype(np.int32), names=names)
    return Samples(f"{manifest.name} ({split})", manifest.classes, labels, places)


def _columns(index: Path) -> dict[str, np.ndarray]:
    kinds: dict[str, tuple[Any, ...]] = {
        "shard": (np.int32,),
        "offset": (np.int64,),
        "length": (np.int64,),
        "labels": (np.int32, np.bool_),
        "names": (np.uint8,),
    }
    try:
        with np.load(index, allow_pickle=False) as arrays:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in arrays.zip.infolist()):
                raise ValueError("a compressed column, which may be of any size")
            columns = {name: arrays[name] for name in kinds}
        if any(columns[name].dtype not in dtypes for name, dtypes in kinds.items()):
            raise ValueError("a column is of another type")
        if any(columns[name].ndim != 1 + (columns[name].dtype == np.bool_) for name in kinds):
            raise ValueError("a column is of another shape")
        return columns
    except Exception as error:  # numpy and zipfile raise various errors for a broken file
        raise InputError(f"{index} must be an index of `edge-cv data prepare`. Received: {error!r}") from error


def _check_file_name(name: str) -> None:
    """Raise InputError for a name that leads to another folder."""
    if not 0 < len(name) < MAX_FILE_NAME or name != os.path.basename(name) or name in (".", "..") or "\0" in name:
        raise InputError(f"a name of a file must not lead to another folder. Received: {name!r:.80}")
