"""Measurements made on devices, merged into the rows whose artifacts they are of."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converters.errors import InputError
from edge_cv.evaluation.measurement import Measurement
from edge_cv.report import sentences
from edge_cv.report.values import Report, Row


def load(paths: Sequence[str | os.PathLike]) -> tuple[list[Report], list[Measurement]]:
    """The reports of run folders and the measurement files among the paths.

    Raises:
        InputError: one is neither, or a measurement says only why there is none.
    """
    reports, measurements = [], []
    for path in map(Path, paths):
        if path.is_file() and _kind(path) == "measurement":
            measurements.append(Measurement.load(path))
        else:
            reports.append(Report.load(path))
    return reports, measurements


def with_measurements(report: Report, measurements: Sequence[Measurement]) -> Report:
    """The report with each measurement's latencies in the rows of the same artifact, and a note on what else it tells.

    A latency goes in the place of one of the same host, runtime and threads. Where the host has another runtime there
    already, the new one's is told with the host. Limits stay as they are: they were judged where the run measured.

    Raises:
        InputError: no row has the artifact that was measured.
    """
    rows, notes, devices = list(report.rows), list(report.notes), {}
    for measurement in measurements:
        places = [place for place, row in enumerate(rows) if row.sha256 == measurement.sha256]
        if not places:
            raise InputError(
                "a measurement must be of a file that a report has a row of: run again what made the report, or "
                f"measure its file. Received: {measurement.file}, SHA-256 {measurement.sha256[:12]}..."
            )
        for place in places:
            rows[place] = _merged(rows[place], measurement)
        devices[measurement.device["host"]] = {k: v for k, v in measurement.device.items() if k != "host"}
        notes.append(_note(rows[places[0]], measurement))
    environment = {**report.environment, **({"devices": devices} if devices else {})}
    return dataclasses.replace(report, rows=tuple(rows), notes=tuple(dict.fromkeys(notes)), environment=environment)


def _merged(row: Row, measurement: Measurement) -> Row:
    latency = list(row.latency)
    for new in measurement.latency:
        entry = new.to_json()
        hosts = {e["host"] for e in latency if e["host"] == new.host and e["runtime"] != new.runtime}
        if hosts:
            entry["host"] = f"{new.host}, {new.runtime}"
        same = [(e["host"], e["threads"]) == (entry["host"], entry["threads"]) for e in latency]
        latency = [e for e, gone in zip(latency, same, strict=True) if not gone] + [entry]
    return dataclasses.replace(row, latency=tuple(latency))


def _note(row: Row, measurement: Measurement) -> str:
    parts = []
    if measurement.likeness is not None:
        parts.append(measurement.likeness.sentence())
    if measurement.peak_memory_bytes is not None:
        parts.append(f"peak memory {sentences.size(measurement.peak_memory_bytes)}")
    if measurement.temperature_c is not None:
        before, after = measurement.temperature_c
        parts.append(f"{before:.0f} °C before and {after:.0f} °C after")
    if measurement.clock_mhz is not None:
        before, after = measurement.clock_mhz
        parts.append(f"clock {before:.0f} MHz before and {after:.0f} MHz after")
    if measurement.device.get("throttled", "no") != "no":
        parts.append(f"throttled: {measurement.device['throttled']}")
    if measurement.error is not None:
        parts.append("broken off before all was measured")
    return f"{row.name} on {measurement.device['host']}: {'; '.join(parts) or 'only latency was measured'}."


def _kind(path: Path) -> Any:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return fields.get("kind") if isinstance(fields, dict) else None
