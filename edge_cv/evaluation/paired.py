"""Two models on the same images: how many images only one of them classifies correctly, and an exact test of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_cv.evaluation.predictions import Predictions


@dataclass(frozen=True)
class PairedAccuracy:
    """The accuracy of a model against that of a reference on the same labelled images.

    Attributes:
        images: labelled images.
        hits, reference_hits: images whose first class is right, of the model and of the reference.
        lost: images that only the reference classifies correctly.
        gained: images that only the model classifies correctly.
        p: two-sided p-value of McNemar's exact test: how likely chance alone makes such a difference. McNemar (1947),
            Note on the sampling error of the difference between correlated proportions, Psychometrika 12.
    """

    images: int
    hits: int
    reference_hits: int
    lost: int
    gained: int
    p: float

    @property
    def drop(self) -> float:
        """The reference's top-1 minus the model's, -1..1."""
        return (self.lost - self.gained) / self.images


def paired_accuracy(predictions: Predictions, name: str, reference: str) -> PairedAccuracy | None:
    """Compare a model with a reference.

    Args:
        predictions: of both, with one label for each image.
        name, reference: the models' names in `predictions`.

    Returns:
        The comparison; None if no image has a label, or images may have several.
    """
    labelled = predictions.labels >= 0
    images = int(labelled.sum())
    if predictions.truth is not None or not images:
        return None
    right, wanted = (
        predictions.top1(model)[0][labelled] == predictions.labels[labelled] for model in (name, reference)
    )
    lost, gained = int((wanted & ~right).sum()), int((right & ~wanted).sum())
    return PairedAccuracy(images, int(right.sum()), int(wanted.sum()), lost, gained, sign_test(lost, gained))


def sign_test(one: int, other: int) -> float:
    """Two-sided p-value of the exact sign test of two counts, 0..1; 1 where both are 0."""
    from scipy.stats import binomtest

    return float(binomtest(one, one + other, 0.5).pvalue) if one + other else 1.0
