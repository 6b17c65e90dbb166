"""A TFRecord or ArrayRecord file, or a folder of them: train-00000-of-00016, val_3.tfrec, data.array_record, ...

The records are tf.train.Example with the feature names of tf/slim (image/encoded, image/class/label).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from converters.errors import InputError
from edge_cv.data.formats.directories import read_text, scan
from edge_cv.data.formats.example import Features
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.formats.record_scan import format_of, open_record_files
from edge_cv.data.samples import Samples

logger = logging.getLogger(__name__)


def shards(path: Path) -> Layout | None:
    """Recognize a record file or a folder with record files; the splits are in the files' names."""
    if path.is_dir():
        files = [path / entry.name for entry in scan(path) if format_of(entry.name) and (path / entry.name).is_file()]
    else:
        files = [path] if path.is_file() else []
    by_format: dict[str, list[Path]] = {}
    for file in files:
        format = format_of(file.name)
        if format is not None:
            by_format.setdefault(format, []).append(file)
    if not by_format:
        return None
    if len(by_format) > 1:
        raise InputError(f"{path} must hold record files of one format. Received: {' and '.join(sorted(by_format))}")
    ((format, files),) = by_format.items()
    names = labels_txt(path if path.is_dir() else path.parent)
    splits: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[-_.\d]+", file.name.lower())
        splits.setdefault(next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), ""), []).append(file)
    opened = {
        split: functools.partial(_open, f"{path.name} ({split})" if split else path.name, files_of_split, format, names)
        for split, files_of_split in splits.items()
    }
    whole = opened.pop("", None)
    if opened and whole is not None:
        logger.warning("%d record files in %s whose names have no split are not used", len(splits[""]), path)
    return Layout(opened, None if opened else whole)


def _open(
    title: str, files: Sequence[Path], format: str, names: tuple[str, ...] | None, classes: Sequence[str] | None
) -> Samples:
    return open_record_files(title, files, format, Features(), names or classes)


def labels_txt(folder: Path) -> tuple[str, ...] | None:
    """The class names of labels.txt, one a line, with tf/slim's numbers (`0:daisy`) or without; None without it."""
    if not (folder / "labels.txt").is_file():
        return None
    lines = [line.strip() for line in read_text(folder / "labels.txt").splitlines() if line.strip()]
    matches = [match for line in lines if (match := re.fullmatch(r"(\d+):(.*)", line))]
    if [int(match[1]) for match in matches] == list(range(len(lines))):
        return tuple(match[2] for match in matches)
    return tuple(lines)
