"""Reading a JPEG's header without decoding it: its size, and whether TensorFlow's decoder reads it correctly."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass

from converters.images.decoding import MAX_PIXELS

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, Huffman-coded: ITU T.81, table B.1
_SCAN, _APP1, _APP14 = 0xDA, 0xE1, 0xEE
_HEAD_BYTES = 16384  # longer than nearly all headers
_MAX_FILE_BYTES = 2**28  # far above any photo


@dataclass(frozen=True)
class Header:
    """The header of a complete JPEG with 8 bits a sample, grey or YCbCr.

    Attributes:
        height, width: as stored, in pixels.
        orientation: EXIF's tag, 1..8.
    """

    height: int
    width: int
    orientation: int


def read_header(content: bytes) -> Header | None:
    """The header; None for another format, CMYK, RGB, too many pixels, a truncated file or a broken header."""
    if not content.startswith(_START) or content[-2:] != _END:
        return None
    position, frame, described = 2, None, False
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        body = content[position + 4 : position + 2 + length]
        if marker == _SCAN:
            return None if frame is None else Header(*frame, _orientation(content) if described else 1)
        if length < 2 or marker in (0xD8, 0xD9) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None
        if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12 and body[11] != 1:
            return None  # the three channels are RGB, not YCbCr, or there are four
        if marker in _FRAMES:
            if frame is not None or len(body) < 6 or body[0] != 8 or body[5] not in (1, 3):
                return None
            frame = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            if not 0 < frame[0] * frame[1] <= MAX_PIXELS:
                return None
        described |= marker == _APP1
        position += 2 + length
    return None


def read_header_of_file(path: str) -> Header | None:
    """As `read_header`, reading only the beginning and the end of a file; None where these are not enough."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not 4 < status.st_size < _MAX_FILE_BYTES:
                return None
            head, end = os.pread(descriptor, _HEAD_BYTES, 0), os.pread(descriptor, 2, status.st_size - 2)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    return read_header(head + end)


def _orientation(content: bytes) -> int:
    from PIL import Image, JpegImagePlugin  # noqa: F401

    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF; the image itself is readable
        return 1
    return orientation if orientation in range(1, 9) else 1
