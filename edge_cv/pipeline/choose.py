"""The architecture with the highest published top-1 within a budget: `edge-cv choose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converters.errors import unknown
from edge_cv import models
from edge_cv.models.measured import MeasuredModel, MeasuredTable
from edge_cv.pipeline.measure_models import TARGETS


@dataclass(frozen=True)
class Budget:
    """What the int8 file of a model may cost.

    Attributes:
        target: one of `TARGETS`, which must run every operator of the file.
        max_latency_ms: with one thread on the machine of the table; None is no limit.
        max_size_bytes: of the file; None is no limit.
    """

    target: str = "cpu"
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None

    def excess(self, model: MeasuredModel) -> float:
        """The largest ratio of a cost to its limit; at most 1 within the budget, 0 without a limit."""
        limits = ((model.int8.p50_ms, self.max_latency_ms), (model.int8.size_bytes, self.max_size_bytes))
        return max([cost / limit for cost, limit in limits if limit is not None], default=0.0)


@dataclass(frozen=True)
class Candidate:
    """An architecture with its published accuracy and its measured costs.

    Attributes:
        measured: its row of the table.
        top1: published top-1 of the float model on ImageNet, 0..1.
        weights: the source of pretrained weights, in words; "none" if there is none.
        excess: see `Budget.excess`.
    """

    measured: MeasuredModel
    top1: float
    weights: str
    excess: float

    @property
    def next_command(self) -> str:
        """The command that trains it on the user's own photos."""
        name, pretrained = self.measured.name, "" if self.weights == "none" else " --weights imagenet"
        return f"edge-cv train {name}{pretrained} --data photos --out runs/{name}"


def candidates(table: MeasuredTable, budget: Budget) -> list[Candidate]:
    """The architectures that the target runs whole: first those within the budget, the highest top-1 first.

    Those beyond the budget follow, the nearest first.

    Raises:
        InputError: the target is unknown.
    """
    if budget.target not in TARGETS:
        raise unknown("target", budget.target, TARGETS)
    found = [_candidate(row, budget) for row in table.models if budget.target in row.whole_on]
    return sorted(found, key=lambda one: (one.excess > 1, one.excess if one.excess > 1 else -one.top1))


def within(found: Sequence[Candidate]) -> list[Candidate]:
    """Those within the budget."""
    return [candidate for candidate in found if candidate.excess <= 1]


def _candidate(row: MeasuredModel, budget: Budget) -> Candidate:
    published = models.describe(row.name)
    return Candidate(row, published["top1"], published["weights"], budget.excess(row))
