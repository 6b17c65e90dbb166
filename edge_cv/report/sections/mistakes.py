"""Severity of mistakes: the distance between the true and the predicted class in WordNet."""

from __future__ import annotations

from edge_cv.evaluation.mistakes import Mistakes
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "Distances are measured in WordNet 3.0, whose nouns are the classes of ImageNet. Height is the hierarchical error "
    "of the ImageNet challenge: the height of the lowest common ancestor of the true and the predicted class, that is "
    "the longest path from the ancestor down to one of the 1000 classes (two breeds of retriever: 1; a retriever and "
    "a fire engine: 15; maximum: 18). Steps is the length of the shortest path between the two classes. Random "
    "predictions are drawn, for the same photos, from all other classes with equal probability."
)


def section(report: Report) -> Section | None:
    """Mean distances of the wrong predictions, and the most severe mistakes."""
    measured = [(row, row.mistakes) for row in report.rows if row.mistakes is not None and row.mistakes.wrong]
    if not measured:
        return None
    columns = (
        ("Model", ""),
        ("Wrong", "photos"),
        ("Height", "of the common ancestor"),
        ("Height", "of random predictions"),
        ("Steps", "apart"),
    )
    means = Table("", columns, tuple(_means(row, mistakes) for row, mistakes in measured))
    worst = [_worst(row, mistakes) for row, mistakes in main_pairs(measured)]
    return Section("Severity of mistakes", (), (means, *worst), notes=(NOTE,))


def _means(row: Row, mistakes: Mistakes) -> tuple[str, ...]:
    means = (mistakes.height, mistakes.height_by_chance, mistakes.steps)
    figures = (formats.MISSING if mean is None else f"{mean:.1f}" for mean in means)
    return (row.name, f"{mistakes.wrong:,}", *figures)


def _worst(row: Row, mistakes: Mistakes) -> Table:
    return Table(
        f"Most severe mistakes of {row.name}",
        (("True class", ""), ("Predicted class", ""), ("Common ancestor", ""), ("Height", ""), ("Photos", "")),
        tuple((c.label, c.answer, c.ancestor, str(c.height), f"{c.photos:,}") for c in mistakes.worst),
        texts=3,
    )
