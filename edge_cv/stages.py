"""Stages of a run that are skipped when nothing that they depend on has changed.

Each stage leaves a small record `stages/<name>.json` in the run's folder: a key made of its inputs, the files that it
wrote with their SHA-256, and its result. The record is written last, so a stage that was killed is simply run again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from converters.files import write_atomic

VERSIONED = ("tensorflow", "keras", "ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "pillow")


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
            The result and the SHA-256 of each file by its path in the run's folder.
        """
        text = json.dumps([name, inputs, tools()], sort_keys=True, default=str)
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
        files = {path.relative_to(self.folder).as_posix(): file_sha256(path) for path in written}
        text = json.dumps({"key": key, "files": files, "result": result}, allow_nan=False)
        write_atomic(place, text)
        return json.loads(text)["result"], files


@functools.cache
def tools() -> dict[str, str]:
    """What else a result depends on: the versions of the libraries and our own source, which changes between them."""
    own = hashlib.sha256()
    for package in ("converters", "edge_cv"):
        for folder in importlib.import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                own.update(path.read_bytes())
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    versions = {package: metadata.version(package) for package in VERSIONED if package in installed}
    return {"source": own.hexdigest(), **versions}


def fingerprint(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """What tells a changed file from the same one, without reading it."""
    found = []
    for path in paths:
        try:
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((str(path), -1, 0))  # whoever reads it names it
    return found


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
