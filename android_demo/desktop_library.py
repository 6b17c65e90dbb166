"""Makes TensorFlow Lite's library for Android run on a desktop, for the tests."""

from __future__ import annotations

import struct

# Functions that desktop/bionic.c replaces; its version has the first letter b.
RENAMED = ("sysconf", "strerror_r", "fprintf", "vfprintf", "fputc", "fflush", "fwrite", "fileno", "fclose", "dlsym")


def adapt(library: bytes) -> bytes:
    """Adapt an Android library for x86_64 to glibc's loader.

    Android's symbols have versions that glibc does not have. The five entries of the dynamic section that require them
    get a tag that loaders ignore. The functions that desktop/bionic.c replaces get its names.

    Raises:
        ValueError: the library does not use one of these functions.
    """
    content = bytearray(library)
    program_headers, count = struct.unpack_from("<Q", content, 32)[0], struct.unpack_from("<H", content, 56)[0]
    segments = [struct.unpack_from("<IIQQQQQQ", content, program_headers + 56 * i) for i in range(count)]
    load, dynamic = 1, 2

    def place(address: int) -> int:
        """The file offset of a load address."""
        _, _, offset, start, *_ = next(s for s in segments if s[0] == load and s[3] <= address < s[3] + s[5])
        return address - start + offset

    versions = (0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF)  # VERSYM, VERDEF(NUM), VERNEED(NUM)
    string_table, string_bytes = 5, 10
    entries: dict[int, int] = {}
    at = next(s[2] for s in segments if s[0] == dynamic)
    while (entry := struct.unpack_from("<QQ", content, at))[0] != 0:
        entries[entry[0]] = entry[1]
        if entry[0] in versions:
            struct.pack_into("<Q", content, at, 0x60000123)
        at += 16
    start = place(entries[string_table])
    for name in RENAMED:
        offset = content.find(f"\0{name}\0".encode(), start, start + entries[string_bytes])
        if offset < 0:
            raise ValueError(f"TensorFlow Lite's library must use {name}, which desktop/bionic.c replaces")
        content[offset + 1] = ord("b")
    return bytes(content)
