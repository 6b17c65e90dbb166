"""Severity of wrong predictions: confusing two breeds of dogs is a smaller mistake than a dog and a fire engine.

Distances are those in WordNet's hierarchy of ImageNet's 1000 classes (`edge_cv.data.wordnet.hierarchy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_cv.evaluation.per_class import confused_pairs

if TYPE_CHECKING:
    import numpy as np

WORST = 10


@dataclass(frozen=True)
class FarConfusion:
    """A confusion of two distant classes.

    Attributes:
        label, answer: names of the true and of the predicted class.
        ancestor: name of their lowest common ancestor in WordNet.
        height: height of that ancestor above the classes.
        photos: images of `label` for which `answer` is predicted.
    """

    label: str
    answer: str
    ancestor: str
    height: int
    photos: int


@dataclass(frozen=True)
class Mistakes:
    """Distances of the wrong predictions from the true classes.

    Attributes:
        wrong: labelled images with a wrong first class.
        height: mean height of the lowest common ancestor over the wrong predictions; None without any.
        steps: mean length of the path from the true to the predicted class through WordNet's hypernyms.
        height_by_chance: mean height for classes drawn at random from all wrong ones, for the same images.
        worst: the confusions with the highest ancestors, at most 10.
    """

    wrong: int
    height: float | None
    steps: float | None
    height_by_chance: float | None
    worst: tuple[FarConfusion, ...] = ()


def mistakes(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> Mistakes | None:
    """The distances of the wrong predictions of a classifier of ImageNet's 1000 classes.

    Args:
        labels, predicted: as in `class_scores`.
        names: of the 1000 classes.

    Returns:
        The figures; None if no image has a label.
    """
    from edge_cv.data.wordnet.hierarchy import imagenet_hierarchy

    if not (labels >= 0).any():
        return None
    wrong = (labels >= 0) & (labels != predicted)
    if not wrong.any():
        return Mistakes(0, None, None, None)
    tree = imagenet_hierarchy()
    to_others = tree.height[labels[wrong]].sum(axis=1) / (len(names) - 1)  # the class itself adds 0
    pairs = sorted(confused_pairs(labels, predicted), key=lambda pair: -int(tree.height[pair[:2]]))
    return Mistakes(
        wrong=int(wrong.sum()),
        height=float(tree.height[labels[wrong], predicted[wrong]].mean()),
        steps=float(tree.steps[labels[wrong], predicted[wrong]].mean()),
        height_by_chance=float(to_others.mean()),
        worst=tuple(
            FarConfusion(
                names[label],
                names[other],
                tree.names[tree.ancestor[label, other]],
                int(tree.height[label, other]),
                count,
            )
            for label, other, count in pairs[:WORST]
        ),
    )
