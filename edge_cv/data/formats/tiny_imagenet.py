"""Tiny ImageNet: train/<wnid>/images/*.JPEG, val/images with val_annotations.txt, test/images, wnids.txt."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv.data.formats.directories import image_names, read_text, samples_of_files
from edge_cv.data.formats.layout import Layout, Open
from edge_cv.data.samples import UNKNOWN, Samples


def tiny_imagenet(path: Path) -> Layout | None:
    """Recognize a folder with wnids.txt and train."""
    if not (path / "wnids.txt").is_file() or not (path / "train").is_dir():
        return None
    wnids = [line.strip() for line in read_text(path / "wnids.txt").splitlines() if line.strip()]
    for wnid in wnids:
        if not re.fullmatch(r"n\d{8}", wnid):
            raise InputError(f"{path / 'wnids.txt'} must hold one wnid a line. Received: {wnid!r}")
    names = _class_names(path, wnids)
    splits: dict[str, Open] = {"train": functools.partial(_train, path, wnids, names)}
    if (path / "val").is_dir():
        splits["validation"] = functools.partial(_validation, path, wnids, names)
    if (path / "test").is_dir():
        splits["test"] = functools.partial(_test, path)
    return Layout(splits)


def _class_names(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first name of each class in words.txt, or the wnids where the names repeat."""
    words = read_text(path / "words.txt") if (path / "words.txt").is_file() else ""
    by_wnid = dict(line.split("\t", 1) for line in words.splitlines() if "\t" in line)
    names = tuple(by_wnid.get(wnid, wnid).split(",")[0].strip() for wnid in wnids)
    return names if len(set(names)) == len(names) else tuple(wnids)


def _train(path: Path, wnids: Sequence[str], names: tuple[str, ...], classes: Sequence[str] | None) -> Samples:
    images = [image_names(path / "train" / wnid / "images") for wnid in wnids]
    paths = (
        os.fsencode(f"train/{wnid}/images/{name}") for wnid, files in zip(wnids, images, strict=True) for name in files
    )
    labels = np.repeat(np.arange(len(wnids)), [len(files) for files in images])
    return samples_of_files(path, f"{path.name} (train)", paths, labels, names)


def _validation(path: Path, wnids: Sequence[str], names: tuple[str, ...], classes: Sequence[str] | None) -> Samples:
    table = path / "val" / "val_annotations.txt"
    positions = {wnid: index for index, wnid in enumerate(wnids)}
    existing = set(image_names(path / "val" / "images"))
    files, labels = [], []
    for number, line in enumerate(read_text(table).splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.split("\t")[0]
        if wnid not in positions:
            raise InputError(f"{table} line {number}: must name a wnid of wnids.txt. Received: {line!r}")
        if name not in existing:
            raise InputError(f"{table} line {number}: must name a file of val/images. Received: {name!r}")
        files.append(os.fsencode(f"val/images/{name}"))
        labels.append(positions[wnid])
    return samples_of_files(path, f"{path.name} (validation)", files, np.array(labels, np.int32), names)


def _test(path: Path, classes: Sequence[str] | None) -> Samples:
    files = [os.fsencode(f"test/images/{name}") for name in image_names(path / "test" / "images")]
    return samples_of_files(path, f"{path.name} (test)", files, np.full(len(files), UNKNOWN), ())
