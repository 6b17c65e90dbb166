"""Analysis of an evaluation's predictions: per class, confidence, severity of mistakes, groups, multiple labels."""

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
    from edge_cv.evaluation.predictions import Predictions


def analyze(
    predictions: Predictions,
    classes: Sequence[str],
    columns: Mapping[str, Sequence[str | None]] | None = None,
    temperatures: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Analyze the predictions of each model; it takes seconds for 50,000 images.

    Args:
        predictions: of an evaluation.
        classes: names of the source's classes.
        columns: for each column of a table the group of each image, as `read_columns` returns them.
        temperatures: each model's temperature, as JSON holds it.

    Returns:
        For each model's name `classes`, `confidence`, `mistakes` (for ImageNet's classes), `groups` and `multi_label`:
        fields of `edge_cv.report.Row`, as JSON holds them. None where there is nothing to analyze.
    """
    names = class_names(predictions, classes)
    return {
        name: _analysis(predictions, name, names, _is_imagenet(classes), columns or {}, (temperatures or {}).get(name))
        for name in predictions.names
    }


def _analysis(
    predictions: Predictions,
    name: str,
    names: Sequence[str],
    is_imagenet: bool,
    columns: Mapping[str, Sequence[str | None]],
    temperature: Any,
) -> dict[str, Any]:
    labels = predictions.labels
    labelled = labels >= 0
    predicted, probabilities = predictions.top1(name)
    right = predicted == labels
    hits = [bool(hit) if has_label else None for hit, has_label in zip(right, labelled, strict=True)]
    confidence = _json(confidence_of(probabilities[labelled], right[labelled]))
    if confidence is not None:
        confidence["temperature"] = temperature
    average_precision = None
    if predictions.truth is not None and predictions.outputs is not None:
        outputs = predictions.outputs[:, predictions.names.index(name)]
        average_precision = multi_label(predictions.truth, outputs, names)
    return {
        "classes": _json(class_scores(labels, predicted, names)),
        "confidence": confidence,
        "mistakes": _json(mistakes(labels, predicted, names)) if is_imagenet else None,
        "multi_label": _json(average_precision),
        "groups": [asdict(grouping) for grouping in group_scores(columns, hits)],
    }


def class_names(predictions: Predictions, classes: Sequence[str]) -> tuple[str, ...]:
    """Distinct names of all classes of the source and of the predictions."""
    count = 1 + max(int(predictions.indices.max(initial=-1)), int(predictions.labels.max(initial=-1)))
    count = max(count, 0 if predictions.truth is None else predictions.truth.shape[1])
    return distinct([*classes, *(f"class {index}" for index in range(len(classes), count))])


def _json(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _is_imagenet(classes: Sequence[str]) -> bool:
    from edge_cv.data import imagenet_labels

    return list(classes) == [label.name for label in imagenet_labels()]
