"""Recall, precision and F1 of each class, and the classes that are confused most often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MATRIX_CLASSES = 50
"""The confusion matrix is kept for at most this number of classes; it would be 1000 x 1000 for ImageNet."""

WORST_PAIRS = 20


@dataclass(frozen=True)
class Confusion:
    """How often one class is predicted for another.

    Attributes:
        label, answer: names of the true and of the predicted class.
        photos: images of `label` for which `answer` is predicted.
        of: images of `label`.
    """

    label: str
    answer: str
    photos: int
    of: int


@dataclass(frozen=True)
class ClassScores:
    """Figures of each class that has images, and their means. All shares are 0..1.

    Attributes:
        names: the classes with at least one image, in the order of their indices.
        images: images of each class.
        recall: share of a class's images for which it is predicted: the accuracy of the class.
        precision: share of right predictions among all predictions of the class; 0 without any.
        f1: harmonic mean of recall and precision; 0 where both are 0.
        balanced_accuracy: mean recall: the accuracy if every class had the same number of images.
        macro_precision, macro_f1: means over the classes.
        weighted_precision, weighted_f1: means over the classes, weighted by their images. (The weighted recall is
            top-1.)
        confusions: the most frequent confusions, at most 20.
        matrix_names, matrix: all classes, and `matrix[label][answer]`, the images of `label` for which `answer` is
            predicted; empty for more than 50 classes.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    f1: tuple[float, ...]
    balanced_accuracy: float
    macro_precision: float
    macro_f1: float
    weighted_precision: float
    weighted_f1: float
    confusions: tuple[Confusion, ...] = ()
    matrix_names: tuple[str, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        columns = (self.images, self.recall, self.precision, self.f1)
        if not self.names:
            raise InputError("class scores must have at least one class. Received: none")
        if any(count < 0 for counts in self.matrix for count in counts):
            raise InputError("a confusion matrix must hold counts, 0 or more. Received: a negative count")
        if any(len(column) != len(self.names) for column in columns):
            raise InputError(f"each of the {len(self.names)} classes must have its images, recall, precision and f1")
        if len(self.matrix) > MATRIX_CLASSES or len(self.confusions) > WORST_PAIRS:
            raise InputError(f"a confusion matrix must have at most {MATRIX_CLASSES} classes, and {WORST_PAIRS} pairs")
        if {len(self.matrix), *map(len, self.matrix)} not in ({len(self.matrix_names)}, {0}):
            raise InputError(f"a confusion matrix must be square, of {len(self.matrix_names)} classes")


def class_scores(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> ClassScores | None:
    """The figures of every class.

    Args:
        labels: true classes `(images,)`, indices into `names`; images with a label below 0 are ignored.
        predicted: the likeliest classes `(images,)`.
        names: distinct names of all classes.

    Returns:
        The figures, or None if no image has a label.
    """
    import numpy as np

    labelled = labels >= 0
    labels, predicted, classes = labels[labelled], predicted[labelled], len(names)
    if not len(labels):
        return None
    images = np.bincount(labels, minlength=classes)
    predictions = np.bincount(predicted, minlength=classes)
    right = np.bincount(labels[labels == predicted], minlength=classes)
    present = np.flatnonzero(images)
    recall = right[present] / images[present]
    precision = right[present] / np.maximum(predictions[present], 1)
    f1 = 2 * right[present] / (images[present] + predictions[present])
    weights = images[present] / len(labels)
    matrix: tuple[tuple[int, ...], ...] = ()
    if classes <= MATRIX_CLASSES:
        counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
        matrix = tuple(map(tuple, counts.reshape(classes, classes).tolist()))
    return ClassScores(
        names=tuple(names[index] for index in present.tolist()),
        images=tuple(images[present].tolist()),
        recall=tuple(recall.tolist()),
        precision=tuple(precision.tolist()),
        f1=tuple(f1.tolist()),
        balanced_accuracy=float(recall.mean()),
        macro_precision=float(precision.mean()),
        macro_f1=float(f1.mean()),
        weighted_precision=float(weights @ precision),
        weighted_f1=float(weights @ f1),
        confusions=tuple(
            Confusion(names[label], names[answer], count, int(images[label]))
            for label, answer, count in confused_pairs(labels, predicted)[:WORST_PAIRS]
        ),
        matrix_names=tuple(names) if matrix else (),
        matrix=matrix,
    )


def confused_pairs(labels: np.ndarray, predicted: np.ndarray) -> list[tuple[int, int, int]]:
    """(label, predicted class, images) of each confused pair, most images first, then in the order of the indices."""
    import numpy as np

    wrong = (labels >= 0) & (labels != predicted)
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """`names`, where repeated ones, such as ImageNet's two cranes, are followed by their index."""
    repeated = {name for name in names if list(names).count(name) > 1} if len(set(names)) < len(names) else ()
    return tuple(f"{name} ({index})" if name in repeated else name for index, name in enumerate(names))
