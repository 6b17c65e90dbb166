"""A folder of `<class>/<photo>`, or of photos without labels."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.images.decoding import SUFFIXES
from edge_cv.data.formats.class_indices import class_indices
from edge_cv.data.formats.directories import image_names, is_class_folder, is_image, samples_of_files, scan
from edge_cv.data.formats.layout import Layout
from edge_cv.data.places import Packed
from edge_cv.data.samples import UNKNOWN, Samples

logger = logging.getLogger(__name__)


def class_folders(path: Path) -> Layout | None:
    """Recognize any folder."""
    return Layout(whole=functools.partial(open_class_folders, path)) if path.is_dir() else None


def open_class_folders(path: Path, classes: Sequence[str] | None = None) -> Samples:
    """Open a folder of class folders, or of photos without labels.

    Class folders that are all named by wnids or ImageNet names get ImageNet's indices. Other names are indexed in
    sorted order, empty folders included, so that the parts of a data set agree. Class folders are not searched
    recursively.

    Args:
        path: the folder.
        classes: the class names in order; empty for the sorted folder names.

    Raises:
        InputError: there is no such folder, it has no images, or its class folders do not fit `classes` or ImageNet.
    """
    entries = scan(path)
    folders = [entry.name for entry in entries if is_class_folder(entry, path)]
    images = {name: Packed(map(os.fsencode, image_names(path / name))) for name in folders}
    loose = [entry.name for entry in entries if is_image(entry)]
    deeper = [found for name in folders if not len(images[name]) and (found := _deeper(path / name)) is not None]
    if not any(map(len, images.values())):
        if not loose:
            where = f"its {len(folders)} class folders hold none" if folders else "there is none"
            if deeper:
                where += f" but deeper ones do: take {deeper[0].parent}, or move the images of {deeper[0]} up"
            raise InputError(f"{path} must hold images ({', '.join(SUFFIXES)}), and {where}")
        return samples_of_files(path, path.name, map(os.fsencode, loose), np.full(len(loose), UNKNOWN), ())
    if loose:
        logger.warning("%d images beside the class folders of %s are not used", len(loose), path)
    if deeper:
        logger.warning("the images in %s are not used: those of a class must lie in its folder itself", deeper[0])
    indices, names = class_indices(path, [n for n in folders if len(images[n])], folders, classes)
    paths = (os.fsencode(name) + b"/" + images[name][i] for name in folders for i in range(len(images[name])))
    labels = np.repeat([indices.get(name, 0) for name in folders], [len(images[name]) for name in folders])
    return samples_of_files(path, path.name, paths, labels, names)


def _deeper(folder: Path) -> Path | None:
    """The first folder of images inside a class folder that has none itself."""
    inside = (folder / entry.name for entry in scan(folder) if is_class_folder(entry, folder))
    return next((place for place in inside if image_names(place)), None)
