"""The measured table: size, latency and memory of every architecture on one machine.

`measured.json` comes with the package; `edge-cv models --measure` makes the same of another machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from converters import strict_json
from converters.errors import InputError
from converters.files import write_atomic

SCHEMA = 1
PACKAGED = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class MeasuredFile:
    """One TFLite file of an architecture.

    Attributes:
        size_bytes: of the file.
        p50_ms: median latency of single inferences with one thread, in milliseconds, of the least disturbed round.
        cpu_share: processor time divided by wall time; clearly below 1 where other programs disturbed the measurement.
        peak_memory_bytes: growth of the process's memory by the model; None where the system does not report it.
        arena_bytes: the memory that TensorFlow Lite for Microcontrollers needs beside the file.
    """

    size_bytes: int
    p50_ms: float
    cpu_share: float
    peak_memory_bytes: int | None
    arena_bytes: int


@dataclass(frozen=True)
class MeasuredModel:
    """An architecture with 1000 classes at its published image size.

    Attributes:
        name: of the architecture.
        image_size: height and width in pixels.
        float32, int8: its two files.
        whole_on: the targets that run every operator of the int8 file themselves, by the rules of
            `converters.devices.targets`.
    """

    name: str
    image_size: int
    float32: MeasuredFile
    int8: MeasuredFile
    whole_on: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredTable:
    """All measured architectures, with the machine and the date.

    Attributes:
        host: the machine: its processor and number of cores.
        runtime: the program that ran the files.
        date: of the last measurement, ISO 8601.
        versions: of the libraries that made and ran the files.
        models: the architectures.
    """

    host: str
    runtime: str
    date: str
    versions: dict[str, str]
    models: tuple[MeasuredModel, ...]

    def save(self, path: Path) -> None:
        """Write the table as JSON."""
        write_atomic(path, json.dumps({"schema": SCHEMA, "kind": "models"} | asdict(self), indent=1) + "\n")


def load(path: Path = PACKAGED) -> MeasuredTable:
    """Read a table.

    Raises:
        InputError: the file cannot be read, or is no such table.
    """
    fields = strict_json.mapping(strict_json.read(path, "a measured table"), "a measured table")
    kind, schema = fields.get("kind"), fields.get("schema")
    if (kind, schema) != ("models", SCHEMA):
        raise InputError(
            f"{path}: a measured table must have the kind 'models' and the schema {SCHEMA}. "
            f"Received: {kind!r:.40}, {schema!r:.40}"
        )
    try:
        return strict_json.typed(MeasuredTable, fields, "a measured table")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
