"""Photos that are a file each: class folders, ImageNet's validation folder, Tiny ImageNet, and folders of these."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError, unknown
from converters.images.decoding import SUFFIXES
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.labels import imagenet_labels, name_to_indices, plain_name, validation_label, wnid_to_index
from edge_cv.data.places import Files, Packed
from edge_cv.data.samples import UNKNOWN, Samples

logger = logging.getLogger(__name__)

VALIDATION_FILE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


def class_folders(path: Path, classes: Sequence[str] | None = None) -> Samples:
    """A folder of `<class>/<photo>`, or of photos without labels.

    Class folders named by wnids or ImageNet names all of them get ImageNet's indices. Other names are classes of their
    own and count from 0 in sorted order, empty folders included, so that two halves of a data set count alike. Folders
    within class folders are not searched.

    Args:
        path: the folder.
        classes: the class names in order, when the model's classes are not ImageNet's; empty is the sorted folders'.

    Raises:
        InputError: no such folder, no images in it, or class folders that do not fit `classes` or ImageNet.
    """
    entries = scan(path)
    folders = [entry.name for entry in entries if _is_class_folder(entry, path)]
    images = {name: Packed(map(os.fsencode, _images(path / name))) for name in folders}
    loose = [entry.name for entry in entries if _is_image(entry)]
    if not any(map(len, images.values())):
        if not loose:
            where = f"its {len(folders)} class folders hold none" if folders else "there is none"
            raise InputError(f"{path} must hold images ({', '.join(SUFFIXES)}), and {where}")
        return _files(path, path.name, map(os.fsencode, loose), np.full(len(loose), UNKNOWN), ())
    if loose:
        logger.warning("%d images beside the class folders of %s are not used", len(loose), path)
    labels, names = classes_of_names(path, [n for n in folders if len(images[n])], folders, classes)
    paths = (os.fsencode(name) + b"/" + images[name][i] for name in folders for i in range(len(images[name])))
    counts = [len(images[name]) for name in folders]
    return _files(path, path.name, paths, np.repeat([labels.get(name, 0) for name in folders], counts), names)


def imagenet_validation(path: Path, classes: Sequence[str] | None = None) -> Samples:
    """ImageNet's own validation folder: ILSVRC2012_val_*.JPEG side by side, labelled by their names.

    Args:
        path: the folder.
        classes: wnids in the order that counts; photos of other classes are left out. None or empty is all.

    Raises:
        InputError: no such folder, no such photo in it, or a number that is not among the 50,000.
    """
    names = [entry.name for entry in scan(path) if VALIDATION_FILE.fullmatch(entry.name)]
    if not names:
        raise InputError(f"{path} must hold photos named ILSVRC2012_val_NNNNNNNN.JPEG. Received: none")
    labels, names_of_classes = validation_labels(path, names, classes)
    kept = np.flatnonzero(labels != UNKNOWN)
    return _files(path, path.name, (names[i].encode() for i in kept), labels[kept], names_of_classes)


def validation_labels(
    path: Path, names: Sequence[str], classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of ImageNet's validation photos by their file names, and the names of the classes they count."""
    found = [validation_label(os.path.basename(name)) for name in names]
    if None in found:
        raise InputError(f"{path / names[found.index(None)]} must be one of the 50,000 validation photos, and is not")
    if not classes or set(classes) == set(imagenet_names()):
        return np.array(found), imagenet_names()
    positions = {wnid: index for index, wnid in enumerate(classes)}
    table = np.array([positions.get(label.wnid, UNKNOWN) for label in imagenet_labels()])
    return table[found], tuple(classes)


def split_folders(path: Path) -> Layout | None:
    """A folder of `train`, `validation` (or `val`) and perhaps `test`, each with class folders, or flat."""
    folders = {entry.name: path / entry.name for entry in scan(path) if _is_class_folder(entry, path)}
    splits = {SPLIT_WORDS[name.lower()]: folder for name, folder in folders.items() if name.lower() in SPLIT_WORDS}
    if not splits or len(splits) < len(folders):
        return None  # `train` may be a class beside `car` and `plane`
    if "train" in splits and not any(_is_class_folder(entry, path) for entry in scan(splits["train"])):
        return None

    def open_split(split: str, classes: Sequence[str] | None) -> Samples:
        folder = splits[split]
        if is_validation_folder(folder):
            wanted = classes
            if classes is not None and not classes:
                wanted = [entry.name for entry in scan(splits["train"])] if "train" in splits else None
            samples = imagenet_validation(folder, wanted)
        elif split == "train" or "train" not in splits:
            samples = class_folders(folder, classes)
        else:  # the classes are those of the training part, so that both count alike
            train = class_folders(splits["train"], classes)
            own = train.classes != imagenet_names()
            samples = class_folders(folder, train.classes if own else classes)
        return _named(samples, path, split)

    return Layout({split: functools.partial(open_split, split) for split in splits})


def tiny_imagenet(path: Path) -> Layout | None:
    """Tiny ImageNet: train/<wnid>/images/*.JPEG, val/images with val_annotations.txt, test/images, wnids.txt."""
    if not (path / "wnids.txt").is_file() or not (path / "train").is_dir():
        return None
    wnids = [line.strip() for line in _text(path / "wnids.txt").splitlines() if line.strip()]
    for wnid in wnids:
        if not re.fullmatch(r"n\d{8}", wnid):
            raise InputError(f"{path / 'wnids.txt'} must hold one wnid a line. Received: {wnid!r}")
    words = _text(path / "words.txt") if (path / "words.txt").is_file() else ""
    named = dict(line.split("\t", 1) for line in words.splitlines() if "\t" in line)
    names = tuple(named.get(wnid, wnid).split(",")[0].strip() for wnid in wnids)
    if len(set(names)) < len(names):
        names = tuple(wnids)

    def train(classes: Sequence[str] | None) -> Samples:
        found = {wnid: _images(path / "train" / wnid / "images") for wnid in wnids}
        paths = (os.fsencode(f"train/{wnid}/images/{name}") for wnid in wnids for name in found[wnid])
        labels = np.repeat(np.arange(len(wnids)), [len(found[wnid]) for wnid in wnids])
        return _files(path, f"{path.name} (train)", paths, labels, names)

    def validation(classes: Sequence[str] | None) -> Samples:
        table = path / "val" / "val_annotations.txt"
        positions = {wnid: index for index, wnid in enumerate(wnids)}
        here = set(_images(path / "val" / "images"))
        files, labels = [], []
        for number, line in enumerate(_text(table).splitlines(), 1):
            name, _, rest = line.partition("\t")
            wnid = rest.split("\t")[0]
            if wnid not in positions:
                raise InputError(f"{table} line {number}: must name a wnid of wnids.txt. Received: {line!r}")
            if name not in here:
                raise InputError(f"{table} line {number} names a file that is not there: {name!r}")
            files.append(os.fsencode(f"val/images/{name}"))
            labels.append(positions[wnid])
        return _files(path, f"{path.name} (validation)", files, np.array(labels, np.int32), names)

    def test(classes: Sequence[str] | None) -> Samples:
        found = [os.fsencode(f"test/images/{name}") for name in _images(path / "test" / "images")]
        return _files(path, f"{path.name} (test)", found, np.full(len(found), UNKNOWN), ())

    splits = {"train": train}
    if (path / "val").is_dir():
        splits["validation"] = validation
    if (path / "test").is_dir():
        splits["test"] = test
    return Layout(splits)


def classes_of_names(
    path: Path, used: Sequence[str], every: Sequence[str], classes: Sequence[str] | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The index of each class in `used` (those with images), and all class names in order, as `class_folders` has them.

    Args:
        path: for messages.
        used: names of the classes that have images.
        every: these and those without, sorted.
        classes: as `class_folders`.
    """
    if classes is not None:
        classes = classes or every
        positions = {name: index for index, name in enumerate(classes)}
        for name in used:
            if name not in positions:
                raise unknown(f"class folder in {path}", name, classes)
        return {name: positions[name] for name in used}, tuple(classes)
    wnids = wnid_to_index()
    if any(name in wnids for name in used):
        for name in used:
            if name not in wnids:
                raise InputError(
                    f"{path}: beside wnids, each class folder must be a wnid of ImageNet. Received: {name}"
                )
        return {name: wnids[name] for name in used}, imagenet_names()
    indices = {name: name_to_indices().get(plain_name(name), ()) for name in used}
    if not all(indices.values()):
        return {name: index for index, name in enumerate(every)}, tuple(every)
    for name, found in indices.items():
        if len(found) > 1:
            choice = " or ".join(imagenet_labels()[index].wnid for index in found)
            raise InputError(f"{path}: the name of {name} stands for several ImageNet classes; name it {choice}")
    return {name: found[0] for name, found in indices.items()}, imagenet_names()


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    return tuple(label.name for label in imagenet_labels())


def is_validation_folder(path: Path) -> bool:
    return any(VALIDATION_FILE.fullmatch(entry.name) for entry in scan(path))


def scan(path: Path) -> list[os.DirEntry]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise InputError(f"data must be a folder that exists. Received: {path}") from None
    except OSError as error:
        raise InputError(f"data must be a folder that can be read. Received: {path} ({error.strerror})") from error


def _files(path: Path, name: str, paths: Iterable[bytes], labels: np.ndarray, classes: tuple[str, ...]) -> Samples:
    return Samples(name, classes, labels.astype(np.int32), Files(str(path), Packed(paths)))


def _named(samples: Samples, path: Path, split: str) -> Samples:
    return dataclasses.replace(samples, name=f"{path.name} ({split})")


def _is_image(entry: os.DirEntry) -> bool:
    """By its name; what it is otherwise (a pipe, a broken link) the decoder finds out and names."""
    try:
        return entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _is_class_folder(entry: os.DirEntry, parent: Path) -> bool:
    """A folder or a link to one, but not a link back to the parent or above it."""
    try:
        if not entry.is_dir() or entry.name == "__MACOSX":
            return False
        return not entry.is_symlink() or not parent.resolve().is_relative_to(Path(entry.path).resolve())
    except OSError:
        return False


def _images(path: Path) -> list[str]:
    return [entry.name for entry in scan(path) if _is_image(entry)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file that can be read. Received: {error}") from error
