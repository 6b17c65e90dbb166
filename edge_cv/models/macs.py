"""How much arithmetic a Keras model does for one image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

# The weights that are multiplied with each position of the output, by the layer's class. Biases, normalization,
# activations and pooling are not counted, as in the papers.
KERNELS = {
    "Conv2D": ("kernel",),
    "DepthwiseConv2D": ("kernel",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel"),
    "Dense": ("kernel",),
}


def count_macs(model: keras.Model) -> int:
    """The multiply-accumulates of one image, in the convolutions and dense layers.

    Args:
        model: a built model, functional or Sequential (nested ones too), of fixed input size.

    Returns:
        The number for one image; grouped convolutions count only the channels that they connect.

    Raises:
        InputError: when the model has a layer that this count does not cover, is used twice, or has no fixed size.
    """
    return sum(_layer_macs(layer) for layer in _layers(model))


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers(layer)
        else:
            yield layer


def _layer_macs(layer: keras.Layer) -> int:
    kind = type(layer).__name__
    if kind not in KERNELS:
        if any(len(weight.shape) > 1 for weight in layer.weights):
            raise InputError(
                f"MACs can be counted for the layers {', '.join(KERNELS)} and those without a kernel. "
                f"Received: {kind} (layer {layer.name!r})"
            )
        return 0
    if len(layer._inbound_nodes) != 1:  # Keras has no public count; `layer.output` is the first call's alone
        raise InputError(
            f"MACs can be counted for layers that are used once. Received: layer {layer.name!r}, "
            f"used {len(layer._inbound_nodes)} times"
        )
    shape = layer.output.shape
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        raise InputError(f"MACs can be counted for a fixed input size. Received: layer {layer.name!r} gives {shape}")
    return math.prod(positions) * sum(math.prod(getattr(layer, kernel).shape) for kernel in KERNELS[kind])
