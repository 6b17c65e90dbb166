"""`Conversion`: a converted model with what is known of it, and how it is written down."""

from __future__ import annotations

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
from converters.tflite import metadata


@dataclass(frozen=True)
class Conversion:
    """A model in the form in which it is shipped.

    Attributes:
        content: the bytes of the `.tflite` or `.onnx` file.
        scheme: `float32`, `float16`, `dynamic_int8`, `int8`, ...
        format: `tflite` or `onnx`.
        metadata: what the sidecar says: preprocessing, input and output, labels, source, versions, date, parity.
        parity: how its outputs compare with the source model's.
    """

    content: bytes
    scheme: str
    format: str
    metadata: dict[str, Any]
    parity: Parity

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def gzip_bytes(self) -> int:
        """The file's size after gzip, which is how it is downloaded."""
        return len(gzip.compress(self.content, mtime=0))

    @property
    def labels(self) -> tuple[str, ...] | None:
        labels = self.metadata.get("labels")
        return None if labels is None else tuple(labels)

    @property
    def pixel_offset(self) -> int | None:
        """What is added to a pixel 0..255 to make the input tensor's integer; None when it is not pixels, or float."""
        return self.metadata["input"]["pixel_offset"]

    def save(self, path: str | os.PathLike) -> Path:
        """Write the file and its sidecar `<stem>.json`, each beside its place and then renamed.

        The sidecar holds the file's SHA-256, so that one of an earlier file is known for what it is.

        Raises:
            InputError: the ending is not the format's, or it cannot be written; an earlier file is then untouched.
        """
        path = Path(path)
        if path.suffix != f".{self.format}":
            raise InputError(f"the file's name must end in .{self.format}. Received: {path}")
        sidecar = path.with_suffix(".json")
        if sidecar.is_file():
            try:
                other = json.loads(sidecar.read_text()).get("file")
            except (OSError, ValueError, AttributeError):
                other = None
            if other != path.name:
                owner = f"it is {other}'s" if isinstance(other, str) else "it is no sidecar of ours"
                raise InputError(f"the sidecar {sidecar} must not belong to another file. Received: {owner}")
        record = {
            "file": path.name,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "size_bytes": self.size_bytes,
            **self.metadata,
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_together({path: self.content, sidecar: text})
        return path


read_metadata = metadata.read
