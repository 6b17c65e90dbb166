"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.printable import printable
from edge_cv.cli.exits import say
from edge_cv.intervals import wilson_interval

if TYPE_CHECKING:
    from converters.devices.compiled import Compiled, Simulation
    from edge_cv.evaluation.conformance import ExecutorResult
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.pipeline.compress import Compressed
    from edge_cv.pipeline.compression_plan import PlannedStage
    from edge_cv.pipeline.convert import Converted
    from edge_cv.report import Report, Row


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=1))


def print_report(report: Report, as_json: bool) -> None:
    """Print a report."""
    from edge_cv.report.files import to_dict
    from edge_cv.report.terminal import show

    if as_json:
        print_json(to_dict(report))
    else:
        show(report)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows that have the same keys; without a terminal, the table is as wide as it needs, up to 200 columns."""
    if as_json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row.values()))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)


def conversion_row(file: Converted) -> dict[str, Any]:
    """The row of a converted file."""
    conversion = file.conversion
    return {
        "file": str(file.path),
        "scheme": conversion.scheme,
        "size_bytes": conversion.size_bytes,
        "agreement": conversion.parity.top1_agreement,
        "sqnr_db": round(conversion.parity.sqnr_db, 2),
        "images": conversion.parity.images,
    }


def print_compressed(
    compressed: Compressed, folder: Path, as_json: bool, planned: Sequence[PlannedStage] | None = None
) -> None:
    """Print the rows of a compressed model file; the warnings on stderr, and with the rows in JSON.

    Args:
        compressed: the rows and the warnings.
        folder: that holds the files.
        as_json: print JSON: the rows, or an object of `rows` and `plan` where there is a plan.
        planned: the plan, for a command that named no stage.
    """
    rows = [_compressed_row(row, folder) for row in compressed.rows]
    if as_json:
        rows = [row | {"warnings": list(compressed.warnings.get(row["model"], ()))} for row in rows]
    if as_json and planned is not None:
        stages = [{"option": s.option, "recommended": s.part is not None, "reason": s.reason} for s in planned]
        print_json({"rows": rows, "plan": stages})
    else:
        print_rows(rows, as_json)
        _print_plan(planned or ())
    for warning in itertools.chain.from_iterable(compressed.warnings.values()):
        say(f"edge-cv: warning: {warning}", error=True)


def _print_plan(planned: Sequence[PlannedStage]) -> None:
    for stage in planned:
        say(f"{'use  ' if stage.part is not None else 'leave'} {stage.option}: {stage.reason}")
    options = " ".join(stage.option for stage in planned if stage.part is not None)
    if planned:
        say(f"plan: {options or 'nothing to compress'}{' (--yes does this)' if options else ''}")


def _compressed_row(row: Row, folder: Path) -> dict[str, Any]:
    """The row of a file in a folder, converted after a stage of compression."""
    return {
        "model": row.scheme,
        "top1": row.top1,
        "top1_ci95": row.top1_ci95,
        "images": row.images,
        "agreement": row.agreement,
        "sparsity": row.total_sparsity and round(row.total_sparsity, 4),
        "macs": row.macs,
        "size_bytes": row.size_bytes,
        "gzip_bytes": row.gzip_bytes,
        "file": str(folder / row.file),
    }


def print_evaluation(report: Report, files: Mapping[str, Path], as_json: bool) -> None:
    """Print the scores of each file, and its accuracy by group and by severity of corruption if evaluated.

    Args:
        report: the report of `edge_cv.pipeline.evaluate.evaluate_files`.
        files: the files by the names of their rows.
        as_json: print JSON.
    """
    from edge_cv.report.files import to_dict

    rows: list[dict[str, Any]] = [
        {
            "file": str(files[row.scheme]),
            "images": row.images,
            "top1": row.top1,
            "top1_ci95": row.top1_ci95,
            "top5": row.top5,
            "agreement": row.agreement,
            "sqnr_db": row.sqnr_db,
            "balanced_accuracy": row.classes and row.classes.balanced_accuracy,
            "ece": row.confidence and row.confidence.ece,
        }
        | ({"mAP": row.multi_label.mean_average_precision} if row.multi_label else {})
        for row in report.rows
    ]
    if not as_json:
        print_rows(rows, as_json)
        _print_groups(report.rows)
        return
    for row, fields in zip(rows, to_dict(report)["rows"], strict=True):
        row.update((name, fields[name]) for name in ("groups", "robustness", "multi_label") if fields[name])
    print_json(rows)


def print_measurement(measured: Measurement, as_json: bool) -> None:
    """Print the latency for each thread count, and how the outputs compare with this machine's."""
    match = measured.likeness
    rows = [
        {
            "threads": latency.threads,
            "p50_ms": _milliseconds(latency.p50_ms),
            "p90_ms": _milliseconds(latency.p90_ms),
            "p99_ms": _milliseconds(latency.p99_ms),
            "runs": latency.runs,
            "peak_memory_bytes": measured.peak_memory_bytes,
            "host": latency.host,
            "runtime": latency.runtime,
        }
        | ({"temperature_c": measured.temperature_c} if measured.temperature_c else {})
        | ({"clock_mhz": measured.clock_mhz} if measured.clock_mhz else {})
        | ({"golden": dataclasses.asdict(match)} if as_json and match else {})
        for latency in measured.latency
    ]
    print_rows(rows, as_json)
    if match is not None and not as_json:
        print()
        say(match.sentence())


def _print_groups(rows: Sequence[Row]) -> None:
    """Print the accuracy of each group and at each severity of corruption, if evaluated."""
    from edge_cv.report.sections.groups import gaps

    groups = [
        {"by": column.column, "group": group.name, "images": group.images}
        | {row.name: row.groups[i].groups[j].accuracy for row in rows}
        | {f"{row.name} ci95": row.groups[i].groups[j].accuracy_ci95 for row in rows}
        for i, column in enumerate(rows[0].groups)
        for j, group in enumerate(column.groups)
    ]
    severities = [
        {"name": row.name, "images": row.robustness.images, "clean": row.robustness.clean}
        | {f"severity {n}": row.robustness.at_severity(n) for n in range(1, 6)}
        | {"corruption_error": row.robustness.mean_corruption_error}
        for row in rows
        if row.robustness
    ]
    for table in (groups, severities):
        if table:
            print()
            print_rows(table, False)
    sentences = [gaps(row.name, grouping) for row in rows for grouping in row.groups]
    if sentences:
        print("", *map(printable, sentences), sep="\n")


def _milliseconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return "–".join(_text(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else "\n".join(map(printable, str(value).splitlines()))


def compiled_row(compiled: Compiled) -> dict[str, Any]:
    """The row of a file that was compiled for an NPU."""
    return {
        "file": compiled.file,
        "NPU operators": compiled.npu_operators,
        "CPU operators": len(compiled.cpu_operators),
        "cycles": compiled.cycles,
        "estimated ms": _estimated_ms(compiled),
        "sram_bytes": compiled.sram_bytes,
        "dram_bytes": compiled.dram_bytes,
        "flash_bytes": compiled.flash_bytes,
        **({} if compiled.simulation is None else _simulated(compiled.simulation)),
    }


def _estimated_ms(compiled: Compiled) -> str | None:
    if compiled.milliseconds is None:
        return None
    return f"{compiled.milliseconds:.2f} at {compiled.clock_mhz:.0f} MHz"


def _simulated(simulation: Simulation) -> dict[str, Any]:
    """The columns of the vendor's simulator."""
    agreeing = round(simulation.top1_agreement * simulation.images)
    low, high = wilson_interval(agreeing, simulation.images)
    return {
        "simulated agreement": f"{agreeing} of {simulation.images} ({100 * low:.0f}–{100 * high:.0f} %)",
        "simulated SQNR, dB": round(simulation.sqnr_db, 1),
    }


def conformance_row(result: ExecutorResult, images: int) -> dict[str, Any]:
    """The row of one runtime that ran a file."""
    low, high = result.flipped_ci95 or (None, None)
    interval = "" if low is None or high is None else f" ({100 * low:.0f}–{100 * high:.0f} %)"
    return {
        "runtime": f"{result.executor} {result.version}",
        "largest difference, steps": None if result.max_steps is None else f"{result.max_steps:.3g}",
        "outputs that differ": None if result.differing is None else f"{result.differing:.1%}",
        "flipped top-1": None if result.flipped is None else f"{result.flipped} of {images}{interval}",
        "first operator": " ".join(filter(None, (result.operator, result.layer))) or None,
        "ms per image": _milliseconds(result.ms_per_image),
    }
