"""The networks that tests of every kind of network use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_cv import models

if TYPE_CHECKING:
    import keras

# Variants between the shallowest and the deepest of a family: the same blocks, repeated less often than in the deepest.
_BETWEEN = {*(f"efficientnet_b{n}" for n in range(1, 7)), *(f"efficientnet_lite{n}" for n in range(1, 4))}
DIFFERENT = tuple(name for name in models.names() if name not in _BETWEEN)

_SMALL = {"alexnet": {"image_size": 63, "alpha": 0.25}, "alexnet_2012": {"image_size": 67, "alpha": 0.25}}


def small(name: str) -> keras.Model:
    """A network of ten classes at a small size."""
    return models.build(name, classes=10, **_SMALL.get(name, {"image_size": 64}))
