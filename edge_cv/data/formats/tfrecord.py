"""TFRecord files without TensorFlow: a sequence of records, each with its length and two checksums.

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
    """The record of these bytes."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def records(path: str | os.PathLike, window: FileWindow, size: int) -> Iterator[tuple[int, int]]:
    """Find the records by reading their headers alone.

    Args:
        path: the file, for messages.
        window: the open file, shared with the reader of the records.
        size: of the file, in bytes.

    Yields:
        Offset and length of each record's data.

    Raises:
        InputError: the file is compressed, ends within a record, or a length does not match its checksum.
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
            what = "another format, or a compressed file" if offset == 0 else "a broken record"
            raise InputError(f"{where}: the length must match its checksum. Received: {what}")
        (length,) = struct.unpack("<Q", header[:8])
        if length > MAX_RECORD_BYTES:
            raise InputError(f"{where}: a record must have at most {MAX_RECORD_BYTES} bytes. Received: {length}")
        if length > size - offset - HEADER_BYTES - FOOTER_BYTES:
            raise InputError(f"{where}: the file ends within the record")
        yield offset + HEADER_BYTES, length
        offset += HEADER_BYTES + length + FOOTER_BYTES


def check_data(path: str | os.PathLike) -> int:
    """Read every record and compare its data with its checksum.

    Returns:
        The number of records.

    Raises:
        InputError: as `records`, or a record's data does not match its checksum.
    """
    count = 0
    with open_to_read(path) as file:
        for offset, length in records(path, FileWindow(file.fileno()), os.fstat(file.fileno()).st_size):
            content = os.pread(file.fileno(), length + FOOTER_BYTES, offset)
            if len(content) < length + FOOTER_BYTES or _masked_crc(content[:length]) != content[length:]:
                raise InputError(f"{path}, record at byte {offset - HEADER_BYTES}: the data must match the checksum")
            count += 1
    return count


def open_to_read(path: str | os.PathLike) -> io.FileIO:
    """Open a regular file without a buffer; InputError when it cannot be opened."""
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
