"""Average precision of a model on images with several labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MultiLabel:
    """Average precision of each class.

    The images are ranked by the model's output for the class. The average precision is the sum over the ranks n of
    `(R_n - R_(n-1)) P_n`, where R and P are recall and precision among the first n images. Images with equal outputs
    count as one rank, and there is no interpolation, as in scikit-learn.

    Attributes:
        images: number of images.
        mean_average_precision: mean over the classes that have images, 0..1.
        names: those classes.
        positives: images of each class.
        average_precision: of each class, 0..1. A random ranking gives about the share of the class's images.
    """

    images: int
    mean_average_precision: float
    names: tuple[str, ...]
    positives: tuple[int, ...]
    average_precision: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.positives) == len(self.average_precision):
            raise InputError(f"each of the {len(self.names)} classes must have positives and an average precision")


def multi_label(truth: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> MultiLabel | None:
    """Average precision of every class.

    Args:
        truth: which classes each image has, bool `(images, classes)`.
        scores: the model's outputs of that shape, logits or probabilities; only their order matters.
        names: of the classes.

    Returns:
        The figures; None if no image has any class.
    """
    import numpy as np

    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        return None
    precisions = [_average_precision(truth[:, index], scores[:, index]) for index in present]
    return MultiLabel(
        images=len(truth),
        mean_average_precision=float(np.mean(precisions)),
        names=tuple(names[index] for index in present.tolist()),
        positives=tuple(truth[:, present].sum(axis=0).tolist()),
        average_precision=tuple(precisions),
    )


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[last_of_equals]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last_of_equals + 1)) / hits[-1])
