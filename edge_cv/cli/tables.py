"""Results on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def print_evaluation_details(rows: Sequence[Row]) -> None:
    """Print the accuracy of each group and at each severity of corruption, if they were evaluated."""
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
        print("", *sentences, sep="\n")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return "–".join(_text(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
