"""Reading the standard metadata of TFLite files, as TensorFlow's tools and MediaPipe's model maker write it.

Schema: https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
"""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass

from converters.tflite.graph import Graph
from converters.tflite.metadata import STANDARD_NAME

MAX_LABEL_BYTES = 16 * 2**20
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2


@dataclass(frozen=True)
class StandardMetadata:
    """The normalization of the image input, and the class names.

    Attributes:
        mean, std: the input is `(pixel - mean) / std`, one number or one a channel; None if not declared.
        labels: class names in the order of the outputs; None without a label file.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None


def read_standard(content: bytes, graph: Graph) -> StandardMetadata | None:
    """The standard metadata of a TFLite file; None where there is none or it is broken."""
    buffer = graph.metadata(STANDARD_NAME)
    if buffer is None:
        return None
    try:
        root = _Table(buffer, struct.unpack_from("<I", buffer, 0)[0])
        subgraph = root.tables(3)[0]
        images, outputs = subgraph.tables(2), subgraph.tables(3)
        mean = std = None
        for unit in images[0].tables(4) if images else ():
            options = unit.table(1)
            if unit.byte(0) == _NORMALIZATION_OPTIONS and options is not None:
                mean, std = options.floats(0) or None, options.floats(1) or None
        files = outputs[0].tables(6) if outputs else []
        names = [file.text(0) for file in files if file.byte(2) == _TENSOR_AXIS_LABELS]
        return StandardMetadata(mean, std, _zipped_lines(content, names[0]) if names else None)
    except (struct.error, IndexError, ValueError, OverflowError):  # untrusted bytes
        return None


def _zipped_lines(content: bytes, name: str) -> tuple[str, ...] | None:
    """The lines of a file in the zip archive at the end of a TFLite file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as file:
            text = file.read(MAX_LABEL_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError, ValueError):
        return None
    if len(text) > MAX_LABEL_BYTES:
        return None
    lines = [line.strip() for line in text.decode("utf-8-sig", errors="replace").splitlines()]
    return tuple(line for line in lines if line) or None


class _Table:
    """A table of a flatbuffer, read without generated code. Broken bytes raise struct.error or IndexError."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self._buffer, self._position = buffer, position
        self._fields = position - struct.unpack_from("<i", buffer, position)[0]
        if self._fields < 0:
            raise IndexError(position)

    def _field(self, slot: int) -> int | None:
        """The position of a field; None where it has its default."""
        (size,) = struct.unpack_from("<H", self._buffer, self._fields)
        if 4 + 2 * slot >= size:
            return None
        (offset,) = struct.unpack_from("<H", self._buffer, self._fields + 4 + 2 * slot)
        return self._position + offset if offset else None

    def _target(self, position: int) -> int:
        return position + int(struct.unpack_from("<I", self._buffer, position)[0])

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        """The position of a vector's first item, and the number of items."""
        field = self._field(slot)
        if field is None:
            return 0, 0
        start = self._target(field)
        (count,) = struct.unpack_from("<I", self._buffer, start)
        if start + 4 + count * size > len(self._buffer):
            raise IndexError(count)
        return start + 4, count

    def byte(self, slot: int) -> int:
        field = self._field(slot)
        return 0 if field is None else self._buffer[field]

    def table(self, slot: int) -> _Table | None:
        field = self._field(slot)
        return None if field is None else _Table(self._buffer, self._target(field))

    def tables(self, slot: int) -> list[_Table]:
        start, count = self._vector(slot, 4)
        return [_Table(self._buffer, self._target(start + 4 * index)) for index in range(count)]

    def floats(self, slot: int) -> tuple[float, ...]:
        start, count = self._vector(slot, 4)
        return struct.unpack_from(f"<{count}f", self._buffer, start) if count else ()

    def text(self, slot: int) -> str:
        start, count = self._vector(slot, 1)
        return self._buffer[start : start + count].decode("utf-8", errors="replace")
