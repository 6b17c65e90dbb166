"""The figures as a table in the terminal, and in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from edge_cv.report import pareto, sentences
from edge_cv.report.comparison import latency_on, reference_of, settings, size_ratio, speed_up
from edge_cv.report.values import Report, Row

if TYPE_CHECKING:
    from rich.table import Table

PIPE_COLUMNS = 160
"""Width of the table where there is no terminal: all columns fit beside each other."""


def table(report: Report, *, transposed: bool = False) -> Table:
    """A row for each artifact and a column for each figure, or the other way round when `transposed`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [(title, values) for title, values in _columns(report.rows) if any(v not in ("", "–") for v in values)]
    names = [printable(row.name) for row in report.rows]
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


def show(report: Report, file: IO[str] | None = None) -> None:
    """Print the verdict, broken limits and the table to `file`, stdout by default, without cutting any figure."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PIPE_COLUMNS)
    for violation in report.violations:
        console.print(Text(f"Limit broken: {printable(violation)}", style="bold red"))
    console.print(Text(printable(report.headline), style="bold"))
    console.print()
    wide = table(report)
    for form in (wide, table(report, transposed=True)):
        # what the table needs to keep every cell in one line, its titles too
        if console.measure(form, options=console.options.update(width=10_000)).maximum <= console.width:
            console.print(form)
            break
    else:
        for place, row in enumerate(report.rows):
            console.print(Text(printable(row.name), style="bold"))
            for title, values in _columns(report.rows):
                if values[place] not in ("", "–"):
                    console.print(Text(f"  {title}: {values[place]}"))
    rows = report.rows
    for sentence in sentences.answers(rows) + sentences.slower(rows) + sentences.limits_of(rows):
        console.print()
        console.print(Text(printable(sentence)))


def printable(text: str) -> str:
    """`text` without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _columns(rows: tuple[Row, ...]) -> Iterator[tuple[str, list[str]]]:
    references = [reference_of(row, rows) for row in rows]
    yield "size", [sentences.size(row.size_bytes) for row in rows]
    smaller = [None if row is ref else size_ratio(row, ref) for row, ref in zip(rows, references, strict=True)]
    yield "smaller", ["–" if times is None else sentences.ratio(times) for times in smaller]
    yield "top-1", [_share(row.top1, row.top1_ci95, row.images) for row in rows]
    yield (
        "agreement",
        [
            "–" if row is ref else _share(row.agreement, row.agreement_ci95, row.images)
            for row, ref in zip(rows, references, strict=True)
        ],
    )
    yield (
        "SQNR",
        ["–" if row is ref else sentences.decibels(row.sqnr_db) for row, ref in zip(rows, references, strict=True)],
    )
    pairs = settings(rows)
    several = len({host for host, _ in pairs}) > 1
    for host, number in pairs:
        where = f"{sentences.threads(number)}" + (f", {printable(host)}" if several else "")
        entries = [latency_on(row, host, number) for row in rows]
        yield f"p50 ({where})", [sentences.milliseconds(entry["p50_ms"] if entry else None) for entry in entries]
        faster = [
            None if row is ref else speed_up(row, ref, host, number) for row, ref in zip(rows, references, strict=True)
        ]
        yield "speed-up", ["–" if times is None else sentences.ratio(times) for times in faster]
    yield "memory", [sentences.size(row.peak_memory_bytes) for row in rows]
    yield "arena", [sentences.size(row.arena_bytes) for row in rows]
    yield "Pareto front", list(map(printable, pareto.column(rows)))


def _share(share: float | None, ends: tuple[float, float] | None, images: int | None) -> str:
    if share is None:
        return "–"
    return sentences.percent(share, images) + (f" ({sentences.interval(ends, images)})" if ends else "")
