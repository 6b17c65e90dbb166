"""TFRecord files without TensorFlow: records one after the other, each with its length and two checksums.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these 8 bytes, the data, and the masked CRC-32C
of the data (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from converters.errors import InputError
from edge_cv.data.formats.example import FileWindow

HEADER_BYTES, FOOTER_BYTES = 12, 4
MAX_RECORD_BYTES = 2**30

_GZIP = b"\x1f\x8b"


def frame(data: bytes) -> bytes:
    """The record that holds these bytes."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def records(path: str | os.PathLike, window: FileWindow, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the data of each record, found by reading the headers alone.

    Args:
        path: the file, for messages.
        window: the open file; who looks into the records through it as well shares what was read.
        size: of the file, in bytes.

    Raises:
        InputError: the file is compressed, ends within a record, or a length and its checksum do not fit.
    """
    offset = 0
    while offset < size:
        header = window.at(offset, HEADER_BYTES)
        where = f"{path}, record at byte {offset}"
        if offset == 0 and header.startswith(_GZIP):
            raise InputError(f"{path} must be an uncompressed TFRecord file. Received: a gzip file")
        if len(header) < HEADER_BYTES:
            raise InputError(f"{where}: the file ends within the record")
        if _masked_crc(header[:8]) != header[8:]:
            what = "no TFRecord file, or compressed" if offset == 0 else "a broken record"
            raise InputError(f"{where}: the checksum of its length must fit. Received: {what}")
        (length,) = struct.unpack("<Q", header[:8])
        if length > MAX_RECORD_BYTES:
            raise InputError(f"{where}: a record must have at most {MAX_RECORD_BYTES} bytes. Received: {length}")
        if length > size - offset - HEADER_BYTES - FOOTER_BYTES:
            raise InputError(f"{where}: the file ends within the record")
        yield offset + HEADER_BYTES, length
        offset += HEADER_BYTES + length + FOOTER_BYTES


def check_data(path: str | os.PathLike) -> int:
    """The number of records, each of which was read and has the data that its checksum says.

    Raises:
        InputError: as `records`, or a record's data does not fit its checksum.
    """
    count = 0
    with open_to_read(path) as file:
        for offset, length in records(path, FileWindow(file.fileno()), os.fstat(file.fileno()).st_size):
            content = os.pread(file.fileno(), length + FOOTER_BYTES, offset)
            if len(content) < length + FOOTER_BYTES or _masked_crc(content[:length]) != content[length:]:
                raise InputError(f"{path}, record at byte {offset - HEADER_BYTES}: its data must fit their checksum")
            count += 1
    return count


def open_to_read(path: str | os.PathLike) -> io.FileIO:
    """An unbuffered regular file, or InputError."""
    try:
        if not Path(path).is_file():
            raise InputError(f"{path} must be a file that exists")
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _masked_crc(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
