"""Accuracy by class: balanced accuracy and F1, recall and precision of each class, and the most frequent confusions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.evaluation.per_class import WORST_PAIRS, ClassScores
from edge_cv.report import formats
from edge_cv.report.comparison import main_pairs
from edge_cv.report.drawing import colour_of, identifier, one_line, svg
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

ALL_CLASSES = 25
WORST_CLASSES, BEST_CLASSES = 20, 5
"""Up to 25 classes are listed completely; of more, the 20 with the lowest recall and the 5 with the highest."""

LISTED_PAIRS = 12
FEW_PHOTOS, LISTED_PHOTOS = 10, 3
"""If no class has 10 photos the page warns that they are few; if none has 3, it lists no class."""

COUNTED_CLASSES = 12  # with at most this many classes the cells show their counts
LABELLED_CLASSES = 26  # with more classes only every second one is labelled

NOTE = (
    "Recall is the share of a class's photos that are predicted as this class. Precision is the share of the photos "
    "predicted as a class that belong to it. F1 is the harmonic mean of both. Balanced accuracy is the mean recall. "
    "Macro averages weight all classes equally, weighted averages by their number of photos. Classes without photos "
    "are not counted."
)

Scored = tuple[Row, ClassScores]


def section(report: Report) -> Section | None:
    """The averages over the classes, the confusions, and the classes with the lowest recall."""
    scored = [(row, row.classes) for row in report.rows if row.classes is not None]
    if not scored:
        return None
    shown = main_pairs(scored)
    classes = shown[0][1]
    most = max(classes.images)
    listed = _class_table(shown) if most >= LISTED_PHOTOS else None
    tables = [table for table in (_averages(scored), _confusions(shown), listed) if table is not None]
    matrices = [_matrix(*one) for one in shown]
    finding, counts = _finding(*shown[-1]), _photo_counts(classes)
    return Section(
        "Accuracy by class",
        finding or counts,
        (counts,) if finding else (),
        tuple(tables),
        tuple(figure for figure in matrices if figure is not None),
        notes=(NOTE,),
    )


def _finding(row: Row, classes: ClassScores) -> str:
    """The class with the lowest recall and what it is confused with; empty if the photos of a class are too few."""
    place = min(range(len(classes.names)), key=lambda n: (classes.recall[n], -classes.images[n]))
    name, images = classes.names[place], classes.images[place]
    if max(classes.images) < FEW_PHOTOS:
        return ""
    if classes.recall[place] == 1:
        return f"{row.name} recognizes every class on all of its photos."
    text = f"{row.name} recognizes “{name}” least well: {formats.percent(classes.recall[place], images)} of its "
    text += formats.photos(images)
    confused = [pair for pair in classes.confusions if pair.label == name]
    if confused:
        most = max(confused, key=lambda pair: pair.photos)
        text += f", with “{most.answer}” as the most frequent wrong prediction ({formats.photos(most.photos)})"
    return f"{text}."


def _photo_counts(classes: ClassScores) -> str:
    fewest, most = min(classes.images), max(classes.images)
    each = formats.photos(most) if fewest == most else f"{fewest:,} to {formats.photos(most)}"
    text = f"The photos show {len(classes.names):,} classes, with {each} each."
    if most < LISTED_PHOTOS:
        return f"{text} These are too few to list results for single classes."
    return f"{text} These are too few for conclusions about single classes." if most < FEW_PHOTOS else text


def _averages(scored: Sequence[Scored]) -> Table:
    return Table(
        "",
        (("Model", ""), ("Balanced", "accuracy"), ("F1", "macro"), ("Precision", "macro"), ("F1", "weighted")),
        tuple(
            (
                row.name,
                formats.percent(classes.balanced_accuracy, row.images),
                f"{classes.macro_f1:.3f}",
                f"{classes.macro_precision:.3f}",
                f"{classes.weighted_f1:.3f}",
            )
            for row, classes in scored
        ),
    )


def _class_table(shown: Sequence[Scored]) -> Table:
    first = shown[0][1]
    order = sorted(range(len(first.names)), key=lambda n: (first.recall[n], first.f1[n], -first.images[n]))
    places = [{name: n for n, name in enumerate(classes.names)} for _, classes in shown]
    columns = [(title, row.name) for row, _ in shown for title in ("Recall", "Precision", "F1")]
    rows = []
    for n in ends(order):
        name = first.names[n]
        figures = [
            figure
            for (_, classes), of in zip(shown, places, strict=True)
            for figure in _class_figures(classes, of.get(name))
        ]
        rows.append((name, f"{first.images[n]:,}", *figures))
    return Table(ends_title(len(order), "recall"), (("Class", ""), ("Photos", ""), *columns), tuple(rows))


def _class_figures(classes: ClassScores, place: int | None) -> tuple[str, str, str]:
    if place is None:
        return formats.MISSING, formats.MISSING, formats.MISSING
    images = classes.images[place]
    recall, precision = (formats.percent(shares[place], images) for shares in (classes.recall, classes.precision))
    return recall, precision, f"{classes.f1[place]:.2f}"


def ends_title(count: int, figure: str) -> str:
    """The title of a table of `ends` of that number of classes, sorted by a figure."""
    if count <= ALL_CLASSES:
        return f"All classes, lowest {figure} first"
    return f"The {WORST_CLASSES} classes with the lowest {figure} and the {BEST_CLASSES} with the highest, of {count:,}"


def ends(order: list[int]) -> list[int]:
    """All of up to 25 classes; of more, the first 20 and the last 5."""
    return order if len(order) <= ALL_CLASSES else [*order[:WORST_CLASSES], *order[-BEST_CLASSES:]]


def _confusions(shown: Sequence[Scored]) -> Table | None:
    counts = [{(pair.label, pair.answer): pair for pair in classes.confusions} for _, classes in shown]
    every = {key: pair for of in reversed(counts) for key, pair in of.items()}
    order = sorted(every, key=lambda key: -max(of[key].photos if key in of else 0 for of in counts))[:LISTED_PAIRS]
    if not order:
        return None
    return Table(
        "Most frequent confusions",
        (
            ("True class", ""),
            ("Predicted class", ""),
            ("Photos", "of the class"),
            *((row.name, "times") for row, _ in shown),
        ),
        tuple((*key, f"{every[key].of:,}", *(_times_confused(classes, *key) for _, classes in shown)) for key in order),
        texts=2,
    )


def _times_confused(classes: ClassScores, label: str, predicted: str) -> str:
    names = classes.matrix_names
    if classes.matrix and {label, predicted} <= set(names):
        return f"{classes.matrix[names.index(label)][names.index(predicted)]:,}"
    counts = {(pair.label, pair.answer): pair.photos for pair in classes.confusions}
    if (label, predicted) in counts or len(counts) < WORST_PAIRS:
        return f"{counts.get((label, predicted), 0):,}"
    return f"≤ {min(counts.values()):,}"  # no more often than the rarest pair that is kept


def _matrix(row: Row, classes: ClassScores) -> Figure | None:
    if not classes.matrix:
        return None
    listed = "; ".join(f"{pair.label} predicted as {pair.answer}: {pair.photos}" for pair in classes.confusions[:5])
    return Figure(
        f"Confusion matrix of {row.name}",
        "Rows are true classes, columns predicted classes. A darker cell is a larger share of the row's photos.",
        f"Confusion matrix of {row.name}. {listed or 'No errors'}.",
        functools.partial(confusion_matrix, row, classes),
    )


def confusion_matrix(row: Row, classes: ClassScores) -> str:
    """The share of each true class's photos for each predicted class, as SVG."""
    count = len(classes.matrix)
    size = 10 if count <= COUNTED_CLASSES else max(7.0, 130 / count)

    def draw(figure: Any, axes: Any) -> None:
        _draw_cells(axes, classes, colour_of(row))
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        names = [one_line(name, 14) for name in classes.matrix_names]
        places = range(0, count, 1 if count <= LABELLED_CLASSES else 2)
        axes.set_yticks(places, [names[n] for n in places], fontsize=size)
        axes.set_xticks(places, [names[n] for n in places], fontsize=size, rotation=90)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")

    return svg(f"confusion-{identifier(row.name)}", draw, 5.0)


def _draw_cells(axes: Any, classes: ClassScores, colour: str) -> None:
    from matplotlib.patches import Rectangle

    count = len(classes.matrix)
    for y, counts in enumerate(classes.matrix):
        for x, number in enumerate(counts):
            if number:
                alpha = 0.12 + 0.75 * number / sum(counts)
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
            if number and count <= COUNTED_CLASSES:
                axes.text(x, y, str(number), ha="center", va="center", fontsize=9 if count > 8 else 10)
