"""A folder of `train`, `validation` (or `val`) and `test`, of class folders, photos or ImageNet's validation photos."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_cv.data.formats.class_folders import open_class_folders
from edge_cv.data.formats.directories import is_class_folder, scan
from edge_cv.data.formats.imagenet_validation import is_validation_folder, open_imagenet_validation
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.labels import imagenet_names
from edge_cv.data.samples import Samples


def split_folders(path: Path) -> Layout | None:
    """Recognize a folder all of whose folders are named after splits."""
    if not path.is_dir():
        return None
    folders = {entry.name: path / entry.name for entry in scan(path) if is_class_folder(entry, path)}
    splits = {SPLIT_WORDS[name.lower()]: folder for name, folder in folders.items() if name.lower() in SPLIT_WORDS}
    if not splits or len(splits) < len(folders):
        return None  # `train` may be a class beside `car` and `plane`
    if "train" in splits and not any(is_class_folder(entry, path) for entry in scan(splits["train"])):
        return None
    return Layout({split: functools.partial(_open, path, splits, split) for split in splits})


def _open(path: Path, splits: Mapping[str, Path], split: str, classes: Sequence[str] | None) -> Samples:
    folder = splits[split]
    if is_validation_folder(folder):
        wnids = classes
        if classes is not None and not classes:
            wnids = [entry.name for entry in scan(splits["train"])] if "train" in splits else None
        samples = open_imagenet_validation(folder, wnids)
    elif split == "train" or "train" not in splits:
        samples = open_class_folders(folder, classes)
    else:  # indexed by the training split's classes
        train = open_class_folders(splits["train"], classes)
        samples = open_class_folders(folder, classes if train.classes == imagenet_names() else train.classes)
    return dataclasses.replace(samples, name=f"{path.name} ({split})")
