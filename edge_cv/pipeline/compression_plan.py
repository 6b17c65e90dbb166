"""A plan for the compression of a model file: which stages fit it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_cv.recipe import Prune, Qat

if TYPE_CHECKING:
    from edge_cv.report import Row

SPARSITY = 0.75
PRUNABLE_WEIGHTS = 50_000  # a smaller network has few weights to spare, and its file is names and operators
GOOD_AGREEMENT = 0.98  # of int8 with the float model; above it there is little for QAT to gain


@dataclass(frozen=True)
class PlannedStage:
    """What the plan says of one stage.

    Attributes:
        option: of `edge-cv compress`, such as `--sparsity 0.75`.
        field: of `edge_cv.recipe.Recipe`.
        part: the stage's settings; None where the plan leaves it out.
        reason: why, in one sentence.
    """

    option: str
    field: str
    part: Any
    reason: str


def plan(rows: Sequence[Row]) -> tuple[PlannedStage, ...]:
    """The stages for a model, by the rows of its float32 and its int8 file, which come first."""
    return _pruning(rows[1]), _qat(rows[1]), _channels(rows[1])


def _pruning(int8: Row) -> PlannedStage:
    option, weights = f"--sparsity {SPARSITY:g}", int8.parameters or 0
    size = "" if int8.gzip_bytes is None else f"; the int8 file has {int8.gzip_bytes / 1e6:.2f} MB after gzip"
    if weights < PRUNABLE_WEIGHTS:
        reason = f"the model has {weights:,} weights, too few to spare any"
        return PlannedStage(option, "prune", None, reason)
    reason = f"zeros make the download of {weights:,} weights smaller, at the same latency{size}"
    return PlannedStage(option, "prune", Prune(SPARSITY), reason)


def _qat(int8: Row) -> PlannedStage:
    if int8.agreement is None:
        return PlannedStage("--qat", "qat", None, "the agreement of int8 with the float model is not known")
    shown = f"int8 agrees with the float model on {int8.agreement:.1%} of {int8.images} photos"
    if int8.agreement >= GOOD_AGREEMENT:
        return PlannedStage("--qat", "qat", None, f"{shown}: training for int8 has little to gain")
    return PlannedStage("--qat", "qat", Qat(), f"{shown}: training for int8 can gain more")


def _channels(int8: Row) -> PlannedStage:
    macs = "" if int8.macs is None else f" of {int8.macs / 1e6:,.0f} million"
    reason = f"only for a lower latency: half{macs} multiply-accumulates, at some loss of accuracy"
    return PlannedStage("--channels 0.5", "channel_prune", None, reason)
