"""The Pareto fronts of several runs: for each machine, and for the file size, a plot and a column of a table."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.report import formats
from edge_cv.report.drawing import MUTED, PAPER, colour_of, locator, positive_scale, svg
from edge_cv.report.labels import label_points
from edge_cv.report.pareto import Front, column, fronts
from edge_cv.report.plots import Point, marker_of, numbered, point_label
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

MAX_PLOTS = 10  # of the last machines and of the size; the table has all

NOTE = (
    "A model is on the front if no other model is at least as accurate at the same or a lower cost, and better in one "
    "of the two. The front does not consider chance: where the 95 % intervals of two models overlap, they may be "
    "equally accurate. Latencies are compared within one machine only."
)


def section(report: Report) -> Section | None:
    """The fronts as sentences, as one table and as plots."""
    rows, found = report.rows, fronts(report.rows)
    if not found:
        return None
    sentences = [_sentence(rows, front) for front in found]
    images = sorted({row.images for row in rows if row.top1 is not None and row.images})
    if len({row.images for row in rows if row.top1 is not None}) > 1:
        counts = formats.joined([f"{number:,}" for number in images])
        sentences.append(
            f"The runs were measured on different numbers of photos ({counts}): compare their accuracies with care."
        )
    return Section(
        "Pareto front",
        _finding(rows, found),
        sentences=tuple(sentences),
        tables=(_table(rows, found),),
        figures=tuple(_figure(rows, front, number) for number, front in enumerate(found[-MAX_PLOTS:], 1)),
        notes=(NOTE,),
    )


def _finding(rows: Sequence[Row], found: Sequence[Front]) -> str:
    """The number of models that are on a front."""
    places = [n for n, row in enumerate(rows) if row.top1 is not None and any(f.costs[n] is not None for f in found)]
    number = sum(any(front.on[place] for front in found) for place in places)
    if number == len(places):
        return f"All {number} models are on a front: each is the most accurate one at its cost."
    return (
        f"{number} of {len(places)} models {'is' if number == 1 else 'are'} on a front; for each of the others, one of "
        "them is at least as accurate at no higher cost."
    )


def _table(rows: Sequence[Row], found: Sequence[Front]) -> Table:
    costs = [_title(front) for front in found]
    return Table(
        "",
        (("Model", ""), ("Top-1", "95 % interval"), *costs, ("On the front", "of top-1 against")),
        tuple(
            (
                row.name,
                f"{formats.percent(row.top1, row.images)}\n{formats.interval(row.top1_ci95, row.images)}".strip(),
                *(_cost(front, front.costs[place]) for front in found),
                on,
            )
            for place, (row, on) in enumerate(zip(rows, column(rows), strict=True))
            if any(front.on[place] for front in found)
        ),
    )


def _title(front: Front) -> tuple[str, str]:
    if front.host is None:
        return "Size", "file"
    return (
        ("Estimate", front.host)
        if front.threads is None
        else ("p50", f"{formats.threads(front.threads)}, {front.host}")
    )


def _cost(front: Front, cost: float | None) -> str:
    return formats.size(cost) if front.host is None else formats.milliseconds(cost)


def _sentence(rows: Sequence[Row], front: Front) -> str:
    listed = [
        f"{row.name} ({formats.percent(row.top1, row.images)}, {_cost(front, cost)})"
        for row, cost in front.members(rows)
    ]
    return f"Top-1 against {front.cost}: {formats.joined(listed)}."


def _figure(rows: Sequence[Row], front: Front, number: int) -> Figure:
    title = "Top-1 against size" if front.host is None else f"Top-1 against latency, {front.host}"
    points = tuple(
        (
            row.name,
            f"{formats.percent(row.top1, row.images)}, {_cost(front, cost)}" + (", on the front" if on else ""),
        )
        for row, cost, on in zip(rows, front.costs, front.on, strict=True)
        if cost is not None and row.top1 is not None
    )
    return Figure(
        title,
        "Up and to the left is better; the line is the front.",
        f"{title}. {'; '.join(': '.join(point) for point in points)}.",
        functools.partial(plot, rows, front, number),
        points if numbered(rows) else (),
    )


def plot(rows: Sequence[Row], front: Front, number: int) -> str:
    """Top-1 against the cost, the front as steps, as SVG; `number` makes the ids of the drawing unique."""
    scale = 1e6 if front.host is None else 1.0
    points = [
        (Point(cost / scale, 100 * row.top1, None, row, point_label(rows, place)), on)
        for place, (row, cost, on) in enumerate(zip(rows, front.costs, front.on, strict=True))
        if cost is not None and row.top1 is not None
    ]

    def draw(figure: Any, axes: Any) -> None:
        members = sorted((p.x, p.y) for p, on in points if on)
        axes.plot(*zip(*members, strict=True), drawstyle="steps-post", color=MUTED, linewidth=1.4, zorder=1)
        for p, on in points:
            colour = colour_of(p.row)
            face = {} if on else {"markerfacecolor": PAPER, "markeredgecolor": colour}
            axes.plot([p.x], [p.y], marker=marker_of(p.row), markersize=8 if on else 6, color=colour, zorder=3, **face)
        positive_scale(axes, [p.x for p, _ in points])
        low, high = min(p.y for p, _ in points), max(p.y for p, _ in points)
        room = max(high - low, 2.0) * 0.15
        axes.set_ylim(max(-2.0, low - room), high + room)
        axes.yaxis.set_major_locator(locator(integer=high - low > 4))
        axes.grid(axis="y")
        kind = "estimated latency" if front.threads is None else f"p50 latency ({formats.threads(front.threads)})"
        axes.set_xlabel("file size, MB" if front.host is None else f"{kind}, ms")
        axes.set_ylabel("top-1 accuracy, %")
        label_points(figure, axes, [(p.x, p.y, p.label, colour_of(p.row)) for p, _ in points], [None] * len(points))

    return svg(f"pareto-{number}", draw)
