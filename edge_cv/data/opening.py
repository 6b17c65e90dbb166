"""What a path stands for: the layouts that labelled images come in, and the one way to open them all.

To add a layout, write one function that takes a path and returns a `Layout`, or None for a path that is something else,
and add it to `LAYOUTS`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.errors import InputError, unknown
from edge_cv.data.formats import folders, packaged, record_files
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.formats.prepared import prepared
from edge_cv.data.formats.tables import table
from edge_cv.data.formats.tar_archives import tar
from edge_cv.data.samples import Samples, class_counts, split_by_name, with_classes

VALIDATION_SHARE = 0.2  # of the images of a source that brings no split of its own

_DRAWN = ("train", "validation")


def open_samples(
    path_or_name: str | os.PathLike,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
) -> Samples:
    """The samples that a name or a path stands for.

    Args:
        path_or_name: `digits`, `sample`, `sample_calibration`, or a folder or file in one of the `LAYOUTS`.
        split: `train`, `validation`, `test` or whatever parts the source has. A source without parts of its own has
            `train` and `validation`, which are drawn from it (`split_by_name`). None is all of it.
        classes: the class names in order. Empty is the source's own: to train a model of so many classes. None is
            ImageNet's 1000 where the source's names or wnids are ImageNet's, however few of them: for a model of these.
        validation_share: how much of a source without parts is `validation`.
        seed: which images these are.

    Raises:
        InputError: no such source or split, a layout that is broken, or classes that do not fit. Whether a classifier
            can learn from the samples is for `check_trainable` to say.
    """
    layout = _recognise(path_or_name)
    if split is not None:
        split = SPLIT_WORDS.get(split.lower(), split)
    if split in layout.splits:
        samples = layout.splits[split](classes)
    elif split is None and layout.whole is not None:
        samples = layout.whole(classes)
    elif split is None and len(layout.splits) == 1:
        samples = next(iter(layout.splits.values()))(classes)
    elif split in _DRAWN and not layout.splits and layout.whole is not None:
        samples = _drawn(layout.whole(classes), split, validation_share, seed)
    elif layout.splits:
        if split is None:
            raise InputError(f"a split of {path_or_name} must be named: {', '.join(layout.splits)}. Received: none")
        raise unknown(f"split of {path_or_name}", split, layout.splits)
    else:
        raise InputError(
            f"a split must be named in a labels.csv, or be train or validation of images with labels, and "
            f"{path_or_name} has no other. Received: split={split!r}"
        )
    if classes:
        samples = with_classes(samples, tuple(classes)) if samples.classes else samples
    return samples


def splits_of(path_or_name: str | os.PathLike) -> tuple[str, ...]:
    """The parts that a source brings; none for one that is whole, of which `train` and `validation` can be drawn."""
    return tuple(_recognise(path_or_name).splits)


def classes_to_train(path_or_name: str | os.PathLike) -> tuple[str, ...] | None:
    """What `open_samples` is to be given as `classes` to train a model on all that a source shows, and on nothing else.

    None, unless the source has a part of ImageNet's classes only: these are then counted as the source's own.
    """
    splits = splits_of(path_or_name)
    samples = open_samples(path_or_name, "train" if "train" in splits else next(iter(splits), None))
    return () if samples.classes == folders.imagenet_names() and not class_counts(samples).all() else None


def _recognise(path_or_name: str | os.PathLike) -> Layout:
    name = os.fspath(path_or_name)
    path = Path(name).expanduser()
    if name in NAMED and not path.exists():
        return NAMED[name]
    if not path.exists():
        raise InputError(f"data must be a folder or file of images, or one of {', '.join(NAMED)}. Received: {name}")
    for layout in LAYOUTS:
        found = layout(path)
        if found is not None:
            return found
    raise InputError(f"data must be a folder that can be read, or a .csv, .tar or shard file. Received: {path}")


def _drawn(samples: Samples, split: str, share: float, seed: int) -> Samples:
    if not samples.classes:
        raise InputError(
            f"a split must be named in a labels.csv, or be drawn from images with labels, and {samples.name} has none. "
            f"Received: split={split!r}"
        )
    train, validation = split_by_name(samples, share, seed)
    return dataclasses.replace(train if split == "train" else validation, name=f"{samples.name} ({split})")


def _flat_validation(path: Path) -> Layout | None:
    """ImageNet's validation folder."""
    if not path.is_dir() or not folders.is_validation_folder(path):
        return None
    return Layout(whole=functools.partial(folders.imagenet_validation, path))


def _class_folders(path: Path) -> Layout | None:
    """A folder of class folders, or of photos without labels."""
    return Layout(whole=functools.partial(folders.class_folders, path)) if path.is_dir() else None


LAYOUTS: tuple[Callable[[Path], Layout | None], ...] = (
    prepared,
    table,
    record_files.tfds,
    record_files.shards,
    tar,
    folders.tiny_imagenet,
    _flat_validation,
    folders.split_folders,
    _class_folders,
)
NAMED = {
    "digits": Layout(
        {split: lambda classes, split=split: packaged.digits(split) for split in packaged.DIGITS_SPLITS},
        lambda classes: packaged.digits(),
    ),
    "sample": Layout(whole=lambda classes: packaged.sample()),
    "sample_calibration": Layout(whole=lambda classes: packaged.sample_calibration()),
}
