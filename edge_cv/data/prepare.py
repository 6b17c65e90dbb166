"""`edge-cv data prepare`: write any source of labelled images as shards.

Shards open without a scan and are read sequentially. A seed assigns the images to shards, so that a shard read from
start to end is already shuffled. Every image is decoded: broken ones are reported, and those that decoders read
differently (CMYK, EXIF rotation, 16 bits, animations, formats other than JPEG and PNG) are stored as upright RGB JPEGs.
The shards are byte for byte the same for any number of cores and any number of interruptions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.files import file_sha256, remove_temporary, write_atomic
from converters.images.decoding import ImageError
from edge_cv.data.formats.array_record import array_record_module
from edge_cv.data.formats.prepared import MANIFEST, Manifest, Split, index_content, index_name, is_whole, verify
from edge_cv.data.formats.record_scan import ARRAY_RECORD
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.places import Packed
from edge_cv.data.samples import Samples
from edge_cv.data.shard_writing import ShardingOptions, ShardRecord, name_of, write_shards
from edge_cv.folder_lock import NAME as LOCK
from edge_cv.folder_lock import holds
from edge_cv.progress import Progress, silent

_UNFINISHED = ".unfinished"  # the folder of the finished shards' records, until all shards are finished
_SHARD_BYTES = 256 * 2**20  # read in about a second; some 550 shards for ImageNet
_SIZED = 200  # images whose size estimates that of all


@holds("out")
def prepare(
    source: str | os.PathLike,
    out: str | os.PathLike,
    options: ShardingOptions = ShardingOptions(),  # noqa: B008
    *,
    split: str | None = None,
    classes: tuple[str, ...] | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Write a source's splits as shards with a manifest and verify them. An interrupted call is resumed by the next.

    Args:
        source: what `open_samples` opens.
        out: a folder that is empty or missing, or that holds a part of the same data set.
        options: how the shards are written.
        split: one of the source's splits. Default: all of its splits, else `train` and `validation` drawn from it.
        classes: as for `open_samples`. Default: `classes_to_train(source)`.
        progress: shows the progress.

    Returns:
        The manifest.

    Raises:
        InputError: the source cannot be used, an image is broken and `options` refuses that, the folder holds something
            else, or the disk is full. Finished shards stay, and the next call resumes.
    """
    out = Path(out)
    if options.format == ARRAY_RECORD:
        array_record_module()  # reports a missing package before any work
    splits: tuple[str | None, ...] = (split,) if split is not None else splits_of(source)
    classes = classes_to_train(source) if classes is None else classes
    if not splits:
        splits = ("train", "validation") if open_samples(source, None, classes).classes else (None,)
    manifest = _read_manifest(out)
    for name in sorted(splits, key=lambda name: name != "train"):  # the training split defines the classes
        samples = open_samples(source, name, classes)
        if manifest is None:
            title = Path(os.fspath(source)).name
            manifest = Manifest(title, options.format, samples.classes, samples.multi_label, {})
        if not samples.classes:  # a test split without labels
            samples = dataclasses.replace(samples, classes=manifest.classes)
        manifest = _with_split(out, manifest, name or "all", samples, options, progress)
    if manifest is None:
        raise InputError(f"{source} must have at least one split. Received: none")
    _remove_records(out, manifest)
    return manifest


def _read_manifest(out: Path) -> Manifest | None:
    if out.exists() and not out.is_dir():
        raise InputError(f"the folder for shards must be a folder. Received: {out}")
    manifest = Manifest.read(out)
    if (
        manifest is None
        and out.is_dir()
        and any(entry.name != LOCK for entry in out.iterdir())
        and not (out / _UNFINISHED).is_dir()
    ):
        raise InputError(f"the folder for shards must be empty, or hold shards of the same data set. Received: {out}")
    return manifest


def _with_split(
    out: Path, manifest: Manifest, name: str, samples: Samples, options: ShardingOptions, progress: Progress
) -> Manifest:
    """The manifest with one more split, whose shards are written and verified."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"a split must have a name that files can have. Received: {name!r}")
    form = options.format, samples.classes, samples.multi_label
    if (manifest.format, manifest.classes, manifest.multi_label) != form:
        raise InputError(
            f"the splits in {out} must have one format and the same classes. Received: {name} with {options.format} "
            f"and {len(samples.classes)} classes, beside {manifest.format} and {len(manifest.classes)} classes"
        )
    count = options.shards or _default_shards(samples)
    if count > len(samples):
        raise InputError(f"there must be at most one shard an image. Received: {count} for {len(samples)} images")
    order = np.random.default_rng(options.seed).permutation(len(samples))
    key = _key(samples, order, options, count)
    if name in manifest.splits:
        if manifest.splits[name].key == key:
            return manifest
        raise InputError(f"{out} holds {name} with other images or options; choose another folder, or delete this one")
    records = out / _UNFINISHED / name
    _check_resumable(records, key, out, name)
    with progress(f"writing {name}") as update:
        try:
            written = write_shards(samples, options, np.array_split(order, count), out, name, records, update)
        finally:
            remove_temporary(out)  # of workers that were ended
    manifest = dataclasses.replace(
        manifest, splits={**manifest.splits, name: _finish_split(out, name, key, samples, written)}
    )
    pending = out / _UNFINISHED / MANIFEST
    write_atomic(pending, manifest.to_json())
    with progress(f"verifying {name}") as update:
        try:
            verify(out, update, name, manifest)
        except InputError:
            for number, record in enumerate(written):  # the next call rewrites the shards that changed
                if not is_whole(out, record.shard):
                    (records / f"{number}.npz").unlink(missing_ok=True)
            raise
    os.replace(pending, out / MANIFEST)
    return manifest


def _remove_records(out: Path, manifest: Manifest) -> None:
    """Remove the records of finished splits, and the folder of records if there is no other."""
    unfinished = out / _UNFINISHED
    for name in manifest.splits:
        shutil.rmtree(unfinished / name, ignore_errors=True)
    if unfinished.is_dir() and not any(entry.is_dir() for entry in unfinished.iterdir()):
        shutil.rmtree(unfinished)


def _finish_split(out: Path, name: str, key: str, samples: Samples, written: Sequence[ShardRecord]) -> Split:
    """Write the index of a split's shards."""
    rows = np.concatenate([record.rows for record in written])
    skipped = tuple(pair for record in written for pair in record.skipped)
    if not len(rows):
        raise InputError(f"none of the {len(samples)} images of {samples.name} can be read. The first: {skipped[0]}")
    owner = np.repeat(np.arange(len(written), dtype=np.int32), [len(record.rows) for record in written])
    offset, length = (
        np.concatenate([getattr(record, column) for record in written]) for column in ("offset", "length")
    )
    names = Packed(name_of(samples, row) for row in rows)
    index = write_atomic(out / index_name(name), index_content(owner, offset, length, samples.labels[rows], names))
    return Split(key, len(rows), tuple(record.shard for record in written), file_sha256(index), skipped)


def _check_resumable(records: Path, key: str, out: Path, name: str) -> None:
    """Raise InputError where the folder holds unfinished shards of other images or options."""
    place = records / "key"
    if not place.is_file():
        write_atomic(place, key)
    elif place.read_text(encoding="utf-8", errors="replace") != key:
        raise InputError(
            f"{out} holds unfinished shards of {name} with other images or options; resume with those, choose another "
            "folder, or delete this one"
        )


def _default_shards(samples: Samples) -> int:
    """One for every 256 MB, estimated from some of the images."""
    chosen = samples.take(_SIZED)
    sizes = []
    for index in range(len(chosen)):
        try:
            sizes.append(len(chosen.encoded(index)))
        except ImageError:
            continue
    return min(len(samples), 99999, 1 + int(np.mean(sizes or [0]) * len(samples)) // _SHARD_BYTES)


def _key(samples: Samples, order: np.ndarray, options: ShardingOptions, count: int) -> str:
    """A digest of all that the shards depend on except the images' content: names, labels, order and options."""
    fields = dataclasses.asdict(dataclasses.replace(options, shards=count))
    if options.short_side is None:  # as in the keys of versions without it
        del fields["short_side"]
    digest = hashlib.sha256(json.dumps([fields, samples.classes]).encode())
    digest.update(samples.labels.tobytes())
    digest.update(order.astype(np.int64).tobytes())
    for index in range(len(samples)):
        digest.update(name_of(samples, index) + b"\0")
    return digest.hexdigest()
