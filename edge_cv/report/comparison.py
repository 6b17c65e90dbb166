"""One row against another, and one report out of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from converters.errors import InputError
from edge_cv.report.values import Report, Row


def reference_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The float model that `row` is compared with: of its own run, float32 before other floats, TFLite before ONNX."""
    floats = [r for r in rows if r.run == row.run and r.scheme.lower().startswith("float")]
    return min(
        floats, key=lambda r: (r.scheme != "float32", r.file.lower().endswith(".onnx"), floats.index(r)), default=None
    )


def main_rows(rows: Sequence[Row]) -> tuple[Row | None, Row | None]:
    """The reference and the quantized row that the verdict is about: int8 if there is one, else the smallest."""
    reference = reference_of(rows[0], rows) if rows else None
    others = [r for r in rows if r is not reference and r.run == rows[0].run]
    integers = [r for r in others if r.scheme == "int8"]
    sized = [r for r in others if r.size_bytes]
    chosen = integers or (sorted(sized, key=lambda r: r.size_bytes) if sized else others)
    return reference, (chosen[0] if chosen else None)


def size_ratio(row: Row, reference: Row | None) -> float | None:
    """How many times smaller than the reference the row's file is."""
    if reference is None or not row.size_bytes or not reference.size_bytes:
        return None
    return reference.size_bytes / row.size_bytes


def latency_on(row: Row, host: str, threads: int) -> dict[str, Any] | None:
    """The row's latency on that host with that many threads."""
    return next((e for e in row.latency if e["host"] == host and e["threads"] == threads), None)


def settings(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Every (host, threads) that some row was timed with, hosts in order of appearance, fewest threads first."""
    hosts = list(dict.fromkeys(entry["host"] for row in rows for entry in row.latency))
    pairs = {(entry["host"], entry["threads"]) for row in rows for entry in row.latency}
    return sorted(pairs, key=lambda pair: (hosts.index(pair[0]), pair[1]))


def speed_up(row: Row, reference: Row | None, host: str, threads: int) -> float | None:
    """The reference's p50 over the row's: more than 1 is faster. Only the same host and threads are compared."""
    ours = latency_on(row, host, threads)
    theirs = latency_on(reference, host, threads) if reference is not None else None
    return theirs["p50_ms"] / ours["p50_ms"] if ours and theirs and ours["p50_ms"] and theirs["p50_ms"] else None


def merge(reports: Sequence[Report], names: Sequence[str] | None = None) -> Report:
    """One report that compares several runs, its rows named by run.

    Args:
        reports: the runs, in the order in which they are to be shown.
        names: how to call them; the recipes' names by default. A name that comes twice gets a number.

    Returns:
        The comparison; of one report, that report itself. The photos stay with the runs: other runs may have other
        photos, and two pages of bars for each would tell nobody anything.

    Raises:
        InputError: when there is nothing to merge, or not as many names as reports.
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
        same, number = name, 2
        while same in unique:
            same, number = f"{name} #{number}", number + 1
        unique.append(same)
    pairs = list(zip(unique, reports, strict=True))
    environments = [report.environment for report in reports]
    shared = environments[0] if all(e == environments[0] for e in environments) else None
    return Report(
        recipe={"name": " + ".join(unique), "runs": {name: report.recipe for name, report in pairs}},
        environment=shared if shared is not None else {name: report.environment for name, report in pairs},
        violations=tuple(f"{name}: {violation}" for name, report in pairs for violation in report.violations),
        rows=tuple(
            dataclasses.replace(row, run=f"{name} / {row.run}" if row.run else name)
            for name, report in pairs
            for row in report.rows
        ),
        notes=tuple(dict.fromkeys(note for _, report in pairs for note in report.notes)),
    )
