"""Comparing rows with each other, and combining several reports and measurements in one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from converters.errors import InputError
from edge_cv.evaluation.latency import Latency
from edge_cv.report import formats
from edge_cv.report.values import Report, Row

if TYPE_CHECKING:
    from edge_cv.evaluation.measurement import Measurement

FLOAT_SCHEMES = ("float32", "float16")

Value = TypeVar("Value")


def reference_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The float model that `row` is compared with: of the same run, TFLite before ONNX, float32 before float16."""
    floats = [r for r in rows if r.run == row.run and not r.output.stage and r.output.scheme in FLOAT_SCHEMES]
    return min(floats, key=lambda r: (r.is_onnx, r.output.scheme != "float32"), default=None)


def main_rows(rows: Sequence[Row]) -> tuple[Row | None, Row | None]:
    """The float reference of the first run, and the row compared with it: int8 if present, else the smallest file."""
    if not rows:
        return None, None
    reference = reference_of(rows[0], rows)
    others = [r for r in rows if r is not reference and r.run == rows[0].run]
    integers = sorted((r for r in others if r.output.scheme == "int8" and not r.output.stage), key=lambda r: r.is_onnx)
    sized = [r for r in others if r.size_bytes]
    chosen = integers or sorted(sized, key=lambda r: r.size_bytes or 0) or others
    return reference, (chosen[0] if chosen else None)


def main_pairs(measured: Sequence[tuple[Row, Value]]) -> list[tuple[Row, Value]]:
    """The entries of the two rows of `main_rows`; the first entry where neither of them has any."""
    chosen = [row for row in main_rows([row for row, _ in measured]) if row is not None]
    return [(row, value) for one in chosen for row, value in measured if row is one] or list(measured[:1])


def size_ratio(row: Row, reference: Row | None) -> float | None:
    """The reference's file size divided by the row's."""
    if reference is None or not row.size_bytes or not reference.size_bytes:
        return None
    return reference.size_bytes / row.size_bytes


def latency_on(row: Row, host: str, threads: int) -> Latency | None:
    """The row's latency on that host with that number of threads."""
    return next((entry for entry in row.latency if entry.host == host and entry.threads == threads), None)


def estimate_sources(rows: Sequence[Row]) -> list[str]:
    """The NPUs and compilers that estimate the latency of rows, each once."""
    estimates = [row.estimate for row in rows if row.estimate is not None]
    return list(dict.fromkeys(one.source for one in estimates if one.milliseconds is not None))


def estimated_ms(row: Row, source: str) -> float | None:
    """The latency of a row that this source estimates."""
    return row.estimate.milliseconds if row.estimate is not None and row.estimate.source == source else None


def settings(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """All measured combinations of (host, threads): hosts in order of appearance, fewest threads first."""
    hosts = list(dict.fromkeys(entry.host for row in rows for entry in row.latency))
    pairs = {(entry.host, entry.threads) for row in rows for entry in row.latency}
    return sorted(pairs, key=lambda pair: (hosts.index(pair[0]), pair[1]))


def speed_up(row: Row, reference: Row | None, host: str, threads: int) -> float | None:
    """The reference's p50 divided by the row's, both on that host with that number of threads."""
    own = latency_on(row, host, threads)
    other = latency_on(reference, host, threads) if reference is not None else None
    return other.p50_ms / own.p50_ms if own and other and own.p50_ms and other.p50_ms else None


def merge(reports: Sequence[Report], names: Sequence[str] | None = None) -> Report:
    """Combine several runs in one report whose rows carry the run's name.

    Args:
        reports: the runs, in the order in which the report shows them.
        names: a name for each run; the recipes' names by default. A repeated name gets a number.

    Returns:
        The comparison. A single report is returned unchanged. Photos are left out, since each run may have its own.

    Raises:
        InputError: there is no report, or the number of names differs from the number of reports.
    """
    reports = list(reports)
    if not reports:
        raise InputError("a comparison needs at least one report. Received: none")
    if names is not None and len(names) != len(reports):
        raise InputError(f"there must be a name for each of the {len(reports)} reports. Received: {len(names)}")
    if len(reports) == 1:
        return reports[0]
    unique: list[str] = []
    for name in names or [report.name for report in reports]:
        numbered, number = name, 2
        while numbered in unique:
            numbered, number = f"{name} #{number}", number + 1
        unique.append(numbered)
    pairs = list(zip(unique, reports, strict=True))
    first = reports[0].environment
    same_environment = all(report.environment == first for report in reports)
    return Report(
        recipe={"name": " + ".join(unique), "runs": {name: report.recipe for name, report in pairs}},
        environment=first if same_environment else {name: report.environment for name, report in pairs},
        violations=tuple(f"{name}: {violation}" for name, report in pairs for violation in report.violations),
        rows=tuple(
            dataclasses.replace(row, run=f"{name} / {row.run}" if row.run else name)
            for name, report in pairs
            for row in report.rows
        ),
        notes=tuple(dict.fromkeys(note for _, report in pairs for note in report.notes)),
        warnings=tuple(f"{name}: {warning}" for name, report in pairs for warning in report.warnings),
    )


def with_measurements(report: Report, measurements: Sequence[Measurement]) -> Report:
    """Add each measurement's latencies to the rows of the same file, and a note about its other results.

    A latency replaces one with the same host, runtime and threads. If the host already has latencies of another
    runtime, the runtime is added to the host's name. Limits are not checked again: they belong to the machine that ran
    the recipe.

    Raises:
        InputError: no row has the file that was measured.
    """
    rows, notes, devices = list(report.rows), list(report.notes), {}
    for measurement in measurements:
        places = [place for place, row in enumerate(rows) if row.sha256 == measurement.sha256]
        if not places:
            raise InputError(
                "a measurement must be of a file that the report contains; measure the report's file, or run the "
                f"recipe again. Received: {measurement.file}, SHA-256 {measurement.sha256[:12]}..."
            )
        for place in places:
            rows[place] = _with_latency(rows[place], measurement)
        devices[measurement.device["host"]] = {k: v for k, v in measurement.device.items() if k != "host"}
        notes.append(_note(rows[places[0]], measurement))
    environment = {**report.environment, **({"devices": devices} if devices else {})}
    return dataclasses.replace(report, rows=tuple(rows), notes=tuple(dict.fromkeys(notes)), environment=environment)


def _with_latency(row: Row, measurement: Measurement) -> Row:
    latency = list(row.latency)
    for entry in measurement.latency:
        if any(old.host == entry.host and old.runtime != entry.runtime for old in latency):
            entry = dataclasses.replace(entry, host=f"{entry.host}, {entry.runtime}")
        latency = [old for old in latency if (old.host, old.threads) != (entry.host, entry.threads)] + [entry]
    return dataclasses.replace(row, latency=tuple(latency))


def _note(row: Row, measurement: Measurement) -> str:
    parts = []
    if measurement.likeness is not None:
        parts.append(measurement.likeness.sentence())
    if measurement.accuracy is not None:
        parts.append(measurement.accuracy.sentence())
    if measurement.peak_memory_bytes is not None:
        parts.append(f"peak memory {formats.size(measurement.peak_memory_bytes)}")
    if measurement.temperature_c is not None:
        before, after = measurement.temperature_c
        parts.append(f"{before:.0f} °C before and {after:.0f} °C after")
    if measurement.clock_mhz is not None:
        before, after = measurement.clock_mhz
        parts.append(f"clock {before:.0f} MHz before and {after:.0f} MHz after")
    if measurement.device.get("throttled", "no") != "no":
        parts.append(f"throttled: {measurement.device['throttled']}")
    if measurement.error is not None:
        parts.append("the measurement ended early")
    return f"{row.name} on {measurement.device['host']}: {'; '.join(parts) or 'only latency was measured'}."
