"""ImageNet's own validation folder: ILSVRC2012_val_NNNNNNNN.JPEG side by side, labelled by their file names."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv.data.formats.directories import samples_of_files, scan
from edge_cv.data.formats.layout import Layout
from edge_cv.data.labels import imagenet_labels, imagenet_names, validation_label
from edge_cv.data.samples import UNKNOWN, Samples

VALIDATION_FILE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


def imagenet_validation(path: Path) -> Layout | None:
    """Recognize a folder that has one of ImageNet's validation photos."""
    if not path.is_dir() or not is_validation_folder(path):
        return None
    return Layout(whole=functools.partial(open_imagenet_validation, path))


def is_validation_folder(path: Path) -> bool:
    """Whether a folder has one of ImageNet's validation photos."""
    return any(VALIDATION_FILE.fullmatch(entry.name) for entry in scan(path))


def open_imagenet_validation(path: Path, classes: Sequence[str] | None = None) -> Samples:
    """Open ImageNet's validation folder.

    Args:
        path: the folder.
        classes: wnids in order; photos of other classes are left out. None or empty for all classes.

    Raises:
        InputError: there is no such folder, it has no such photo, or a photo is not among the 50,000.
    """
    names = [entry.name for entry in scan(path) if VALIDATION_FILE.fullmatch(entry.name)]
    if not names:
        raise InputError(f"{path} must hold photos named ILSVRC2012_val_NNNNNNNN.JPEG. Received: none")
    labels, class_names = validation_labels(path, names, classes)
    kept = np.flatnonzero(labels != UNKNOWN)
    return samples_of_files(path, path.name, (names[i].encode() for i in kept), labels[kept], class_names)


def validation_labels(
    path: Path, names: Sequence[str], classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of ImageNet's validation photos, from their file names.

    Args:
        path: for messages.
        names: the file names.
        classes: wnids in order; None or empty for ImageNet's 1000.

    Returns:
        Class indices int `(n,)`, -1 for a class that is not among `classes`; the class names.

    Raises:
        InputError: a name is not among the 50,000.
    """
    labels = []
    for name in names:
        label = validation_label(os.path.basename(name))
        if label is None:
            raise InputError(f"{path / name} must be one of ImageNet's 50,000 validation photos")
        labels.append(label)
    if not classes or set(classes) == set(imagenet_names()):
        return np.array(labels), imagenet_names()
    positions = {wnid: index for index, wnid in enumerate(classes)}
    table = np.array([positions.get(label.wnid, UNKNOWN) for label in imagenet_labels()])
    return table[labels], tuple(classes)
