"""Cached steps: a step of a run is skipped when its inputs and its files are unchanged.

Each step leaves a record `stages/<name>.json` in the run's folder: a key computed from its inputs, the files that it
wrote with their SHA-256, and its result. The record is written last, so an interrupted step is simply run again, and
so is a step whose record was changed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters import strict_json
from converters.files import file_sha256, write_atomic
from converters.packages import package_versions

MAX_BYTES = 1 << 28  # of a record: the epochs and pictures of a long run
VERSIONED = ("tensorflow", "keras", "ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "pillow")


@dataclass(frozen=True)
class Steps:
    """The cached steps of one run.

    Attributes:
        folder: the run's folder.
    """

    folder: Path

    def cached(
        self, name: str, inputs: Any, work: Callable[[], tuple[Any, Iterable[Path]]]
    ) -> tuple[Any, dict[str, str]]:
        """Return the recorded result if the inputs and the step's files are unchanged, else the result of `work()`.

        Args:
            name: the step's name; the record is `stages/<name>.json`.
            inputs: everything that the result depends on, as JSON values.
            work: returns its result, as JSON values, and the files that it wrote in the run's folder.

        Returns:
            The result, and the SHA-256 of each file by its path in the run's folder.
        """
        recorded = self.recorded(name, inputs)
        if recorded is not None:
            return recorded
        result, written = work()
        files = {path.relative_to(self.folder).as_posix(): file_sha256(path) for path in written}
        content = json.dumps(result, allow_nan=False)
        record = {"key": _key(name, inputs), "files": files, "result": json.loads(content)}
        record["sha256"] = _digest(record)
        write_atomic(self._record(name), json.dumps(record, allow_nan=False))
        return record["result"], files

    def recorded(self, name: str, inputs: Any) -> tuple[Any, dict[str, str]] | None:
        """The recorded result and files of a step; None if the inputs or the files have changed."""
        path = self._record(name)
        try:
            record = dict(strict_json.mapping(strict_json.read(path, "a step's record", MAX_BYTES), "a step's record"))
            files = strict_json.typed(dict[str, str], record.get("files"), "a step's files")
            unchanged = record.pop("sha256", None) == _digest(record) and record["key"] == _key(name, inputs)
            if unchanged and all(_is(self.folder / file, sha) for file, sha in files.items()):
                return record["result"], files
        except (OSError, ValueError, KeyError):  # there is none, or it was changed
            pass
        return None

    def _record(self, name: str) -> Path:
        return self.folder / "stages" / f"{name}.json"


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


def _digest(record: dict[str, Any]) -> str:
    """The digest of a record's other fields, by which a changed one is noticed."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _key(name: str, inputs: Any) -> str:
    text = json.dumps([name, inputs, tools()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def tools() -> dict[str, str]:
    """The versions that every result depends on: the libraries' and a hash of this project's own source."""
    own = hashlib.sha256()
    for package in ("converters", "edge_cv"):
        for folder in importlib.import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                own.update(path.read_bytes())
    return {"source": own.hexdigest(), **package_versions(VERSIONED)}


def fingerprint(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, size and modification time of each file, which show a change without reading the file."""
    fingerprints = []
    for path in paths:
        try:
            status = path.stat()
            fingerprints.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            fingerprints.append((str(path), -1, 0))  # the step that reads the file reports the error
    return fingerprints
