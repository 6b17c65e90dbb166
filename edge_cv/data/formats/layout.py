"""`Layout`: the splits of a source of images, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_cv.data.samples import Samples

# Opens one split. The argument is the class names in order; empty for the source's own classes; None for ImageNet's
# where the source's names are ImageNet's, else the source's own.
Open = Callable[[Sequence[str] | None], Samples]

# The splits that folder and file names stand for.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "calibration": "calibration",
}


@dataclass(frozen=True)
class Layout:
    """A recognized source of images.

    Attributes:
        splits: the source's own splits.
        whole: opens all images at once; None where only the splits can be opened.
    """

    splits: Mapping[str, Open] = field(default_factory=dict)
    whole: Open | None = None
