"""The report in a terminal or a pipe: the verdict, broken limits, and the figures as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from converters.printable import printable
from edge_cv.report import formats, pareto, sentences
from edge_cv.report.comparison import (
    estimate_sources,
    estimated_ms,
    latency_on,
    reference_of,
    settings,
    size_ratio,
    speed_up,
)
from edge_cv.report.formats import MISSING
from edge_cv.report.values import Report, Row

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_COLUMNS = 160
"""Width of the table where the output is no terminal: all columns fit side by side."""


def show(report: Report, file: IO[str] | None = None) -> None:
    """Print the verdict, broken limits and the table to `file`, by default stdout, without truncating any figure."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PIPE_COLUMNS)
    rows = report.rows
    for violation in report.violations:
        console.print(Text(f"Limit broken: {printable(violation)}", style="bold red"))
    for warning in report.warnings:
        console.print(Text(f"Warning: {printable(warning)}", style="bold yellow"))
    console.print(Text(printable(sentences.headline(rows)), style="bold"))
    console.print()
    _print_figures(rows, console)
    details = sentences.accuracy_details(rows) + sentences.slower(rows) + sentences.sample_size(rows)
    for sentence in sentences.beside_probe(report.probe) + details:
        console.print()
        console.print(Text(printable(sentence)))


def table(rows: tuple[Row, ...], *, transposed: bool = False) -> Table:
    """A row for each file and a column for each figure, or the reverse if `transposed`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [(title, values) for title, values in _columns(rows) if any(v not in ("", MISSING) for v in values)]
    names = [printable(row.name) for row in rows]
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    if transposed:
        result.add_column("")
        for name in names:
            result.add_column(Text(name), justify="right", overflow="fold")
        for title, values in columns:
            result.add_row(Text(title), *map(Text, values))
    else:
        result.add_column("model")
        for title, _ in columns:
            result.add_column(title, justify="right", no_wrap=False)
        for place, name in enumerate(names):
            result.add_row(Text(name), *(Text(values[place]) for _, values in columns))
    return result


def _print_figures(rows: tuple[Row, ...], console: Console) -> None:
    """Print the table, transposed or as lists where it does not fit the width of the terminal."""
    from rich.text import Text

    for form in (table(rows), table(rows, transposed=True)):
        # the width that keeps every cell, titles included, in one line
        if console.measure(form, options=console.options.update(width=10_000)).maximum <= console.width:
            console.print(form)
            return
    for place, row in enumerate(rows):
        console.print(Text(printable(row.name), style="bold"))
        for title, values in _columns(rows):
            if values[place] not in ("", MISSING):
                console.print(Text(f"  {title}: {values[place]}"))


def _columns(rows: tuple[Row, ...]) -> Iterator[tuple[str, list[str]]]:
    references = [reference_of(row, rows) for row in rows]
    pairs = list(zip(rows, references, strict=True))
    yield "size", [formats.size(row.size_bytes) for row in rows]
    yield "smaller", [_ratio(None if row is ref else size_ratio(row, ref)) for row, ref in pairs]
    yield "top-1", [_share(row.top1, row.top1_ci95, row.images) for row in rows]
    yield (
        "agreement",
        [MISSING if row is ref else _share(row.agreement, row.agreement_ci95, row.images) for row, ref in pairs],
    )
    yield "SQNR", [MISSING if row is ref else formats.decibels(row.sqnr_db) for row, ref in pairs]
    timed = settings(rows)
    several = len({host for host, _ in timed}) > 1
    for host, threads in timed:
        where = formats.threads(threads) + (f", {printable(host)}" if several else "")
        entries = [latency_on(row, host, threads) for row in rows]
        yield f"p50 ({where})", [formats.milliseconds(entry.p50_ms if entry else None) for entry in entries]
        yield "speed-up", [_ratio(None if row is ref else speed_up(row, ref, host, threads)) for row, ref in pairs]
    for source in estimate_sources(rows):
        times = [estimated_ms(row, source) for row in rows]
        yield f"on {printable(source)}", [formats.milliseconds(time) for time in times]
    simulated = [None if row.estimate is None else row.estimate.simulation for row in rows]
    if any(simulated):
        yield (
            "simulated agreement",
            [MISSING if one is None else formats.percent(one.top1_agreement, one.images) for one in simulated],
        )
        yield "simulated SQNR", [MISSING if one is None else formats.decibels(one.sqnr_db) for one in simulated]
    yield "memory", [formats.size(row.peak_memory_bytes) for row in rows]
    yield "arena", [formats.size(row.arena_bytes) for row in rows]
    yield "Pareto front", list(map(printable, pareto.column(rows)))


def _ratio(times: float | None) -> str:
    return MISSING if times is None else formats.ratio(times)


def _share(share: float | None, ends: tuple[float, float] | None, images: int | None) -> str:
    if share is None:
        return MISSING
    return formats.percent(share, images) + (f" ({formats.interval(ends, images)})" if ends else "")
