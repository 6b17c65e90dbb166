"""A folder of TensorFlow Datasets: DATASET/[CONFIG/]VERSION with dataset_info.json and features.json.

Any data set whose records have one image and one class label; the newest of several versions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters import strict_json
from converters.errors import InputError
from edge_cv.data.formats.directories import read_text
from edge_cv.data.formats.example import Features
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout, Open
from edge_cv.data.formats.record_scan import ARRAY_RECORD, TFRECORD, open_record_files
from edge_cv.data.labels import imagenet_names, wnid_to_index
from edge_cv.data.samples import Samples


def tfds(path: Path) -> Layout | None:
    """Recognize a folder with dataset_info.json, or with folders of versions."""
    if not path.is_dir():
        return None
    if not (path / "dataset_info.json").is_file():
        versions = [
            p for p in path.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / "features.json").is_file()
        ]
        if not versions:
            return None
        path = max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
    info = _read_json(path / "dataset_info.json")
    try:
        features, label = _features(_read_json(path / "features.json"))
        name, format = str(info["name"]), info.get("fileFormat", TFRECORD)
        lengths = {
            str(split["name"]): [int(count) for count in split.get("shardLengths", ())]
            for split in info.get("splits", ())
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path} must have features.json with one image and one class label: {error!r:.200}"
        ) from error
    if not all(re.fullmatch(r"\w[\w.-]{0,99}", part) for part in (name, label, *lengths)):
        received = f"{name!r:.100}, {label!r:.100}, {list(lengths)!r:.100}"
        raise InputError(f"{path} must have names that files can have. Received: {received}")
    if format not in (TFRECORD, ARRAY_RECORD):
        raise InputError(f"{path}: the files must be of the format tfrecord or array_record. Received: {format!r:.40}")
    labels = path / f"{label}.labels.txt"
    class_names = tuple(filter(None, map(str.strip, read_text(labels).splitlines()))) if labels.is_file() else None
    splits: dict[str, Open] = {}
    for split, counts in lengths.items():
        files = [path / f"{name}-{split}.{format}-{i:05d}-of-{len(counts):05d}" for i in range(len(counts))]
        opened = functools.partial(_open, f"{name} ({split})", files, format, features, class_names, counts)
        splits[SPLIT_WORDS.get(split, split)] = opened
    return Layout(splits)


def _open(
    title: str,
    files: Sequence[Path],
    format: str,
    features: Features,
    names: tuple[str, ...] | None,
    lengths: Sequence[int],
    classes: Sequence[str] | None,
) -> Samples:
    is_imagenet = classes is None and names == tuple(wnid_to_index())
    return open_record_files(title, files, format, features, imagenet_names() if is_imagenet else names, lengths)


def _features(description: dict[str, Any]) -> tuple[Features, str]:
    """The names of the image and the class label in features.json."""
    parts = description["featuresDict"]["features"]
    types = {name: str(part["pythonClassName"]).rsplit(".", 1)[-1] for name, part in parts.items()}
    (image,) = (name for name, kind in types.items() if kind == "Image")
    (label,) = (name for name, kind in types.items() if kind == "ClassLabel")
    return Features(image=(image.encode(),), label=(label.encode(),), wnid=(), text=()), label


def _read_json(path: Path) -> dict[str, Any]:
    return dict(strict_json.mapping(strict_json.read(path, "it"), str(path)))
