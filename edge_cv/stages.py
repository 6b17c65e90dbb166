"""Stages of a run that are skipped when nothing that they depend on has changed.

Each stage leaves a small record `stages/<name>.json` in the run's folder: a key made of its inputs, the files that it
wrote with their SHA-256, and its result. The record is written last, so a stage that was killed is simply run again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.files import write_atomic

VERSIONED = ("edge-cv", "tensorflow", "keras", "ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "pillow")


@dataclass(frozen=True)
class Stages:
    """The stages of the run in `folder`."""

    folder: Path

    def once(
        self, name: str, inputs: Any, work: Callable[[], tuple[Any, Iterable[Path]]]
    ) -> tuple[Any, dict[str, str]]:
        """The result of `work()`, or the recorded one when the inputs and the files that it wrote are unchanged.

        Args:
            name: of the stage; names its record.
            inputs: what the stage depends on, as JSON takes it.
            work: returns its result, as JSON takes it, and the files in the run's folder that it wrote.

        Returns:
            The result and the SHA-256 of each file by its name.
        """
        versions = {package: metadata.version(package) for package in VERSIONED}
        text = json.dumps([name, inputs, versions], sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        place = self.folder / "stages" / f"{name}.json"
        try:
            record = json.loads(place.read_text())
            files = record["files"]
            if record["key"] == key and all(file_sha256(self.folder / file) == sha for file, sha in files.items()):
                return record["result"], files
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        result, written = work()
        files = {path.name: file_sha256(path) for path in written}
        text = json.dumps({"key": key, "files": files, "result": result}, allow_nan=False)
        write_atomic(place, text)
        return json.loads(text)["result"], files


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
