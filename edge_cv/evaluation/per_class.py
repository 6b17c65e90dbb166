"""How an artifact does class by class, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MATRIX_CLASSES = 50
"""Up to so many classes the whole confusion matrix is kept; it would be 1000 x 1000 for ImageNet."""

WORST_PAIRS = 20


@dataclass(frozen=True)
class Confusion:
    """How many photos of one class were taken for another.

    Attributes:
        label, answer: the names of the true class and of the one that came first.
        photos: how many times.
        of: photos of the true class.
    """

    label: str
    answer: str
    photos: int
    of: int


@dataclass(frozen=True)
class ClassScores:
    """Figures for each class that has photos, and their means. All shares are 0..1.

    Attributes:
        names: the classes that have at least one photo, in the order of their indices.
        images: photos of each.
        recall: share of a class's photos that were recognized: the accuracy of the class.
        precision: share of the photos taken for the class that are of it; 0 where none was.
        f1: harmonic mean of both; 0 where no photo of the class was recognized.
        balanced_accuracy: mean recall: the accuracy if every class had as many photos.
        macro_precision, macro_f1: means over the classes, each counting the same.
        weighted_precision, weighted_f1: means over the classes, each counting as many times as it has photos. (The
            weighted recall is top-1.)
        confusions: the pairs of classes that were confused most often, at most 20.
        matrix_names, matrix: every class and `matrix[label][answer]`, the photos of `label` taken for `answer`; empty
            for more than 50 classes.
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
            raise InputError("class scores must be of at least one class. Received: none")
        if any(count < 0 for counts in self.matrix for count in counts):
            raise InputError("a confusion matrix must hold counts, 0 or more. Received: a negative one")
        if any(len(column) != len(self.names) for column in columns):
            raise InputError(f"each of the {len(self.names)} classes must have its images, recall, precision and f1")
        if {len(self.matrix), *map(len, self.matrix)} not in ({len(self.matrix_names)}, {0}):
            raise InputError(f"a confusion matrix must be square, of {len(self.matrix_names)} classes")


def class_scores(labels: np.ndarray, answers: np.ndarray, names: Sequence[str]) -> ClassScores | None:
    """The figures of every class.

    Args:
        labels: true classes `(photos,)`, indices into `names`; below 0 where nobody said: such a photo does not count.
        answers: the classes that came first `(photos,)`.
        names: of all the classes, each once.

    Returns:
        The figures, or None where no photo has a label.
    """
    import numpy as np

    labelled = labels >= 0
    labels, answers, classes = labels[labelled], answers[labelled], len(names)
    if not len(labels):
        return None
    images = np.bincount(labels, minlength=classes)
    answered = np.bincount(answers, minlength=classes)
    right = np.bincount(labels[labels == answers], minlength=classes)
    there = np.flatnonzero(images)
    recall = right[there] / images[there]
    precision = right[there] / np.maximum(answered[there], 1)
    f1 = 2 * right[there] / (images[there] + answered[there])
    weights = images[there] / len(labels)
    matrix: tuple[tuple[int, ...], ...] = ()
    if classes <= MATRIX_CLASSES:
        counts = np.bincount(labels * classes + answers, minlength=classes * classes)
        matrix = tuple(map(tuple, counts.reshape(classes, classes).tolist()))
    return ClassScores(
        names=tuple(names[index] for index in there),
        images=tuple(images[there].tolist()),
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
            for label, answer, count in confused_pairs(labels, answers)[:WORST_PAIRS]
        ),
        matrix_names=tuple(names) if matrix else (),
        matrix=matrix,
    )


def confused_pairs(labels: np.ndarray, answers: np.ndarray) -> list[tuple[int, int, int]]:
    """(label, answer, photos) of each pair that was confused, most photos first, then in the order of the indices."""
    import numpy as np

    wrong = (labels >= 0) & (labels != answers)
    pairs, counts = np.unique(np.stack([labels[wrong], answers[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with the index behind those that come more than once, as ImageNet's two cranes do."""
    twice = {name for name in names if list(names).count(name) > 1} if len(set(names)) < len(names) else ()
    return tuple(f"{name} ({index})" if name in twice else name for index, name in enumerate(names))
