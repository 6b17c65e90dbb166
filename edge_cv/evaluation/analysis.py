"""Everything that an evaluation's predictions tell beyond their score, computed in seconds for 50,000 photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge_cv.evaluation.confidence import confidence_of
from edge_cv.evaluation.groups import group_scores
from edge_cv.evaluation.mistakes import mistakes
from edge_cv.evaluation.multilabel import multi_label
from edge_cv.evaluation.per_class import class_scores, distinct

if TYPE_CHECKING:
    from edge_cv.evaluation.accuracy import Predictions


def findings(
    predictions: Predictions,
    classes: Sequence[str],
    columns: Mapping[str, Sequence[str | None]] | None = None,
    temperatures: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """What is found of each artifact: the fields of its `edge_cv.report.Row`, as JSON has them.

    Args:
        predictions: of an evaluation.
        classes: the names of the source's classes.
        columns: for each column of a table the group of each photo, as `read_columns` gives them.
        temperatures: each artifact's, as the evaluation has them and JSON writes them.

    Returns:
        For each artifact's name `classes`, `confidence`, `mistakes` (where the classes are ImageNet's), `groups` and
        `multi_label`; None where there is nothing to tell.
    """
    names, labels = class_names(predictions, classes), predictions.labels
    found = {}
    for place, name in enumerate(predictions.names):
        answers, probabilities = predictions.answers(name)
        labelled = labels >= 0
        right = [bool(hit) if known else None for hit, known in zip(answers == labels, labelled, strict=True)]
        values = {
            "classes": class_scores(labels, answers, names),
            "confidence": confidence_of(probabilities[labelled], (answers == labels)[labelled]),
            "mistakes": mistakes(labels, answers, names) if _are_imagenets(classes) else None,
            "multi_label": None,
        }
        if predictions.truth is not None:
            values["multi_label"] = multi_label(predictions.truth, predictions.outputs[:, place], names)
        found[name] = {field: None if value is None else asdict(value) for field, value in values.items()}
        if found[name]["confidence"] is not None:
            found[name]["confidence"]["temperature"] = (temperatures or {}).get(name)
        found[name]["groups"] = [asdict(grouping) for grouping in group_scores(columns or {}, right)]
    return found


def class_names(predictions: Predictions, classes: Sequence[str]) -> tuple[str, ...]:
    """A name, each once, for every class that the source or an artifact speaks of."""
    count = 1 + max(int(predictions.indices.max(initial=-1)), int(predictions.labels.max(initial=-1)))
    count = max(count, 0 if predictions.truth is None else predictions.truth.shape[1])
    return distinct([*classes, *(f"class {index}" for index in range(len(classes), count))])


def _are_imagenets(classes: Sequence[str]) -> bool:
    from edge_cv.data import imagenet_labels

    return list(classes) == [label.name for label in imagenet_labels()]
