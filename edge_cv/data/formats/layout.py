"""What a layout is: the parts that a source of photos is made of, each of which can be opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_cv.data.samples import Samples

# Opens one part. It is given the class names in order that the caller wants, or none for the source's own, or None for
# ImageNet's where the names are ImageNet's and else the source's own.
Open = Callable[[Sequence[str] | None], Samples]

# What a folder or a file's name may call a split.
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
    """A source that was recognised.

    Attributes:
        splits: what the source itself divides its images into.
        whole: all of it, where that means something; a source with neither splits nor more than one class is whole.
    """

    splits: Mapping[str, Open] = field(default_factory=dict)
    whole: Open | None = None
