"""Robustness to the common corruptions: top-1 for each corruption and severity."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.evaluation.robustness import SEVERITIES, Robustness
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.drawing import colour_of, legend, shorten_middle, svg
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "Measured on {photos}, each with 15 corruptions at five severities (Hendrycks and Dietterich 2019): noise, blur, "
    "weather and digital artifacts, applied to the model's input. The corruption error is 1 - top-1, averaged over "
    "severities and corruptions; unlike in the paper, it is not divided by AlexNet's."
)

Measured = tuple[Row, Robustness]


def section(report: Report) -> Section | None:
    """Top-1 at each severity and for each corruption."""
    measured = [(row, row.robustness) for row in report.rows if row.robustness is not None]
    if not measured:
        return None
    shown = main_pairs(measured)
    images = measured[0][1].images
    listed = "; ".join(f"{row.name}: {', '.join(_by_severity(robustness))}" for row, robustness in shown)
    figure = Figure(
        "Accuracy under corruption",
        "Top-1, mean of the 15 corruptions; severity 0 is the clean photo.",
        f"Top-1 at severity 0 to {SEVERITIES}. {listed}.",
        functools.partial(against_severity, shown),
    )
    return Section(
        "Robustness to corruptions",
        _finding(*shown[-1]),
        (),
        (_by_model(measured), _by_corruption(shown)),
        (figure,),
        notes=(NOTE.format(photos=formats.photos(images)),),
    )


def _finding(row: Row, robustness: Robustness) -> str:
    """The mean top-1 under corruption against that on clean photos, and the worst corruption."""
    means = {name: sum(of) / len(of) for name, of in zip(robustness.corruptions, robustness.accuracy, strict=True)}
    worst = min(means, key=lambda name: means[name])
    clean, mean, lowest = (
        formats.percent(share, robustness.images)
        for share in (robustness.clean, sum(means.values()) / len(means), means[worst])
    )
    return (
        f"The top-1 of {row.name} falls from {clean} on clean photos to {mean} on average under corruption; "
        f"“{worst.replace('_', ' ')}” is the worst with {lowest}."
    )


def _by_severity(robustness: Robustness) -> list[str]:
    return [formats.percent(robustness.at_severity(n), robustness.images) for n in range(SEVERITIES + 1)]


def _by_model(measured: Sequence[Measured]) -> Table:
    return Table(
        "",
        (
            ("Model", ""),
            ("Clean", "top-1"),
            *((f"Severity {n}", "") for n in range(1, SEVERITIES + 1)),
            ("Corruption error", "mean"),
            ("Increase", "of the error"),
        ),
        tuple(
            (
                row.name,
                *_by_severity(robustness),
                formats.percent(robustness.mean_corruption_error, robustness.images),
                f"{100 * robustness.relative_corruption_error:.1f} points",
            )
            for row, robustness in measured
        ),
    )


def _by_corruption(shown: Sequence[Measured]) -> Table:
    first = shown[0][1]
    means = [
        {name: sum(shares) / len(shares) for name, shares in zip(one.corruptions, one.accuracy, strict=True)}
        for _, one in shown
    ]
    return Table(
        "By corruption, lowest accuracy first",
        (("Corruption", ""), *((row.name, f"top-1, mean of {SEVERITIES} severities") for row, _ in shown)),
        tuple(
            (name.replace("_", " "), *(formats.percent(of.get(name), first.images) for of in means))
            for name in sorted(first.corruptions, key=lambda name: means[0][name])
        ),
    )


def against_severity(measured: Sequence[Measured]) -> str:
    """Mean top-1 of the corruptions against their severity, a line for each row, as SVG."""
    severities = range(SEVERITIES + 1)

    def draw(figure: Any, axes: Any) -> None:
        for row, robustness in measured:
            ys = [100 * robustness.at_severity(severity) for severity in severities]
            label = shorten_middle(row.name, 26)
            axes.plot(severities, ys, "o-", color=colour_of(row), linewidth=1.5, markersize=5, label=label)
        axes.set_ylim(0, 104)
        axes.set_xticks(severities, ["clean", *map(str, severities[1:])])
        axes.grid(axis="y")
        axes.set_xlabel("severity")
        axes.set_ylabel("top-1 accuracy, %")
        legend(axes, "upper right")

    return svg("severity", draw)
