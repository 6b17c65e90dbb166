"""Previous names of the parts. They will be removed in the next release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edge_cv.recipe.compression import FineTuning, WeightClustering
from edge_cv.recipe.device import TargetDevice
from edge_cv.recipe.evaluation import Analysis
from edge_cv.recipe.fields import Part, warn_renamed

PartT = TypeVar("PartT", bound=Part)


def _previous_name(name: str, part: type[PartT]) -> Callable[..., PartT]:
    def make(*args: Any, **kwargs: Any) -> PartT:
        warn_renamed(name, part.__name__, stacklevel=2)
        return part(*args, **{part.renamed.get(field, field): value for field, value in kwargs.items()})

    make.__name__ = make.__qualname__ = name
    return make


Cluster = _previous_name("Cluster", WeightClustering)
Device = _previous_name("Device", TargetDevice)
Explain = _previous_name("Explain", Analysis)
Tuning = _previous_name("Tuning", FineTuning)
