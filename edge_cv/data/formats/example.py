"""tf.train.Example, the usual record of TFRecord and ArrayRecord files, written and read without TensorFlow.

An Example is a map from names to lists of byte strings, floats or int64 (tensorflow/core/example/example.proto). The
reader walks the few messages that it needs in protobuf's wire format. It returns offsets and skips images, so that a
shard is indexed without reading its pixels.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_BYTES_LIST, _INT64_LIST = 1, 3  # field numbers of Feature
_MAX_KEY = 256  # bytes; no feature that is looked for has a longer name
_MAX_INTS_BYTES = 2**20  # of one feature: labels are few
_MAX_VARINT = 10  # bytes
_READ_AHEAD = 4096  # bytes; one read gets the small features before or after an image

Span = tuple[int, int]  # offset, length


class Malformed(ValueError):
    """The bytes are not a tf.train.Example."""


@dataclass(frozen=True)
class Features:
    """The names of the features that are read. Of several names, the first that a record has is used."""

    image: tuple[bytes, ...] = (b"image/encoded", b"image")
    label: tuple[bytes, ...] = (b"image/class/label", b"label")
    wnid: tuple[bytes, ...] = (b"image/class/synset",)
    text: tuple[bytes, ...] = (b"image/class/text",)
    file_name: tuple[bytes, ...] = (b"image/filename", b"file_name")

    @functools.cached_property
    def names(self) -> frozenset[bytes]:
        """All names."""
        return frozenset((*self.image, *self.label, *self.wnid, *self.text, *self.file_name))


class Window(Protocol):
    """Random access to bytes."""

    def at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer at the end."""
        ...


class FileWindow:
    """A file with two small pieces in memory, for what is before and after an image in its record."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces = [(0, b""), (0, b"")]

    def at(self, offset: int, count: int) -> bytes:
        for start, piece in self._pieces:
            if start <= offset and offset + count <= start + len(piece):
                return piece[offset - start : offset - start + count]
        piece = os.pread(self._descriptor, max(count, _READ_AHEAD), offset)
        self._pieces = [(offset, piece), self._pieces[0]]
        return piece[:count]


class BytesWindow:
    """Bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def at(self, offset: int, count: int) -> bytes:
        return self._content[offset : offset + count]


def encode(features: Mapping[str, bytes | str | int | Sequence[int]]) -> bytes:
    """Serialize an Example, its names sorted.

    Args:
        features: byte string, text, number or numbers by name.
    """
    entries = b""
    for name, value in sorted(features.items()):
        if isinstance(value, str):
            value = value.encode()
        if isinstance(value, bytes):
            feature = _message(_BYTES_LIST, _message(1, value))
        else:
            numbers = [value] if isinstance(value, int) else value
            feature = _message(_INT64_LIST, _message(1, b"".join(_varint(int(n) % 2**64) for n in numbers)))
        entries += _message(1, _message(1, name.encode()) + _message(2, feature))
    return _message(1, entries)


def find(window: Window, start: int, stop: int, names: Collection[bytes]) -> dict[bytes, Span]:
    """Find features of an Example by their names.

    Args:
        window: the bytes.
        start, stop: the Example's range in them.
        names: of the features.

    Returns:
        Offset and length of each feature that the Example has.

    Raises:
        Malformed: the bytes are not an Example.
    """
    spans = {}
    for features in _parts(window, start, stop, 1):
        for entry in _parts(window, *_range(features), 1):
            name, feature = b"", None
            for number, wire, begin, end in _fields(window, *_range(entry)):
                if wire == _BYTES and number == 1 and end - begin <= _MAX_KEY:
                    name = window.at(begin, end - begin)
                elif wire == _BYTES and number == 2:
                    feature = begin, end - begin
            if name in names and feature is not None:
                spans[name] = feature
    return spans


def byte_strings(window: Window, feature: Span) -> list[Span]:
    """Offset and length of each byte string of a feature; empty for another type."""
    lists = _parts(window, *_range(feature), _BYTES_LIST)
    return [string for strings in lists for string in _parts(window, *_range(strings), 1)]


def integers(window: Window, feature: Span) -> list[int]:
    """The int64 values of a feature; empty for another type."""
    numbers: list[int] = []
    for values in _parts(window, *_range(feature), _INT64_LIST):
        for number, wire, begin, end in _fields(window, *_range(values)):
            if number != 1 or wire not in (_VARINT, _BYTES):
                continue
            if end - begin > _MAX_INTS_BYTES:
                raise Malformed(f"a feature of more than {_MAX_INTS_BYTES} bytes of numbers")
            piece, at = window.at(begin, end - begin), 0
            while at < len(piece):
                value, at = _read_varint(piece, at)
                numbers.append(value - 2**64 if value >= 2**63 else value)
    return numbers


def image_span(window: Window, spans: Mapping[bytes, Span], features: Features) -> Span:
    """Offset and length of the encoded image among the features of an Example; Malformed when it has none."""
    for key in features.image:
        strings = byte_strings(window, spans[key]) if key in spans else ()
        if strings:
            return strings[0]
    raise Malformed(f"it has no {features.image[0].decode()}")


def _range(span: Span) -> tuple[int, int]:
    return span[0], span[0] + span[1]


def _parts(window: Window, start: int, stop: int, field: int) -> list[Span]:
    """Offset and length of each length-delimited field of this number."""
    return [(b, e - b) for number, wire, b, e in _fields(window, start, stop) if number == field and wire == _BYTES]


def _fields(window: Window, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, begin and end of each field of a message."""
    while start < stop:
        piece = window.at(start, min(2 * _MAX_VARINT, stop - start))
        tag, at = _read_varint(piece, 0)
        number, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, at = _read_varint(piece, at)
            end = start + at + length
        elif wire == _VARINT:
            end = start + _read_varint(piece, at)[1]
        elif wire in (_FIXED64, _FIXED32):
            end = start + at + (8 if wire == _FIXED64 else 4)
        else:
            raise Malformed(f"a field of wire type {wire}")
        if end > stop or not number:
            raise Malformed("a field that is longer than its message")
        yield number, wire, start + at, end
        start = end


def _read_varint(piece: bytes, at: int) -> tuple[int, int]:
    """The number at an offset of the piece, and the offset after it."""
    if at < len(piece) and piece[at] < 0x80:  # most numbers are short
        return piece[at], at + 1
    value = 0
    for position, byte in enumerate(piece[at : at + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value % 2**64, at + position + 1
    raise Malformed("a number that does not end")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content
