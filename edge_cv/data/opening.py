"""Opening any source of labelled images.

To add a layout, write a module in `formats/` with a function that takes a path and returns a `Layout`, or None for a
path in another layout, and add the function to `LAYOUTS`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.errors import InputError, unknown
from edge_cv.data.class_counts import class_counts, with_classes
from edge_cv.data.formats.class_folders import class_folders
from edge_cv.data.formats.imagenet_validation import imagenet_validation
from edge_cv.data.formats.labels_csv import labels_csv
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.formats.packaged import NAMED
from edge_cv.data.formats.prepared import prepared
from edge_cv.data.formats.shards import shards
from edge_cv.data.formats.split_folders import split_folders
from edge_cv.data.formats.tar_archives import tar_archives
from edge_cv.data.formats.tfds import tfds
from edge_cv.data.formats.tiny_imagenet import tiny_imagenet
from edge_cv.data.labels import imagenet_names
from edge_cv.data.samples import Samples
from edge_cv.data.subsets import split_by_name

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2  # of the images of a source without splits

LAYOUTS: tuple[Callable[[Path], Layout | None], ...] = (  # the first that recognizes a path opens it
    prepared,
    labels_csv,
    tfds,
    shards,
    tar_archives,
    tiny_imagenet,
    imagenet_validation,
    split_folders,
    class_folders,
)

_DRAWN = ("train", "validation")


def open_samples(
    path_or_name: str | os.PathLike,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    validation_share: float = VALIDATION_SHARE,
    seed: int = 0,
) -> Samples:
    """Open a source of images.

    Args:
        path_or_name: `digits`, `sample`, `sample_calibration`, or a folder or file in one of the `LAYOUTS`; a folder
            that has one of these names is opened as `./digits`.
        split: `train`, `validation`, `test` or another split of the source. From a source without splits `train` and
            `validation` are drawn (`split_by_name`). Default: all images.
        classes: the class names in order. Empty takes the source's own classes, to train a model of that many. None
            takes ImageNet's 1000 where the source's names or wnids are ImageNet's, else the source's own.
        validation_share: the share of `validation` in a source without splits, 0..1.
        seed: decides which images these are.

    Returns:
        The samples. Whether a classifier can be trained on them, `check_trainable` decides.

    Raises:
        InputError: there is no such source or split, the source is broken, or its classes do not fit.
    """
    layout = _recognize(path_or_name)
    if split is not None:
        split = SPLIT_WORDS.get(split.lower(), split)
    if split is not None and split in layout.splits:
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
    return with_classes(samples, tuple(classes)) if classes and samples.classes else samples


def splits_of(path_or_name: str | os.PathLike) -> tuple[str, ...]:
    """The source's own splits; empty for a source from which `train` and `validation` are drawn."""
    return tuple(_recognize(path_or_name).splits)


def classes_to_train(path_or_name: str | os.PathLike) -> tuple[str, ...] | None:
    """The argument `classes` with which `open_samples` opens a source to train on.

    Returns:
        Empty where the source has some of ImageNet's classes only, so that these are indexed as its own; else None.
    """
    splits = splits_of(path_or_name)
    samples = open_samples(path_or_name, "train" if "train" in splits else next(iter(splits), None))
    return () if samples.classes == imagenet_names() and not class_counts(samples).all() else None


def _recognize(path_or_name: str | os.PathLike) -> Layout:
    name = os.fspath(path_or_name)
    path = Path(name).expanduser()
    if name in NAMED:
        if path.exists():
            _prefer_the_packages(name)
        return NAMED[name]
    if not path.exists():
        raise InputError(f"data must be a folder or file of images, or one of {', '.join(NAMED)}. Received: {name}")
    for recognize in LAYOUTS:
        layout = recognize(path)
        if layout is not None:
            return layout
    raise InputError(f"data must be a folder that can be read, or a .csv, .tar or shard file. Received: {path}")


@functools.cache  # said once
def _prefer_the_packages(name: str) -> None:
    log.warning("%s means the images that a package carries; write %s for the folder", name, os.path.join(".", name))


def _drawn(samples: Samples, split: str, share: float, seed: int) -> Samples:
    if not samples.classes:
        raise InputError(
            f"a split must be named in a labels.csv, or be drawn from images with labels, and {samples.name} has none. "
            f"Received: split={split!r}"
        )
    train, validation = split_by_name(samples, share, seed)
    return dataclasses.replace(train if split == "train" else validation, name=f"{samples.name} ({split})")
