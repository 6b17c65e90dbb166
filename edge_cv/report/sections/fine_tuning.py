"""Fine-tuning after compression: accuracy and sparsity over the epochs of each stage."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.report.drawing import MUTED, SERIES, legend, locator, shorten_middle, svg
from edge_cv.report.sections.section import Figure, Section
from edge_cv.report.values import Report, StageTraining

NOTE = (
    "The score is that of the augmented training images while the weights change: top-1, or mean average precision for "
    "images with several labels. It shows whether the model recovers, not how accurate it is. An epoch has at least 20 "
    "steps, so for few images it passes over all of them several times."
)


def section(report: Report) -> Section | None:
    """The curve of all stages, one after the other."""
    stages = [stage for stage in report.fine_tuning if any(epoch.score is not None for epoch in stage.epochs)]
    if not stages:
        return None
    finding, *others = [summary(stage) for stage in stages]
    figures = (_figure(stages),) if any(len(stage.epochs) > 1 for stage in stages) else ()
    return Section("Fine-tuning after compression", finding, tuple(others), figures=figures, notes=(NOTE,))


def summary(stage: StageTraining) -> str:
    """How the training score of a stage changed, and with which sparsity, in one sentence."""
    scores = [epoch.score for epoch in stage.epochs if epoch.score is not None]
    zeros = [epoch.sparsity for epoch in stage.epochs if epoch.sparsity is not None]
    epochs = "1 epoch" if len(stage.epochs) == 1 else f"{len(stage.epochs):,} epochs"
    text = f"In {epochs}, the training score of the {stage.stage} model {_change(scores)}"
    return f"{text}, and its sparsity {_change(zeros)}." if zeros else f"{text}."


def _change(shares: Sequence[float]) -> str:
    first, last = (f"{100 * share:.1f} %" for share in (shares[0], shares[-1]))
    if first == last:
        return f"was {last}"
    return f"{'rose' if shares[-1] > shares[0] else 'fell'} from {first} to {last}"


def _figure(stages: Sequence[StageTraining]) -> Figure:
    return Figure(
        "Accuracy and sparsity by epoch",
        "Solid: score of the training images. Dashed: share of zeros in the weights. The stages follow one another "
        "from left to right.",
        f"Score and sparsity by epoch. {' '.join(map(summary, stages))}",
        functools.partial(plot, stages),
    )


def plot(stages: Sequence[StageTraining]) -> str:
    """Training score and sparsity of each epoch, one stage after the other, as SVG."""

    def draw(figure: Any, axes: Any) -> None:
        first = 1
        for number, stage in enumerate(stages):
            colour = SERIES[(3 - number) % len(SERIES)]
            for what, style in (("score", "-"), ("sparsity", "--")):
                values = [(first + n, getattr(epoch, what)) for n, epoch in enumerate(stage.epochs)]
                points = [(x, 100 * value) for x, value in values if value is not None]
                if points:
                    xs, ys = zip(*points, strict=True)
                    name = shorten_middle(stage.stage.lstrip("_"), 26) if what == "score" else None
                    axes.plot(xs, ys, style, marker="o", markersize=4, color=colour, linewidth=1.5, label=name)
            first += len(stage.epochs)
            if number + 1 < len(stages):
                axes.axvline(first - 0.5, color=MUTED, linestyle=":", linewidth=1)
        axes.set_ylim(0, 104)
        axes.set_xlim(0.5, first - 0.5)
        axes.xaxis.set_major_locator(locator(integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("%")
        legend(axes, "lower right")

    return svg("fine-tuning", draw)
