"""The networks that tests of every kind of network use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_cv import models

if TYPE_CHECKING:
    import keras

# One scaling of each family of EfficientNet: the others have the same blocks, only more or fewer of them.
_SAME = {*(f"efficientnet_b{n}" for n in range(1, 8)), *(f"efficientnet_lite{n}" for n in range(1, 5))}
DIFFERENT = tuple(name for name in models.names() if name not in _SAME)

_SMALL = {"alexnet": {"image_size": 63, "alpha": 0.25}, "alexnet_2012": {"image_size": 67, "alpha": 0.25}}


def small(name: str) -> keras.Model:
    """A network of ten classes at a small size."""
    return models.build(name, classes=10, **_SMALL.get(name, {"image_size": 64}))
