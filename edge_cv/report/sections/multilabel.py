"""Average precision by class, for photos that may show several classes."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.evaluation.multilabel import MultiLabel
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.sections.per_class import ends, ends_title
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "mAP is the mean of the classes' average precision. For each class the photos are ranked by the model's score, "
    "and the precision is averaged over the ranks of the photos that show the class. A model with random scores has an "
    "average precision equal to the share of photos that show the class."
)


def section(report: Report) -> Section | None:
    """Mean average precision, and the classes with the lowest average precision."""
    scored = [(row, row.multi_label) for row in report.rows if row.multi_label is not None]
    if not scored:
        return None
    shown = main_pairs(scored)
    first = shown[0][1]
    order = sorted(range(len(first.names)), key=lambda n: first.average_precision[n])
    values = [dict(zip(one.names, one.average_precision, strict=True)) for _, one in shown]
    means = Table(
        "", (("Model", ""), ("mAP", "")), tuple((row.name, f"{one.mean_average_precision:.3f}") for row, one in scored)
    )
    classes = Table(
        ends_title(len(order), "average precision"),
        (("Class", ""), ("Photos", ""), *((row.name, "average precision") for row, _ in shown)),
        tuple(
            (first.names[n], f"{first.positives[n]:,}", *(_precision(of.get(first.names[n])) for of in values))
            for n in ends(order)
        ),
    )
    return Section("Average precision by class", _finding(shown), (), (means, classes), notes=(NOTE,))


def _finding(shown: Sequence[tuple[Row, MultiLabel]]) -> str:
    """The mean average precision of each model, and the class that is hardest for the last one."""
    means = formats.joined([f"{one.mean_average_precision:.3f} for {row.name}" for row, one in shown])
    row, last = shown[-1]
    if not last.names:
        return f"The mean average precision is {means}."
    hardest = min(range(len(last.names)), key=lambda n: last.average_precision[n])
    return (
        f"The mean average precision is {means}; the hardest class for {row.name} is “{last.names[hardest]}” with "
        f"{last.average_precision[hardest]:.3f}."
    )


def _precision(value: float | None) -> str:
    return formats.MISSING if value is None else f"{value:.3f}"
