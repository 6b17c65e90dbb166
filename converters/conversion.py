"""`Conversion`: a converted model with its record, and how it is saved."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.files import write_together
from converters.parity import Parity
from converters.record import Record, read_sidecar


@dataclass(frozen=True)
class Conversion:
    """A converted model.

    Attributes:
        content: the bytes of the `.tflite` or `.onnx` file.
        scheme: `float32`, `float16`, `dynamic_int8`, `int8`, ...
        format: `tflite` or `onnx`.
        record: preprocessing, input and output, labels, source, versions, date, parity.
        parity: how its outputs compare with the source model's.
    """

    content: bytes
    scheme: str
    format: str
    record: Record
    parity: Parity

    @property
    def metadata(self) -> dict[str, Any]:
        """The record as JSON values, as the sidecar holds them."""
        return self.record.to_json()

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def gzip_bytes(self) -> int:
        """The size after gzip, in which the file is usually downloaded."""
        return len(gzip.compress(self.content, mtime=0))

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the outputs; None when none were given."""
        return self.record.labels

    @property
    def pixel_offset(self) -> int | None:
        """What is added to a pixel 0..255 to make the input's integer; None where the input is no such integer."""
        return self.record.input.pixel_offset

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file and its sidecar `<stem>.json`; both replace earlier files only when both are written.

        The sidecar holds the file's SHA-256, which detects a sidecar of an earlier file.

        Raises:
            InputError: the path's suffix is not the format's, or it cannot be written; earlier files are unchanged.
        """
        path = Path(path)
        if path.suffix != f".{self.format}":
            raise InputError(f"the file's name must end in .{self.format}. Received: {path}")
        sidecar = path.with_suffix(".json")
        _check_sidecar(sidecar, path.name)
        digest = hashlib.sha256(self.content).hexdigest()
        record = dataclasses.replace(self.record, file=path.name, sha256=digest, size_bytes=self.size_bytes)
        text = json.dumps(record.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_together({path: self.content, sidecar: text})
        return path


def _check_sidecar(sidecar: Path, name: str) -> None:
    """Raise InputError when the sidecar exists and belongs to another file than `name`."""
    if not sidecar.is_file():
        return
    other = (read_sidecar(sidecar) or {}).get("file")
    if other != name:
        owner = f"it belongs to {other}" if isinstance(other, str) else "it is not a sidecar of a conversion"
        raise InputError(f"the sidecar {sidecar} must not belong to another file. Received: {owner}")
