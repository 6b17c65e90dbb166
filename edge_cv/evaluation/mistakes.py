"""How far off wrong answers are: a dog taken for another breed is not a dog taken for a fire engine.

Distances are those of `edge_cv.data.wordnet.hierarchy`: WordNet's, for the 1000 classes of ImageNet.
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
    """Two classes that were confused although little is common to them.

    Attributes:
        label, answer: the names of the true class and of the one that came first.
        ancestor: what both are, in WordNet's words: their lowest common ancestor.
        height: of that ancestor above the classes.
        photos: how many times.
    """

    label: str
    answer: str
    ancestor: str
    height: int
    photos: int


@dataclass(frozen=True)
class Mistakes:
    """How far the wrong answers are from the right ones.

    Attributes:
        wrong: labelled photos whose first class is not the true one.
        height: mean height of the lowest common ancestor over the wrong answers; None where none is wrong.
        steps: mean length of the way from the true class to the answer through WordNet's hypernyms.
        height_by_chance: mean height for wrong answers drawn at random from the other classes, for the same photos.
        worst: the confusions with the highest ancestors, at most 10.
    """

    wrong: int
    height: float | None
    steps: float | None
    height_by_chance: float | None
    worst: tuple[FarConfusion, ...] = ()


def mistakes(labels: np.ndarray, answers: np.ndarray, names: Sequence[str]) -> Mistakes | None:
    """The distances of wrong answers for a classifier of ImageNet's 1000 classes.

    Args:
        labels, answers: as `class_scores` takes them.
        names: of the 1000 classes.

    Returns:
        The figures; None where no photo has a label.
    """
    from edge_cv.data.wordnet.hierarchy import imagenet_hierarchy

    if not (labels >= 0).any():
        return None
    wrong = (labels >= 0) & (labels != answers)
    if not wrong.any():
        return Mistakes(0, None, None, None)
    tree = imagenet_hierarchy()
    to_others = tree.height[labels[wrong]].sum(axis=1) / (len(names) - 1)  # the class itself adds 0
    pairs = sorted(confused_pairs(labels, answers), key=lambda pair: -int(tree.height[pair[:2]]))
    return Mistakes(
        wrong=int(wrong.sum()),
        height=float(tree.height[labels[wrong], answers[wrong]].mean()),
        steps=float(tree.steps[labels[wrong], answers[wrong]].mean()),
        height_by_chance=float(to_others.mean()),
        worst=tuple(
            FarConfusion(
                names[label],
                names[answer],
                tree.names[tree.ancestor[label, answer]],
                int(tree.height[label, answer]),
                count,
            )
            for label, answer, count in pairs[:WORST]
        ),
    )
