"""How much each layer of an int8 file adds to the error of the logits, and what keeping layers wide costs.

Both come from the search for a `mixed` file, whose record holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError
from converters.strict_json import typed

MOST_LAYERS, MOST_DECIBELS = 10_000, 1000


@dataclass(frozen=True)
class Trial:
    """A file in which the most sensitive layers are wide, on the calibration images that did not make it.

    Attributes:
        wide_layers: their number; 0 is the int8 file.
        sqnr_db: of the logits against the float model; None without noise.
        agreement: share of images, 0..1, with the float model's top-1.
        latency_ms: median of single inferences at one thread on the machine that converted.
        size_bytes: of the file.
    """

    wide_layers: int
    sqnr_db: float | None
    agreement: float
    latency_ms: float
    size_bytes: int

    def __post_init__(self) -> None:
        _check_decibels(self.sqnr_db)
        if self.wide_layers < 0 or not 0 <= self.agreement <= 1 or self.latency_ms <= 0 or self.size_bytes <= 0:
            raise InputError(f"a trial's figures must be positive, and its agreement in 0..1. Received: {self}")


@dataclass(frozen=True)
class Sensitivity:
    """The search of a `mixed` file.

    Attributes:
        alone_sqnr_db: for each layer the SQNR of the logits when it alone is int8, None without noise; the 60 layers
            with the most weights, the largest first.
        wide_layers: the layers that are float in the file, the most sensitive first.
        curve: the measured files, from the fewest wide layers to the most.
    """

    alone_sqnr_db: dict[str, float | None]
    wide_layers: tuple[str, ...]
    curve: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if max(len(self.alone_sqnr_db), len(self.curve)) > MOST_LAYERS:
            raise InputError(f"a search of layers must have at most {MOST_LAYERS:,} of them")
        for db in self.alone_sqnr_db.values():
            _check_decibels(db)

    def parts(self) -> dict[str, float]:
        """Each layer's share, 0..1, of the noise that all layers cause, each alone; empty without noise."""
        noise = {name: 0.0 if db is None else 10 ** (-db / 10) for name, db in self.alone_sqnr_db.items()}
        total = sum(noise.values())
        return {name: value / total for name, value in noise.items()} if total else {}


def _check_decibels(db: float | None) -> None:
    if db is not None and abs(db) > MOST_DECIBELS:
        raise InputError(f"an SQNR must be within {MOST_DECIBELS} dB of 0. Received: {db}")


def of_file(path: Path) -> Sensitivity | None:
    """The search that a `.tflite` file's record holds; None if it is not a `mixed` file."""
    from converters.record import read_record

    record = read_record(path)
    return None if record is None or record.mixed is None else typed(Sensitivity, record.mixed, "a file's search")
