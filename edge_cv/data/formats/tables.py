"""Photos that a CSV file names, with their labels and perhaps their split."""

from __future__ import annotations

import csv
import functools
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError, unknown
from edge_cv.data.formats.folders import classes_of_names, imagenet_names
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.labels import wnid_to_index
from edge_cv.data.places import Files, Packed
from edge_cv.data.samples import Samples, some

SEPARATOR = "|"  # between the labels of one image, as pandas.Series.str.get_dummies has it

Row = dict[str, str]


def table(path: Path) -> Layout | None:
    """A CSV file, or a folder with a labels.csv.

    Its columns: `file` (beside the table, or in the folder `images` there), perhaps `split`, and

    - `index` or `wnid` or both: ImageNet's classes; where class names are given, `index` alone counts those;
    - or `label`: a class's name;
    - or `labels`: any number of classes' names, with | between them: an image may have several labels, or none.
    """
    file = path / "labels.csv" if path.is_dir() else path
    if file.suffix.lower() != ".csv" or not file.is_file():
        return None
    splits = {_split(row) for _, row in _rows(file)} - {""}
    opened = {split: functools.partial(labels_csv, file, split=split) for split in sorted(splits)}
    return Layout(opened, functools.partial(labels_csv, file))


def labels_csv(file: Path, classes: Sequence[str] | None = None, *, split: str | None = None) -> Samples:
    """The samples that a CSV file names, as `table` describes it.

    Args:
        file: the table.
        classes: the class names in order; empty is the sorted names of the table, and None ImageNet's where they are.
        split: take the rows of this split only; all by default.

    Raises:
        InputError: the table is broken, contradicts itself, or names files that are not there or an unknown split.
    """
    columns = _columns(file)
    kind = next((column for column in ("labels", "label") if column in columns), "index")
    if "file" not in columns or not columns & {"labels", "label", "index", "wnid"}:
        raise InputError(
            f"{file} must have the columns file and index or wnid (or label, or labels). "
            f"Received: {', '.join(sorted(map(str, columns))) or 'none'}"
        )
    own_index = bool(classes) and "wnid" not in columns
    limit = len(classes) if own_index else len(imagenet_names())
    names: dict[str, int] = {}  # of classes, in the order in which they come
    lines: dict[str, int] = {}  # of files
    splits, missing = set(), []
    paths, codes, counts = [], array("i"), array("i")
    folder = _Folder(file.parent)
    for line, row in _rows(file):
        where = f"{file} line {line}"
        path = _file_name(row, where)
        if lines.setdefault(path, line) != line:
            raise InputError(f"{file} lines {lines[path]} and {line} name the same file: {path}")
        found = [_index(row, where, limit)] if kind == "index" else _class_codes(row, kind, names, where)
        splits.add(_split(row))
        if split not in (None, _split(row)):
            continue
        place = folder.find(path)
        if place is None:
            missing.append(path)
            continue
        paths.append(os.fsencode(place))
        codes.extend(found)
        counts.append(len(found))
    if split is not None and split not in splits - {""}:
        raise unknown(f"split of {file}", split, sorted(splits - {""}))
    if missing:
        raise InputError(f"{file} names files that are not there: {some(missing)}")
    labels = np.array(codes, np.int32)
    if kind == "index":
        class_names = tuple(classes) if own_index else imagenet_names()
    else:
        every = sorted(names)
        positions, class_names = classes_of_names(file, every, every, classes)
        labels = np.array([positions[name] for name in names], np.int32)[labels]
    if kind == "labels":
        rows = np.repeat(np.arange(len(paths)), counts)
        several = np.zeros((len(paths), len(class_names)), bool)
        several[rows, labels] = True
        labels = several
    name = file.parent.name if file.name == "labels.csv" else file.stem
    name = name if split is None else f"{name} ({split})"
    return Samples(name, class_names, labels, Files(str(file.parent), Packed(paths)))


class _Folder:
    """Finds a table's files beside it or in `images` there, with one look into each folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> str | None:
        """The path relative to the folder, or None."""
        for candidate in (name, os.path.join("images", name)):
            folder, base = os.path.split(candidate)
            if folder not in self._names:
                try:
                    self._names[folder] = frozenset(os.listdir(self._path / folder))
                except OSError:
                    self._names[folder] = frozenset()
            if base in self._names[folder]:
                return candidate
        return None


def _rows(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _columns(file: Path) -> set[str]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            return set(csv.DictReader(opened).fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _split(row: Row) -> str:
    """The row's split, `validation` where the table says val; empty where it says none."""
    split = (row.get("split") or "").strip()
    return SPLIT_WORDS.get(split.lower(), split)


def _file_name(row: Row, where: str) -> str:
    name = row["file"] or ""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{where}: file must be a name inside the folder. Received: {name!r}")
    return os.path.normpath(name)


def _index(row: Row, where: str, limit: int) -> int:
    """The index of a row, checked against its wnid where there are both."""
    wnid, index = (row.get("wnid") or "").strip(), (row.get("index") or "").strip()
    of_wnid = wnid_to_index().get(wnid)
    if wnid and of_wnid is None:
        raise InputError(f"{where}: wnid must be one of ImageNet's 1000. Received: {wnid!r}")
    if not index and of_wnid is not None:
        return of_wnid
    if not re.fullmatch(r"[0-9]{1,9}", index) or int(index) >= limit:
        raise InputError(f"{where}: index must be a whole number in 0..{limit - 1}. Received: {index!r}")
    if of_wnid is not None and of_wnid != int(index):
        raise InputError(f"{where}: wnid {wnid} has index {of_wnid}. Received: {index}")
    return int(index)


def _class_codes(row: Row, kind: str, names: dict[str, int], where: str) -> list[int]:
    """The numbers in `names`, to which new ones are added, of the class or the classes that a row names."""
    text = row[kind] or ""
    parts = [part.strip() for part in (text.split(SEPARATOR) if kind == "labels" else [text])]
    if kind == "label" and not parts[0]:
        raise InputError(f"{where}: label must be a class's name. Received: {text!r}")
    return [names.setdefault(part, len(names)) for part in parts if part]
