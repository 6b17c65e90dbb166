"""The Pareto front of several runs: what no other artifact beats in accuracy and in latency or size at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_cv.report import plots, sentences
from edge_cv.report.comparison import latency_on, settings
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

SIZE = "size"


@dataclass(frozen=True)
class Front:
    """The front of one cost.

    Attributes:
        host: the machine that measured the latency; None where the cost is the file's size.
        threads: of the latency; None with the size.
        costs: of each row, in ms or bytes; None where it was not measured.
        on: whether each row is on the front.
    """

    host: str | None
    threads: int | None
    costs: tuple[float | None, ...]
    on: tuple[bool, ...]

    @property
    def cost(self) -> str:
        """What it is called: `size`, or `latency` with the machine and the threads."""
        return SIZE if self.host is None else f"latency on {self.host} with {sentences.threads(self.threads)}"

    def names(self, rows: Sequence[Row]) -> list[str]:
        """The rows on the front, cheapest first."""
        return [row.name for row, _ in self.members(rows)]

    def members(self, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        """The rows on the front with their costs, cheapest first."""
        chosen = [(row, cost) for row, cost, on in zip(rows, self.costs, self.on, strict=True) if on]
        return sorted(chosen, key=lambda pair: pair[1])


def front(points: Sequence[tuple[float, float] | None]) -> tuple[bool, ...]:
    """Which (cost, value) no other beats: none has both a cost as low and a value as high, and one of them better.

    Args:
        points: a low cost and a high value are wanted; None is a point that is not known, and on no front.

    Returns:
        A truth for each point. Of equal points on the front all are on it.
    """
    found = [False] * len(points)
    known = sorted((place for place, point in enumerate(points) if point is not None), key=lambda p: points[p][0])
    best = float("-inf")  # value of the cheaper ones
    at = 0
    while at < len(known):
        cost = points[known[at]][0]
        equal = [place for place in known[at:] if points[place][0] == cost]
        highest = max(points[place][1] for place in equal)
        if highest > best:
            best = highest
            for place in equal:
                found[place] = points[place][1] == highest
        at += len(equal)
    return tuple(found)


def fronts(rows: Sequence[Row]) -> tuple[Front, ...]:
    """The front of top-1 against latency for each machine, at the fewest threads it was measured with, and of size.

    Empty where the rows are not of several runs, or have no labels: agreement with one's own float model says nothing
    about another's.
    """
    if len({row.run for row in rows}) < 2 or all(row.top1 is None for row in rows):
        return ()
    asked: list[tuple[str | None, int | None]] = []
    for host, threads in settings(rows):
        if host not in [known for known, _ in asked]:
            asked.append((host, threads))
    found = []
    for host, threads in (*asked, (None, None)):
        if host is None:
            costs = [row.size_bytes for row in rows]
        else:
            entries = [latency_on(row, host, threads) for row in rows]
            costs = [entry["p50_ms"] if entry else None for entry in entries]
        points = [
            None if cost is None or row.top1 is None else (cost, row.top1)
            for row, cost in zip(rows, costs, strict=True)
        ]
        if any(points):
            found.append(Front(host, threads, tuple(costs), front(points)))
    return tuple(found)


def column(rows: Sequence[Row]) -> list[str]:
    """For each row which fronts it is on, for a table; all empty where there are none."""
    found = fronts(rows)
    hosts = [one.host for one in found if one.host is not None]
    names = [SIZE if one.host is None else "latency" if len(hosts) == 1 else f"latency on {one.host}" for one in found]
    return [
        ", ".join(name for name, one in zip(names, found, strict=True) if one.on[place]) or ("–" if found else "")
        for place in range(len(rows))
    ]


def pareto(report: Report) -> Section | None:
    """The section of the page: for each machine, and for the size, the front as a plot and as a table."""
    rows, found = report.rows, fronts(report.rows)
    if not found:
        return None
    images = {row.images for row in rows if row.top1 is not None}
    counted = (
        ()
        if len(images) == 1
        else (
            "The runs were measured on different numbers of photos "
            f"({sentences.joined([f'{n:,}' for n in sorted(n for n in images if n)])}): compare them with care.",
        )
    )
    return Section(
        "The Pareto front",
        sentences=(*(_told(rows, one) for one in found), *counted),
        tables=(
            Table(
                "",
                (("model", ""), ("top-1", "95 % interval"), *(_title(one) for one in found), ("front of", "")),
                tuple(
                    (
                        row.name,
                        "\n".join(
                            filter(
                                None,
                                (
                                    sentences.percent(row.top1, row.images),
                                    sentences.interval(row.top1_ci95, row.images) if row.top1_ci95 else "",
                                ),
                            )
                        ),
                        *(_cost(one, one.costs[place]) for one in found),
                        on,
                    )
                    for place, (row, on) in enumerate(zip(rows, column(rows), strict=True))
                    if any(one.on[place] for one in found)
                ),
            ),
        ),
        figures=tuple(_figure(rows, one, number) for number, one in enumerate(found, 1)),
        notes=(
            "On the front is what no other artifact beats: none has a top-1 as high at a cost as low, and one of both "
            "better. Whether a difference is more than chance the intervals tell, not the front. Latencies are "
            "compared on one machine only, the one that measured them.",
        ),
    )


def _title(one: Front) -> tuple[str, str]:
    return ("size", "file") if one.host is None else ("p50", f"{sentences.threads(one.threads)}, {one.host}")


def _cost(one: Front, cost: float | None) -> str:
    return sentences.size(cost) if one.host is None else sentences.milliseconds(cost)


def _told(rows: Sequence[Row], one: Front) -> str:
    listed = [
        f"{row.name} ({sentences.percent(row.top1, row.images)}, {_cost(one, cost)})" for row, cost in one.members(rows)
    ]
    return f"Top-1 against {one.cost}: {sentences.joined(listed)}."


def _figure(rows: Sequence[Row], one: Front, number: int) -> Figure:
    title = "Top-1 against size" if one.host is None else f"Top-1 against latency, {one.host}"
    svg = plots.pareto(rows, one.costs, one.on, number=number, threads=one.threads)
    points = tuple(
        (
            row.name,
            f"{sentences.percent(row.top1, row.images)}, {_cost(one, cost)}" + (", on the front" if on else ""),
        )
        for row, cost, on in zip(rows, one.costs, one.on, strict=True)
        if cost is not None and row.top1 is not None
    )
    said = "; ".join(": ".join(point) for point in points)
    caption = "Up and to the left is better; the line is the front."
    return Figure(title, caption, f"{title}. {said}.", svg, points if plots.numbered(rows) else ())
