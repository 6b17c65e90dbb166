"""Images in tar archives, read in place: nothing is extracted.

ImageNet's own archives (the training archive of 1,000 class archives, the flat validation archive), and archives of
class folders. Member names that lead outside the archive are rejected; links, devices and sparse members are not used.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from converters.errors import InputError
from converters.files import open_regular
from converters.images.decoding import SUFFIXES, is_image_name
from edge_cv.data.formats.class_indices import class_indices
from edge_cv.data.formats.directories import scan
from edge_cv.data.formats.imagenet_validation import VALIDATION_FILE, validation_labels
from edge_cv.data.formats.layout import SPLIT_WORDS, Layout
from edge_cv.data.places import Packed, Parts
from edge_cv.data.samples import UNKNOWN, Samples
from edge_cv.parallel.processes import map_in_processes

logger = logging.getLogger(__name__)

_IMAGENET = re.compile(r"ILSVRC20\d\d_img_(?P<split>train|val|test).*\.tar")
_CLASS_ARCHIVE = re.compile(r"n\d{8}\.tar")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# tarfile reads one header or long name at a time; a longer read means that the archive is malicious.
_MAX_HEADER_BYTES = 2**20
_LARGE_BYTES = 2**30  # of all archives; below, one process is faster than several that must be started


def tar_archives(path: Path) -> Layout | None:
    """Recognize a .tar file, or a folder of ImageNet's archives: one a split, or one a class (n01440764.tar)."""
    if path.is_file():
        if path.name.lower().endswith(_COMPRESSED):
            raise InputError(
                f"an archive must be an uncompressed .tar, for random access. Received: {path}; decompress it"
            )
        return Layout(whole=functools.partial(_open, path.name, [path])) if path.suffix.lower() == ".tar" else None
    files = [path / entry.name for entry in scan(path) if entry.name.endswith(".tar")]
    splits = {SPLIT_WORDS[match["split"]]: file for file in files if (match := _IMAGENET.fullmatch(file.name))}
    if splits:
        opened = {split: functools.partial(_open, f"{path.name} ({split})", [file]) for split, file in splits.items()}
        return Layout(opened)
    classes = [file for file in files if _CLASS_ARCHIVE.fullmatch(file.name)]
    return Layout(whole=functools.partial(_open, path.name, classes)) if classes else None


@dataclass(frozen=True)
class _Archive:
    """A tar archive, a file or a part of one. `class_name` is the class of its images; empty where it is not known."""

    path: str
    offset: int
    size: int
    class_name: str = ""


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of one archive: their names, and offset and length in the file, int64 `(n,)`."""

    names: Packed
    offset: np.ndarray
    length: np.ndarray


def _open(title: str, files: Sequence[Path], classes: Sequence[str] | None) -> Samples:
    """The samples of one archive, or of several that are a class each."""
    archives, images = _scan_all(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    counts = [len(part.names) for part in images]
    if not sum(counts):
        raise InputError(f"{title} must hold images ({', '.join(SUFFIXES)}), and there is none")
    names = Packed(part.names[i] for part in images for i in range(len(part.names)))
    paths = list(dict.fromkeys(archive.path for archive in archives))
    file = np.repeat(np.array([paths.index(archive.path) for archive in archives], np.int32), counts)
    offset, length = (np.concatenate([getattr(part, name) for part in images]) for name in ("offset", "length"))
    labels, class_names = _labels(files[0], archives, counts, names, classes)
    kept = np.flatnonzero(labels != UNKNOWN) if class_names else np.arange(len(labels))
    return Samples(title, class_names, labels, Parts(tuple(paths), file, offset, length, names)).select(kept)


@functools.lru_cache(maxsize=2)  # a source is opened for its training and its validation split, and for its classes
def _scan_all(files: tuple[tuple[str, int, int], ...]) -> tuple[list[_Archive], list[_Images]]:
    """The archives in files of these paths, sizes and times, and their images."""
    several = len(files) > 1
    archives = [_Archive(path, 0, size, Path(path).stem if several else "") for path, size, _ in files]
    if not several:
        archives = list(_class_archives(archives[0])) or archives
    small = sum(archive.size for archive in archives) < _LARGE_BYTES
    return archives, list(map_in_processes(_images, archives, small=small))


def _labels(
    path: Path, archives: Sequence[_Archive], counts: Sequence[int], names: Packed, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all images and the class names: from the archives' names, ImageNet's file names or the folders'."""
    if archives[0].class_name:
        every = sorted({archive.class_name for archive in archives})
        used = sorted({archive.class_name for archive, count in zip(archives, counts, strict=True) if count})
        positions, class_names = class_indices(path, used, every, classes)
        return np.repeat([positions.get(a.class_name, UNKNOWN) for a in archives], counts).astype(np.int32), class_names
    if VALIDATION_FILE.fullmatch(os.path.basename(names[0].decode(errors="replace"))):
        labels, class_names = validation_labels(path, [names[i].decode() for i in range(len(names))], classes)
        return labels.astype(np.int32), class_names
    codes: dict[str, int] = {}
    above: set[str] = set()
    coded = np.empty(len(names), np.int32)
    for i in range(len(names)):
        *parents, folder, _ = ("", *os.fsdecode(names[i]).removeprefix("./").split("/"))
        coded[i] = codes.setdefault(folder, len(codes))
        above.update(parents[-1:])
    splits = {SPLIT_WORDS[name.lower()] for name in above if name.lower() in SPLIT_WORDS}
    if len(splits) > 1:
        raise InputError(f"{path} must hold one split. Received: {', '.join(sorted(splits))}; unpack it to use them")
    if set(codes) == {""}:
        return np.full(len(names), UNKNOWN, np.int32), ()
    if "" in codes:
        raise InputError(f"{path}: each image must be in the folder of its class. Received: images that are in none")
    positions, class_names = class_indices(path, sorted(codes), sorted(codes), classes)
    return np.array([positions[name] for name in codes], np.int32)[coded], class_names


def _class_archives(archive: _Archive) -> Iterator[_Archive]:
    """The archives within an archive, each named after its class; the search ends at the first image."""
    for member in _members(archive):
        if member.name.endswith(".tar"):
            yield _Archive(archive.path, member.offset_data, member.size, PurePosixPath(member.name).stem)
        elif is_image_name(member.name):
            return


def _images(archive: _Archive) -> _Images:
    """Find the images of an archive by reading its headers alone."""
    names, offsets, lengths = [], array("q"), array("q")
    for member in _members(archive):
        if is_image_name(member.name):
            names.append(os.fsencode(member.name))
            offsets.append(member.offset_data)
            lengths.append(member.size)
    return _Images(Packed(names), np.array(offsets, np.int64), np.array(lengths, np.int64))


def _members(archive: _Archive) -> Iterator[tarfile.TarInfo]:
    """The regular files of an archive; `offset_data` is their offset in the file itself.

    Raises:
        InputError: the file is no archive, is broken or truncated, or has members that an archive of photos never has.
    """
    where = archive.path if not archive.class_name else f"{archive.path}:{archive.class_name}.tar"
    skipped, last = 0, -1
    try:
        with open_regular(archive.path) as file:
            section = _Section(file, archive)
            with tarfile.TarFile(fileobj=section, mode="r") as opened:
                while (member := opened.next()) is not None:
                    opened.members.clear()  # type: ignore[attr-defined]  # missing in typeshed; keeps the memory flat
                    if member.size < 0 or member.offset <= last:
                        raise InputError(
                            f"{where}: {member.name!r} must follow the member before it: the archive is broken"
                        )
                    last = member.offset
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        raise InputError(f"{where}: names must stay within the archive. Received: {member.name!r}")
                    if member.issparse():
                        raise InputError(f"{where}: {member.name!r} must be stored whole. Received: a sparse file")
                    if member.offset_data + member.size > archive.size:
                        raise InputError(f"{where}: the archive ends within {member.name!r}")
                    if member.isreg() and not os.path.basename(member.name).startswith("."):
                        member.offset_data += archive.offset
                        yield member
                    elif not member.isreg() and not member.isdir():
                        skipped += 1
                section.seek(opened.offset)
                if section.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise InputError(f"{where}: the archive must be whole. Received: no header at byte {opened.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} must be a tar archive that can be read: {error}") from error
    if skipped:
        logger.warning("%d links and special files in %s are not used", skipped, where)


class _Section(io.RawIOBase):
    """A part of a file as a file object; reads longer than a header are rejected."""

    def __init__(self, file: BinaryIO, archive: _Archive) -> None:
        self._file = file
        self._archive = archive
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise InputError(f"{self._archive.path} must have short headers. Received: one of {size} bytes")
        size = max(0, min(size, self._archive.size - self._position))
        content = os.pread(self._file.fileno(), size, self._archive.offset + self._position)
        self._position += len(content)
        return content
