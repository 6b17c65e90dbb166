"""The Pareto front of several runs: the models that no other model beats in accuracy and cost at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_cv.report import formats
from edge_cv.report.comparison import estimate_sources, estimated_ms, latency_on, settings
from edge_cv.report.values import Row

SIZE = "size"


@dataclass(frozen=True)
class Front:
    """The front of top-1 against one cost.

    Attributes:
        host: the machine that measured the latency, or the NPU and who estimates its latency; None where the cost is
            the file's size.
        threads: number of threads of the latency; None for an estimate and for the size.
        costs: of each row, in ms or bytes; None where it was not measured.
        on: whether each row is on the front.
    """

    host: str | None
    threads: int | None
    costs: tuple[float | None, ...]
    on: tuple[bool, ...]

    @property
    def cost(self) -> str:
        """The name of the cost: `size`, or `latency` with the machine and the threads, or with who estimates it."""
        if self.host is None:
            return SIZE
        if self.threads is None:
            return f"latency on {self.host}"
        return f"latency on {self.host} with {formats.threads(self.threads)}"

    def names(self, rows: Sequence[Row]) -> list[str]:
        """The names of the rows on the front, cheapest first."""
        return [row.name for row, _ in self.members(rows)]

    def members(self, rows: Sequence[Row]) -> list[tuple[Row, float]]:
        """The rows on the front with their costs, cheapest first."""
        pairs = zip(rows, self.costs, self.on, strict=True)
        return sorted([(row, cost) for row, cost, on in pairs if on and cost is not None], key=lambda pair: pair[1])


def front(points: Sequence[tuple[float, float] | None]) -> tuple[bool, ...]:
    """Which points (cost, value) are not dominated: no other has a cost as low and a value as high, one of them better.

    Args:
        points: costs, of which low ones are wanted, with values, of which high ones are wanted; None is an unknown
            point, which is on no front.

    Returns:
        A bool for each point. Equal points are on the front together.
    """
    on = [False] * len(points)
    known = sorted((point[0], -point[1], place) for place, point in enumerate(points) if point is not None)
    highest, cost_of_highest = float("-inf"), float("nan")
    for cost, negated, place in known:
        value = -negated
        if value > highest:
            highest, cost_of_highest = value, cost
        on[place] = value == highest and cost == cost_of_highest
    return tuple(on)


def fronts(rows: Sequence[Row]) -> tuple[Front, ...]:
    """The fronts of top-1 against latency, for each machine at its fewest threads, and of top-1 against size.

    An estimate for an NPU counts as a machine of its own. Empty for rows of a single run, and without labels: agreement
    with one float model cannot be compared with agreement with another.
    """
    if len({row.run for row in rows}) < 2 or all(row.top1 is None for row in rows):
        return ()
    fewest: dict[str, int] = {}
    for host, threads in settings(rows):
        fewest.setdefault(host, threads)
    costs: list[tuple[str | None, int | None, list[float | None]]] = [
        (host, threads, [entry.p50_ms if (entry := latency_on(row, host, threads)) else None for row in rows])
        for host, threads in fewest.items()
    ]
    costs += [(source, None, [estimated_ms(row, source) for row in rows]) for source in estimate_sources(rows)]
    costs.append((None, None, [row.size_bytes for row in rows]))
    found = []
    for machine, number, values in costs:
        points = [
            None if cost is None or row.top1 is None else (cost, row.top1)
            for row, cost in zip(rows, values, strict=True)
        ]
        if any(points):
            found.append(Front(machine, number, tuple(values), front(points)))
    return tuple(found)


def column(rows: Sequence[Row]) -> list[str]:
    """For each row the fronts that it is on, for a table; empty texts if there are no fronts."""
    found = fronts(rows)
    machines = sum(one.host is not None for one in found)
    names = [
        SIZE if one.host is None else "latency" if machines == 1 and one.threads else f"latency on {one.host}"
        for one in found
    ]
    return [
        ", ".join(name for name, one in zip(names, found, strict=True) if one.on[place])
        or (formats.MISSING if found else "")
        for place in range(len(rows))
    ]
