"""Confidence calibration: whether predictions with 80 % confidence are correct in 80 % of cases."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.evaluation.confidence import Confidence
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.drawing import MUTED, colour_of, legend, shorten_middle, svg
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "A model is well calibrated if 80 % of its predictions with 80 % confidence are correct. The expected calibration "
    "error (ECE) is the mean distance between confidence and accuracy over 15 bins of equal width, weighted by their "
    "photos (Guo et al. 2017). With few photos it is large by chance alone: the column “by chance” has the mean and "
    "the 95th percentile for a perfectly calibrated model with the same confidences. Temperature is the number by "
    "which to divide the logits so that the confidence is right. The ECE with it is cross-validated: the temperature "
    "is fitted on one half of the photos and applied to the other half, and vice versa."
)

Measured = tuple[Row, Confidence]


def section(report: Report) -> Section | None:
    """ECE, mean confidence and accuracy, and the reliability diagram."""
    measured = [(row, row.confidence) for row in report.rows if row.confidence is not None]
    if not measured:
        return None
    shown = main_pairs(measured)
    listed = "; ".join(f"{row.name}: ECE {confidence.ece:.3f}" for row, confidence in shown)
    figure = Figure(
        "Reliability diagram",
        "On the dotted line, accuracy equals confidence; below it, the model is overconfident. Larger points stand for "
        "more photos.",
        f"Accuracy against confidence. {listed}.",
        functools.partial(reliability, shown),
    )
    finding, *others = [calibration(row.name, confidence) for row, confidence in reversed(shown)]
    return Section("Confidence calibration", finding, tuple(others), (_table(measured),), (figure,), notes=(NOTE,))


def calibration(name: str, confidence: Confidence) -> str:
    """Whether the model is over- or underconfident beyond what chance explains, in one sentence."""
    ece, photos = f"ECE {confidence.ece:.3f}", formats.photos(confidence.images)
    by_chance = f"{confidence.ece_by_chance_95:.3f}"
    if confidence.ece <= confidence.ece_by_chance_95:
        return (
            f"There is no sign that the confidence of {name} is wrong: its {ece} is within what chance alone produces "
            f"with {photos} (up to {by_chance})."
        )
    gap = confidence.confidence - confidence.accuracy
    if abs(gap) < confidence.ece / 2:
        verdict = "overconfident for some predictions and underconfident for others"
    else:
        verdict = "overconfident" if gap > 0 else "underconfident"
    return (
        f"{name} is {verdict}: its mean confidence is {formats.percent(confidence.confidence, confidence.images)} and "
        f"its accuracy {formats.percent(confidence.accuracy, confidence.images)} ({ece}; chance alone produces up to "
        f"{by_chance} with {photos})."
    )


def _table(measured: Sequence[Measured]) -> Table:
    return Table(
        "",
        (
            ("Model", ""),
            ("ECE", ""),
            ("ECE", "by chance"),
            ("Confidence", "mean"),
            ("Accuracy", ""),
            ("Temperature", "ECE with it"),
        ),
        tuple(
            (
                row.name,
                f"{confidence.ece:.3f}",
                f"{confidence.ece_by_chance:.3f}\nup to {confidence.ece_by_chance_95:.3f}",
                formats.percent(confidence.confidence, confidence.images),
                formats.percent(confidence.accuracy, confidence.images),
                formats.MISSING if (best := confidence.temperature) is None else f"{best.value:.2f}\n{best.ece:.3f}",
            )
            for row, confidence in measured
        ),
    )


def reliability(measured: Sequence[Measured]) -> str:
    """Accuracy against confidence, a line for each row, the area of a point growing with its photos, as SVG."""

    def draw(figure: Any, axes: Any) -> None:
        axes.plot([0, 100], [0, 100], ":", color=MUTED, linewidth=1.2)
        for row, confidence in measured:
            colour = colour_of(row)
            xs, ys = [100 * b.confidence for b in confidence.bins], [100 * b.accuracy for b in confidence.bins]
            areas = [12 + 160 * b.images / confidence.images for b in confidence.bins]
            axes.plot(xs, ys, color=colour, linewidth=1.3, alpha=0.7, label=shorten_middle(row.name, 26))
            axes.scatter(xs, ys, s=areas, color=colour, alpha=0.6, linewidths=0)
        axes.set_xlim(0, 103)
        axes.set_ylim(-3, 104)
        axes.grid(axis="y")
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("accuracy, %")
        legend(axes, "lower right")

    return svg("reliability", draw, 4.2)
