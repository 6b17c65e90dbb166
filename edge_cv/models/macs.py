"""Number of multiply-accumulates (MACs) of a Keras model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from converters.errors import InputError
from edge_cv.models.kernels import KERNELS, kernels

if TYPE_CHECKING:
    import keras


def count_macs(model: keras.Model) -> int:
    """Count the multiply-accumulates of the convolutions and dense layers for one image.

    As in the papers, biases, normalization, activations and pooling are not counted.

    Args:
        model: a built functional or Sequential model of fixed input size. Models inside it are included.

    Returns:
        The number of MACs. Grouped convolutions count only the channels that they connect.

    Raises:
        InputError: if a layer has weights of an unknown kind, is used twice, or has an output of variable size.
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
    if len(layer._inbound_nodes) != 1:  # Keras has no public count; `layer.output` covers one call only
        raise InputError(
            f"MACs can be counted for layers that are called once. Received: layer {layer.name!r}, "
            f"called {len(layer._inbound_nodes)} times"
        )
    shape = layer.output.shape
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        raise InputError(
            f"MACs can be counted for a fixed input size. Received: layer {layer.name!r} of output shape {shape}"
        )
    return math.prod(positions) * sum(math.prod(kernel.shape) for kernel in kernels(layer))
