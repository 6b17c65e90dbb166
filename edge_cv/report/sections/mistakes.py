"""Severity of mistakes: the distance between the true and the predicted class in WordNet."""

from __future__ import annotations

from edge_cv.evaluation.mistakes import Mistakes
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "The classes of ImageNet are nouns of WordNet 3.0, a hierarchy in which distances can be measured. The height of a "
    "mistake is the hierarchical error of the ImageNet challenge: the height of the lowest common ancestor of the true "
    "and the predicted class, which is the longest path from the ancestor down to one of the 1000 classes. It is 1 for "
    "two breeds of retriever, 15 for a retriever and a fire engine, and at most 18. Steps is the length of the "
    "shortest path between the two classes. Random predictions are drawn for the same photos from all other classes "
    "with equal probability."
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
    shown = main_pairs(measured)
    worst = [_worst(row, mistakes) for row, mistakes in shown]
    return Section("Severity of mistakes", _finding(*shown[-1]), (), (means, *worst), notes=(NOTE,))


def _finding(row: Row, mistakes: Mistakes) -> str:
    """How far the wrong predictions are from the true class, compared with random ones."""
    photos = formats.photos(mistakes.wrong)
    if mistakes.height is None or mistakes.height_by_chance is None:
        return f"{row.name} classifies {photos} incorrectly."
    nearer = "closer" if mistakes.height < mistakes.height_by_chance else "no closer"
    return (
        f"{row.name} classifies {photos} incorrectly; its mistakes are {nearer} to the true class than random ones: a "
        f"mean height in WordNet of {mistakes.height:.1f} against {mistakes.height_by_chance:.1f}."
    )


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
