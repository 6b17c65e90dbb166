"""A CSV file that names images, their labels and, optionally, their split.

Its columns: `file` (a path relative to the table, or to a folder beside it that is called `images`, or as the table,
as `train` or `train_images` beside train.csv; also `filename`, `path`, `image`, `image_id` or `id`; the suffix may be
missing), optionally `split`, and one of

- `index`, `wnid` or both: ImageNet's classes; `index` alone counts the caller's classes where these are given;
- `label` (or `class`, `category`): a class name; else the only one of `target`, `diagnosis`, `breed` and the like;
- `labels`: class names separated by |; an image may have several, or none.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from converters.errors import MAX_LISTED, InputError, unknown
from converters.images.decoding import is_image_name
from edge_cv.data.formats.class_indices import class_indices
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.formats.tables import (
    CLASS_COLUMNS,
    FILE_COLUMNS,
    ID_COLUMNS,
    LABEL_COLUMNS,
    Table,
    read_table,
)
from edge_cv.data.labels import imagenet_names, sorted_names, wnid_to_index
from edge_cv.data.places import Files, Packed
from edge_cv.data.samples import Samples, shortened

SEPARATOR = "|"  # between the labels of one image, as in pandas.Series.str.get_dummies

Row = dict[str, str]


def labels_csv(path: Path) -> Layout | None:
    """Recognize a CSV file, or a folder with a labels.csv."""
    file = path / "labels.csv" if path.is_dir() else path
    if file.suffix.lower() not in (".csv", ".tsv") or not file.is_file():
        return None
    splits = {_split(row) for _, row in _rows(read_table(file))} - {""}
    opened = {split: functools.partial(open_labels_csv, file, split=split) for split in sorted(splits)}
    return Layout(opened, functools.partial(open_labels_csv, file))


def open_labels_csv(file: Path, classes: Sequence[str] | None = None, *, split: str | None = None) -> Samples:
    """Open the images that a CSV file names.

    Args:
        file: the table.
        classes: the class names in order; empty for the table's names, sorted; None for ImageNet's where they fit.
        split: take the rows of this split only. Default: all rows.

    Raises:
        InputError: the table is broken, contradicts itself, or names missing files or an unknown split.
    """
    table = read_table(file)
    columns = set(_columns(table))
    kind = next((column for column in ("labels", "label") if column in columns), "index")
    if "file" not in columns or not columns & {"labels", "label", "index", "wnid"}:
        likely = table.every(CLASS_COLUMNS)
        choice = f"; rename the one of {', '.join(likely)} that is the class to label" if len(likely) > 1 else ""
        raise InputError(
            f"{file} must have the columns file (or image, image_id or id) and label (or class, category, or one such "
            f"as target; or labels, index or wnid){choice}. Received: {', '.join(table.columns)[:MAX_LISTED] or 'none'}"
        )
    index_names = tuple(classes) if classes and "wnid" not in columns else imagenet_names()
    images = _read(table, kind, len(index_names), split)
    if split is not None and split not in images.splits - {""}:
        raise unknown(f"split of {file}", split, sorted(images.splits - {""}))
    if images.missing:
        raise InputError(f"{file} names files that do not exist: {shortened(images.missing)}")
    if len(set(images.paths)) < len(images.paths):
        raise InputError(f"{file} must name each file once. Received: names with and without a suffix of one file")
    labels, class_names = np.array(images.codes, np.int32), index_names
    if kind != "index":
        every = sorted_names(images.names)
        positions, class_names = class_indices(file, every, every, classes)
        labels = np.array([positions[name] for name in images.names], np.int32)[labels]
    if kind == "labels":
        label_sets = np.zeros((len(images.paths), len(class_names)), bool)
        label_sets[np.repeat(np.arange(len(images.paths)), images.counts), labels] = True
        labels = label_sets
    name = file.parent.name if file.name == "labels.csv" else file.stem
    name = name if split is None else f"{name} ({split})"
    return Samples(name, class_names, labels, Files(str(file.parent), Packed(images.paths)))


@dataclass
class _Images:
    """The content of a CSV file.

    Attributes:
        paths: of the images, relative to the table's folder.
        codes: the images' labels one after the other: indices, or positions in `names`.
        counts: the number of labels of each image.
        names: the position of each class name, in the order of their first row.
        splits: all that occur.
        missing: files that do not exist.
    """

    paths: list[bytes] = field(default_factory=list)
    codes: array = field(default_factory=lambda: array("i"))
    counts: array = field(default_factory=lambda: array("i"))
    names: dict[str, int] = field(default_factory=dict)
    splits: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)


def _read(table: Table, kind: str, classes: int, split: str | None) -> _Images:
    file = table.file
    images, folder = _Images(), _Folder(file)
    lines: dict[str, int] = {}  # of files
    for line, row in _rows(table):
        where = f"{file} line {line}"
        path = _file_name(row, where)
        if lines.setdefault(path, line) != line:
            raise InputError(f"{file} lines {lines[path]} and {line} name the same file: {path}")
        codes = [_index(row, where, classes)] if kind == "index" else _class_codes(row, kind, images.names, where)
        images.splits.add(_split(row))
        if split not in (None, _split(row)):
            continue
        place = folder.find(path)
        if place is None:
            images.missing.append(path)
            continue
        images.paths.append(os.fsencode(place))
        images.codes.extend(codes)
        images.counts.append(len(codes))
    return images


class _Folder:
    """Finds a table's files beside it or in a folder of images there; lists each folder once."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._names: dict[str, frozenset[str]] = {}
        self._without_suffix: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """The path relative to the table's folder, also of a name without its suffix; None if there is no such file.

        Raises:
            InputError: the suffix is missing, and several files have that name.
        """
        stem = self._table.stem
        candidates = [name, *(os.path.join(place, name) for place in ("images", stem, f"{stem}_images"))]
        for candidate in candidates:
            folder, base = os.path.split(candidate)
            if base in self._listed(folder):
                return candidate
        for candidate in candidates:
            folder, base = os.path.split(candidate)
            found = self._stems(folder).get(base, ())
            if len(found) > 1:
                raise InputError(
                    f"{self._table} names {base} without its suffix, which must be one file. "
                    f"Received: {shortened(sorted(found))} in {self._table.parent / folder}"
                )
            if found:
                return os.path.join(folder, found[0])
        return None

    def _listed(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            self._names[folder] = frozenset()
            with contextlib.suppress(OSError):
                self._names[folder] = frozenset(os.listdir(self._table.parent / folder))
        return self._names[folder]

    def _stems(self, folder: str) -> dict[str, list[str]]:
        """The image files of a folder by their name without its suffix."""
        if folder not in self._without_suffix:
            stems: dict[str, list[str]] = {}
            for entry in filter(is_image_name, self._listed(folder)):
                stems.setdefault(os.path.splitext(entry)[0], []).append(entry)
            self._without_suffix[folder] = stems
        return self._without_suffix[folder]


def _columns(table: Table) -> dict[str, str]:
    """The table's name of each column that is read."""
    names = {"file": (*FILE_COLUMNS, *ID_COLUMNS), "label": LABEL_COLUMNS}
    every = ("file", "labels", "label", "index", "wnid", "split")
    found = {name: table.column(names.get(name, (name,))) for name in every}
    likely = [column for column in table.every(CLASS_COLUMNS) if column != found["file"]]
    if len(likely) == 1 and not any(found[name] for name in ("labels", "label", "index", "wnid")):
        found["label"] = likely[0]
    return {name: column for name, column in found.items() if column is not None}


def _rows(table: Table) -> Iterator[tuple[int, Row]]:
    columns = _columns(table)
    for line, row in table.rows():
        yield line, {name: row[column] for name, column in columns.items()}


def _split(row: Row) -> str:
    """The row's split (`validation` for val); empty where it has none."""
    split = (row.get("split") or "").strip()
    return SPLIT_WORDS.get(split.lower(), split)


def _file_name(row: Row, where: str) -> str:
    name = row["file"].strip().replace("\\", "/")
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{where}: file must be a name inside the folder. Received: {name!r}")
    return os.path.normpath(name)


def _index(row: Row, where: str, classes: int) -> int:
    """The class index of a row, checked against its wnid where both are given."""
    wnid, index = (row.get("wnid") or "").strip(), (row.get("index") or "").strip()
    of_wnid = wnid_to_index().get(wnid)
    if wnid and of_wnid is None:
        raise InputError(f"{where}: wnid must be one of ImageNet's 1000. Received: {wnid!r}")
    if not index and of_wnid is not None:
        return of_wnid
    if not re.fullmatch(r"[0-9]{1,9}", index) or int(index) >= classes:
        raise InputError(f"{where}: index must be a whole number in 0..{classes - 1}. Received: {index!r}")
    if of_wnid is not None and of_wnid != int(index):
        raise InputError(f"{where}: wnid {wnid} has index {of_wnid}. Received: {index}")
    return int(index)


def _class_codes(row: Row, kind: str, names: dict[str, int], where: str) -> list[int]:
    """The positions in `names` of a row's classes; new names are added."""
    text = row[kind] or ""
    parts = [part.strip() for part in (text.split(SEPARATOR) if kind == "labels" else [text])]
    if kind == "label" and not parts[0]:
        raise InputError(f"{where}: label must be a class name. Received: {text!r}")
    return [names.setdefault(part, len(names)) for part in parts if part]
