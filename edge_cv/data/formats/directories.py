"""Folders of image files: listing them and making samples of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.files import open_regular
from converters.images.decoding import is_image_name
from edge_cv.data.places import Files, Packed
from edge_cv.data.samples import Samples


def scan(path: Path) -> list[os.DirEntry]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise InputError(f"data must be a folder that exists. Received: {path}") from None
    except OSError as error:
        raise InputError(f"data must be a folder that can be read. Received: {path} ({error.strerror})") from error


def image_names(path: Path) -> list[str]:
    """The names of the image files in a folder, sorted."""
    return [entry.name for entry in scan(path) if is_image(entry)]


def is_image(entry: os.DirEntry) -> bool:
    """Whether the entry's name is that of an image. Decoding reports what else may be wrong (a pipe, a broken link)."""
    try:
        return is_image_name(entry.name) and not entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def is_class_folder(entry: os.DirEntry, parent: Path) -> bool:
    """Whether the entry is a folder, or a link to one that is not the parent or above it."""
    try:
        if not entry.is_dir() or entry.name == "__MACOSX":
            return False
        return not entry.is_symlink() or not parent.resolve().is_relative_to(Path(entry.path).resolve())
    except OSError:
        return False


def samples_of_files(
    root: Path, name: str, paths: Iterable[bytes], labels: np.ndarray, classes: tuple[str, ...]
) -> Samples:
    """Samples of image files whose paths are relative to `root`; labels int `(n,)`."""
    return Samples(name, classes, labels.astype(np.int32), Files(str(root), Packed(paths)))


def read_text(path: Path) -> str:
    """The content of a text file; InputError when it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file that can be read. Received: {error}") from error
