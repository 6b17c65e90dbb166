"""The columns of the page's main table: one row for each file, one column for each figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_cv.report import formats, pareto, sentences
from edge_cv.report.comparison import (
    FLOAT_SCHEMES,
    estimate_sources,
    estimated_ms,
    latency_on,
    reference_of,
    settings,
    size_ratio,
    speed_up,
)
from edge_cv.report.values import Row


@dataclass(frozen=True)
class Cell:
    """One figure of the table: its text, smaller lines below it, and whether it is the best of its column."""

    text: str
    under: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """One column of the table: its title, the unit or condition below it, and a cell for each row."""

    title: str
    under: str
    cells: tuple[Cell, ...]


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns that at least one row has a figure for."""
    found = [*_files(rows), *_accuracy(rows), *_latency(rows), *_estimates(rows), *_memory(rows), _fronts(rows)]
    return [column for column in found if column is not None]


def _column(
    title: str,
    under: str,
    values: Sequence[float | None],
    text: Callable[[int], str],
    best: Callable[[Sequence[float]], float | None] | None = None,
    lines: Callable[[int], Sequence[str]] = lambda place: (),
) -> Column | None:
    """A column of `values`; None if all are None.

    Args:
        title, under: see `Column`.
        values: the figure of each row.
        text: the text of the figure in the row at that place.
        best: chooses the best of the known values, or None.
        lines: the smaller lines below the figure; empty ones are left out.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    chosen = best(known) if best is not None and len(set(known)) > 1 else None
    cells = [
        Cell(formats.MISSING)
        if value is None
        else Cell(text(place), tuple(line for line in lines(place) if line), value == chosen)
        for place, value in enumerate(values)
    ]
    return Column(title, under, tuple(cells))


def _sizes(title: str, under: str, values: Sequence[int | None], *, best: bool = True, **more: Any) -> Column | None:
    return _column(title, under, values, lambda n: formats.size(values[n]), min if best else None, **more)


def _files(rows: Sequence[Row]) -> list[Column | None]:
    references = [reference_of(row, rows) for row in rows]

    def smaller(place: int) -> list[str]:
        row, reference = rows[place], references[place]
        return [_compared(None if row is reference else size_ratio(row, reference), "smaller", "larger", "as large")]

    parameters, macs = [row.parameters for row in rows], [row.macs for row in rows]
    has_parameters = any(number is not None for number in parameters)
    return [
        _sizes("Size", "file", [row.size_bytes for row in rows], lines=smaller),
        _sizes("Gzip", "file", [row.gzip_bytes for row in rows]),
        _column(
            "Parameters",
            "and MACs",
            parameters,
            lambda n: formats.count(parameters[n]),
            lines=lambda n: [] if macs[n] is None else [f"{formats.count(macs[n])} MACs"],
        ),
        None if has_parameters else _column("MACs", "per inference", macs, lambda n: formats.count(macs[n])),
    ]


def _accuracy(rows: Sequence[Row]) -> list[Column | None]:
    references = [reference_of(row, rows) for row in rows]
    images = min((row.images for row in rows if row.images), default=None)

    def best_share(values: Sequence[float]) -> float | None:
        return max(values) if sentences.decidable(values, images) else None

    def best_quantized(values: Sequence[float]) -> float:
        """The best of the integer schemes; a float16 copy is always closer to float32."""
        quantized = [r.sqnr_db for r in rows if r.output.scheme not in FLOAT_SCHEMES and r.sqnr_db is not None]
        return max(quantized, default=math.inf)

    def shares(title: str, under: str, values: Sequence[float | None], intervals: Sequence[Any]) -> Column | None:
        return _column(
            title,
            under,
            values,
            lambda n: formats.percent(values[n], rows[n].images),
            best_share,
            lambda n: [formats.interval(intervals[n], rows[n].images)],
        )

    def of_others(values: Sequence[float | None]) -> list[float | None]:
        return [
            None if row is reference else value for row, reference, value in zip(rows, references, values, strict=True)
        ]

    sqnr = of_others([row.sqnr_db for row in rows])
    agreement = of_others([row.agreement for row in rows])
    return [
        shares("Top-1", "95 % interval", [row.top1 for row in rows], [row.top1_ci95 for row in rows]),
        shares("Top-5", "", [row.top5 for row in rows], [None] * len(rows)),
        shares("Agreement", "with float, 95 %", agreement, [row.agreement_ci95 for row in rows]),
        _column("SQNR", "of the logits", sqnr, lambda n: formats.decibels(sqnr[n]), best_quantized),
    ]


def _latency(rows: Sequence[Row]) -> list[Column | None]:
    pairs = settings(rows)
    several = len({host for host, _ in pairs}) > 1
    return [
        _p50(rows, host, threads, formats.threads(threads) + (f", {host}" if several else ""))
        for host, threads in pairs
    ]


def _estimates(rows: Sequence[Row]) -> list[Column | None]:
    """The latencies that compilers estimate, and by whom, and what the compiled files compute in a simulator."""
    simulated = [None if row.estimate is None else row.estimate.simulation for row in rows]
    agreement = [None if one is None else one.top1_agreement for one in simulated]
    sqnr = [None if one is None else one.sqnr_db for one in simulated]
    images = [None if one is None else one.images for one in simulated]
    return [
        *(_estimate(rows, source) for source in estimate_sources(rows)),
        _column("Simulated", "agreement", agreement, lambda n: formats.percent(agreement[n], images[n])),
        _column("Simulated", "SQNR", sqnr, lambda n: formats.decibels(sqnr[n])),
    ]


def _estimate(rows: Sequence[Row], source: str) -> Column | None:
    times = [estimated_ms(row, source) for row in rows]
    return _column("Estimate", source, times, lambda n: formats.milliseconds(times[n]), min)


def _p50(rows: Sequence[Row], host: str, threads: int, under: str) -> Column | None:
    entries = [latency_on(row, host, threads) for row in rows]
    values = [entry.p50_ms if entry else None for entry in entries]

    def lines(place: int) -> list[str]:
        row, entry, reference = rows[place], entries[place], reference_of(rows[place], rows)
        times = None if row is reference else speed_up(row, reference, host, threads)
        p90 = entry.p90_ms if entry else None
        return [
            "" if p90 is None else f"p90 {formats.milliseconds(p90)}",
            _compared(times, "faster", "slower", "as fast"),
        ]

    return _column("p50", under, values, lambda n: formats.milliseconds(values[n]), min, lines)


def _memory(rows: Sequence[Row]) -> list[Column | None]:
    return [
        _sizes("Peak memory", "process", [row.peak_memory_bytes for row in rows]),
        _sizes("Arena", "on the device", [row.arena_bytes for row in rows], best=False),
    ]


def _fronts(rows: Sequence[Row]) -> Column | None:
    """The Pareto fronts that each row is on, if there are several runs."""
    cells = pareto.column(rows)
    return Column("Pareto front", "top-1 against", tuple(map(Cell, cells))) if any(cells) else None


def _compared(times: float | None, more: str, less: str, equal: str) -> str:
    """`2.1× faster`, `2.7× slower`, or `as fast` if repeated measurements differ as much; nothing for None."""
    if times is None:
        return ""
    if 1 / sentences.SAME < times < sentences.SAME:
        return equal
    return f"{formats.ratio(times)} {more}" if times > 1 else f"{formats.ratio(1 / times)} {less}"
