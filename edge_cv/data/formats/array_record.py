"""ArrayRecord files, which only their own library (array-record) reads: images as places, and the library's readers."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError
from converters.packages import missing_extra
from edge_cv.data.formats.example import BytesWindow, Features, Malformed, find, image_span
from edge_cv.data.places import Packed


@dataclass(frozen=True)
class ArrayRecordImage:
    """An image in one record of an ArrayRecord file.

    Attributes:
        path: the file.
        number: the record's number in it.
        features: the names of an Example's features.
        name: of the image in its source; empty where it is not known.
    """

    path: str
    number: int
    features: Features = field(default=Features(), repr=False)
    name: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else f"{self.path}[{self.number}]"

    def read(self) -> bytes:
        try:
            content = array_record_reader(self.path, os.getpid()).read([self.number])[0]
            offset, length = encoded_image(content, self.features)
        except (InputError, Malformed, IndexError, RuntimeError, ValueError) as error:
            raise ImageError(str(self), str(error)) from error
        return content[offset : offset + length]


@dataclass(frozen=True, eq=False)
class ArrayRecordImages:
    """A table of images in ArrayRecord files.

    Attributes:
        files: paths of the files.
        file: int32 `(n,)`, the file of each image.
        number: int32 `(n,)`, the number of its record in the file.
        features: the names of an Example's features.
        names: of the images in their source; None where they are not known.
    """

    files: tuple[str, ...]
    file: np.ndarray
    number: np.ndarray
    features: Features = field(default=Features())
    names: Packed | None = None

    def __len__(self) -> int:
        return len(self.file)

    def place(self, row: int) -> ArrayRecordImage:
        name = "" if self.names is None else os.fsdecode(self.names[row])
        return ArrayRecordImage(self.files[self.file[row]], int(self.number[row]), self.features, name)

    def key(self, row: int) -> bytes:
        if self.names is not None:
            return self.names[row]
        return f"{os.path.basename(self.files[self.file[row]])}[{self.number[row]}]".encode()

    def location(self, row: int) -> bytes:
        return os.fsencode(f"{self.files[self.file[row]]}/{self.number[row]}")


def encoded_image(record: bytes, features: Features) -> tuple[int, int]:
    """Offset and length of the encoded image in a serialized Example; Malformed when it has none."""
    window = BytesWindow(record)
    return image_span(window, find(window, 0, len(record), features.image), features)


@functools.lru_cache(maxsize=512)  # a reader keeps its file open, and a process may open 1024
def array_record_reader(path: str, process: int) -> Any:
    """The reader of a file in this process. A forked process opens its own: threads do not survive a fork."""
    return open_array_record(path, "readahead_buffer_size:0")


def open_array_record(path: str, options: str = "") -> Any:
    """One of the library's readers; InputError when the file cannot be read."""
    module = array_record_module()
    if not Path(path).is_file():
        raise InputError(f"{path} must be a file that exists")
    reader = module.ArrayRecordReader(path, options)
    if not reader.ok():
        raise InputError(f"{path} must be a complete ArrayRecord file. Received: another format, or a part of a file")
    return reader


def array_record_module() -> Any:
    """The library; InputError when it is not installed."""
    try:
        from array_record.python import array_record_module as module
    except ImportError:
        raise missing_extra("reading or writing ArrayRecord files", ["array-record"], ["grain"]) from None
    return module
