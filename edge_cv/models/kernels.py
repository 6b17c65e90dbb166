"""The kernels of a network: the weights that its layers multiply with activations.

Biases and the weights of normalization layers are not kernels. Counting MACs, pruning, clustering and channel pruning
all use this list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras


class Kernel(NamedTuple):
    """A kernel of a kind of layer.

    Attributes:
        attribute: its name in Keras 3.
        depthwise: whether the filters apply to single channels instead of combining all channels.
    """

    attribute: str
    depthwise: bool = False


KERNELS = {
    "Conv2D": (Kernel("kernel"),),
    "DepthwiseConv2D": (Kernel("kernel", depthwise=True),),
    "SeparableConv2D": (Kernel("depthwise_kernel", depthwise=True), Kernel("pointwise_kernel")),
    "Dense": (Kernel("kernel"),),
}


def kernels(layer: keras.Layer) -> tuple[keras.Variable, ...]:
    """All kernels of a layer, depthwise ones included; empty for a layer without."""
    return tuple(getattr(layer, kernel.attribute) for kernel in KERNELS.get(type(layer).__name__, ()))


def combining_kernel(layer: keras.Layer) -> keras.Variable | None:
    """The kernel of a layer that combines input channels, `(..., inputs, outputs)`; None for a layer without."""
    for kernel in KERNELS.get(type(layer).__name__, ()):
        if not kernel.depthwise:
            return getattr(layer, kernel.attribute)
    return None
