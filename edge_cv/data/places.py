"""Places of encoded images: small values that any thread or process can read, and flat tables of them.

A table (`Files`, `Parts`, `Memory`) keeps byte strings in one block and numbers in arrays instead of an object an
image.
"""

from __future__ import annotations

import io
import os
import stat
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError, decode_image

MAX_ENCODED_BYTES = 256 * 2**20  # of one image; far above any photo, so that a malicious length cannot fill the memory


class Place(Protocol):
    """The place of one image. `str(place)` is a path for people."""

    def read(self) -> bytes:
        """The encoded image; ImageError when it cannot be read."""
        ...


class Places(Protocol):
    """A table of places."""

    def __len__(self) -> int: ...

    def place(self, row: int) -> Place: ...

    def key(self, row: int) -> bytes:
        """The image's name within its source, wherever that is: a relative path or a member's name."""
        ...

    def location(self, row: int) -> bytes:
        """A path that is unique to the image: of its file, or of the file that holds it and the offset in it."""
        ...


@dataclass(frozen=True)
class FilePart:
    """An image stored in a regular file, where a native reader can read it.

    Attributes:
        path: the file.
        offset: of the first byte.
        length: in bytes; None reads to the end of the file.
        name: the image's name in the archive; empty where it has none.
    """

    path: str
    offset: int = 0
    length: int | None = None
    name: str = ""

    def __str__(self) -> str:
        if self.length is None:
            return self.path
        return f"{self.path}:{self.name}" if self.name else f"{self.path}@{self.offset}+{self.length}"

    def read(self) -> bytes:
        try:
            # Non-blocking: opening a pipe would wait for its other end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return self._read(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise ImageError(str(self), "no such file") from None
        except ImageError:
            raise
        except (OSError, ValueError) as error:
            raise ImageError(str(self), getattr(error, "strerror", None) or str(error)) from error

    def _read(self, descriptor: int) -> bytes:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(str(self), "it is not a regular file")
        wanted = status.st_size - self.offset if self.length is None else self.length
        if wanted > MAX_ENCODED_BYTES:
            raise ImageError(str(self), f"its {wanted} bytes are more than the {MAX_ENCODED_BYTES} that are accepted")
        content = os.pread(descriptor, wanted, self.offset)
        while len(content) < wanted:  # some file systems return less than requested
            more = os.pread(descriptor, wanted - len(content), self.offset + len(content))
            if not more:
                raise ImageError(str(self), f"the file ends after {len(content)} of its {wanted} bytes")
            content += more
        return content


@dataclass(frozen=True)
class Content:
    """An image in memory."""

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class CroppedPhoto:
    """A part of an image file, which reads as a lossless PNG of that part.

    Attributes:
        path: the image file.
        box: left, top, right and bottom of the part, as fractions 0..1 of the upright image.
        flip: whether left and right are exchanged.
    """

    path: str
    box: tuple[float, float, float, float]
    flip: bool = False

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise InputError(f"box must be (left, top, right, bottom) within 0..1. Received: {self.box}")

    def __str__(self) -> str:
        return f"{self.path} [{','.join(f'{value:g}' for value in self.box)}{' flipped' if self.flip else ''}]"

    def read(self) -> bytes:
        try:
            image = decode_image(self.path)
        except ImageError as error:
            raise ImageError(str(self), error.why) from error
        width, height = image.size
        left, top = int(self.box[0] * width), int(self.box[1] * height)
        right, bottom = round(self.box[2] * width), round(self.box[3] * height)
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        if self.flip:
            from PIL import Image

            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        stream = io.BytesIO()
        image.save(stream, "PNG", compress_level=0)  # decoded immediately: speed, not size
        return stream.getvalue()


class Packed:
    """Many byte strings in one block, instead of an object each."""

    def __init__(self, strings: Iterable[bytes]) -> None:
        blob, ends = bytearray(), array("q", [0])
        for string in strings:
            blob += string
            ends.append(len(blob))
        self._blob = bytes(blob)
        self._ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._blob[self._ends[index] : self._ends[index + 1]]


@dataclass(frozen=True, eq=False)
class Files:
    """Images that are a file each.

    Attributes:
        root: the folder of relative paths.
        paths: as encoded by the file system.
    """

    root: str
    paths: Packed

    def __len__(self) -> int:
        return len(self.paths)

    def place(self, row: int) -> FilePart:
        return FilePart(os.path.join(self.root, os.fsdecode(self.paths[row])))

    def key(self, row: int) -> bytes:
        return self.paths[row]

    def location(self, row: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self.paths[row])


@dataclass(frozen=True, eq=False)
class PlaceList:
    """A few images of any kind, one place object each."""

    places: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> Place:
        return self.places[row]

    def key(self, row: int) -> bytes:
        return os.fsencode(str(self.places[row]))

    def location(self, row: int) -> bytes:
        return self.key(row)


@dataclass(frozen=True, eq=False)
class Parts:
    """Images in files that hold many: tar archives, TFRecord shards.

    Attributes:
        files: paths of the files.
        file: int32 `(n,)`, the file of each image.
        offset: int64 `(n,)`, of the image in the file.
        length: int64 `(n,)`, of the image, in bytes.
        names: of the images in the archive; None where they have none.
    """

    files: tuple[str, ...]
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    names: Packed | None = None

    def __len__(self) -> int:
        return len(self.file)

    def place(self, row: int) -> FilePart:
        name = "" if self.names is None else self.names[row].decode(errors="replace")
        return FilePart(self.files[self.file[row]], int(self.offset[row]), int(self.length[row]), name)

    def key(self, row: int) -> bytes:
        if self.names is not None:
            return self.names[row]
        return f"{os.path.basename(self.files[self.file[row]])}@{self.offset[row]}".encode()

    def location(self, row: int) -> bytes:
        return os.fsencode(f"{self.files[self.file[row]]}/{self.offset[row]}")


@dataclass(frozen=True, eq=False)
class Memory:
    """Images in memory, named `<name>[<row>]`."""

    name: str
    images: Packed

    def __len__(self) -> int:
        return len(self.images)

    def place(self, row: int) -> Content:
        return Content(f"{self.name}[{row}]", self.images[row])

    def key(self, row: int) -> bytes:
        return str(row).encode()

    def location(self, row: int) -> bytes:
        return f"{self.name}/{row}".encode()
