"""How an artifact does where a photo may show several classes: average precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MultiLabel:
    """Average precision class by class.

    A class's photos are ranked by the artifact's score for it; its average precision is the sum over the ranks n of
    `(R_n - R_(n-1)) P_n`, with recall R and precision P among the first n and photos of equal scores taken together,
    without interpolation, as scikit-learn has it.

    Attributes:
        images: photos.
        mean_average_precision: over the classes that at least one photo shows; 0..1.
        names: those classes.
        positives: photos that show each.
        average_precision: of each, 0..1. Chance gives the share of its photos.
    """

    images: int
    mean_average_precision: float
    names: tuple[str, ...]
    positives: tuple[int, ...]
    average_precision: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.positives) == len(self.average_precision):
            raise InputError(f"each of the {len(self.names)} classes must have its photos and its average precision")


def multi_label(truth: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> MultiLabel | None:
    """Average precision of every class.

    Args:
        truth: which photo shows which class, bool `(photos, classes)`.
        scores: the artifact's outputs of that shape: logits or probabilities, only their order counts.
        names: of the classes.

    Returns:
        The figures; None where no photo shows any class.
    """
    import numpy as np

    there = np.flatnonzero(truth.any(axis=0))
    if not len(there):
        return None
    precisions = [_average_precision(truth[:, index], scores[:, index]) for index in there]
    return MultiLabel(
        images=len(truth),
        mean_average_precision=float(np.mean(precisions)),
        names=tuple(names[index] for index in there),
        positives=tuple(truth[:, there].sum(axis=0).tolist()),
        average_precision=tuple(precisions),
    )


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[last_of_equals]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (last_of_equals + 1)) / hits[-1])
