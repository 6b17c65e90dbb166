"""Distances between the 1000 classes of ImageNet-1k in WordNet's hierarchy.

hypernyms.tsv is a part of WordNet 3.0 (https://wordnet.princeton.edu); wnids are its synsets. Its license and the
script that made it are beside it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cv.data.labels import imagenet_labels

if TYPE_CHECKING:
    import numpy as np

_TABLE = Path(__file__).with_name("hypernyms.tsv")


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Distances between the 1000 classes, in both usual measures.

    The height of a synset is the length of the longest path down to a class; a class has height 0. Of several common
    hypernyms of two classes (a synset may have two parents), the lowest is used. The height of the lowest common
    ancestor is the hierarchical error of the ImageNet challenge (Deng et al. 2010, What does classifying more than
    10,000 image categories tell us?, ECCV; Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575).

    Attributes:
        height: of the lowest common ancestor, in steps, int8 `(1000, 1000)`; 0 on the diagonal.
        steps: the length of the shortest path from one class up to a common hypernym and down to the other, int8
            `(1000, 1000)`.
        ancestor: the lowest common ancestor, an index into `names`, int16 `(1000, 1000)`.
        names: the first name of each synset.
    """

    height: np.ndarray
    steps: np.ndarray
    ancestor: np.ndarray
    names: tuple[str, ...]


@functools.cache
def imagenet_hierarchy() -> Hierarchy:
    """The hierarchy; computed in about a second and cached."""
    import numpy as np

    rows = [line.split("\t") for line in _TABLE.read_text(encoding="utf-8").splitlines()]
    parents = {wnid: tuple(above) for wnid, _, *above in rows}
    places = {wnid: place for place, wnid in enumerate(parents)}
    classes = [label.wnid for label in imagenet_labels()]
    height: dict[str, int] = dict.fromkeys(classes, 0)
    up: dict[str, dict[int, int]] = {wnid: {} for wnid in parents}  # the steps to it from each class below
    for index, wnid in enumerate(classes):
        level, steps = {wnid}, 0
        while level:
            for synset in level:
                height[synset] = max(height.get(synset, 0), steps)  # a synset recurs on longer paths
                up[synset].setdefault(index, steps)
            level, steps = {parent for synset in level for parent in parents[synset]}, steps + 1
    shape = len(classes), len(classes)
    heights, ancestors = np.zeros(shape, np.int8), np.zeros(shape, np.int16)
    distances = np.full(shape, 127, np.int8)
    for wnid in sorted(parents, key=lambda wnid: -height[wnid]):  # a lower ancestor overwrites a higher one
        below = np.fromiter(up[wnid], int)
        paths = np.fromiter(up[wnid].values(), np.int8)
        block = np.ix_(below, below)
        heights[block], ancestors[block] = height[wnid], places[wnid]
        distances[block] = np.minimum(distances[block], paths[:, None] + paths)
    return Hierarchy(heights, distances, ancestors, tuple(name for _, name, *_ in rows))
