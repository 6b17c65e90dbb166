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


# Of keras.applications: the last layer that is kept, where all that follow repeat the kinds before it.
_LAST = {"DenseNet121": "conv3_block2_concat", "EfficientNetV2B0": "block4b_add", "ResNet50": "conv3_block2_out"}


def application(name: str) -> keras.Model:
    """A network of keras.applications of ten classes for images of 96 pixels, with random weights."""
    import keras

    whole = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(96, 96, 3))
    features = whole.get_layer(_LAST[name]).output if name in _LAST else whole.output
    logits = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(whole.input, logits, name=name.lower())


def small(name: str) -> keras.Model:
    """A network of ten classes at a small size."""
    return models.build(name, classes=10, **_SMALL.get(name, {"image_size": 64}))
