"""Rebuilds a model without some of its channels, in every layer that reads or computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_cv.compression.channel_graph import ChannelGraph, LayerChannels
from edge_cv.compression.keras_graph import functional_form, walk

if TYPE_CHECKING:
    import keras


def without_channels(model: keras.Model, graph: ChannelGraph, removed: np.ndarray) -> keras.Model:
    """Build a new model without the removed channels and their weights.

    Args:
        model: a Keras 3 model; it is not changed.
        graph: its dependent channels.
        removed: bool `(channels,)`, true for the roots of the channels to remove.

    Returns:
        The smaller model, with the same layer names.
    """
    import keras

    form = functional_form(model)

    def rebuild(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer = graph.layers[name]
        inputs, outputs = (graph.kept_positions(channels, removed) for channels in (layer.inputs, layer.outputs))
        config = operation.get_config() | _changed_config(layer, inputs, outputs)
        if isinstance(operation, keras.layers.Layer):
            config["name"] = name
        smaller = type(operation).from_config(config)
        result = smaller(*args, **kwargs)
        if getattr(operation, "weights", None):
            smaller.set_weights(_kept_weights(layer, inputs, outputs))
        return result

    inputs = [keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name) for tensor in form.inputs]
    smaller = keras.Model(inputs[0], walk(model, inputs, rebuild)[0], name=model.name)
    if hasattr(model, "preprocessing"):
        smaller.preprocessing = model.preprocessing
    return smaller


def _changed_config(layer: LayerChannels, inputs: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
    """The options of an operation that change when these positions of its inputs and outputs are kept."""
    operation, kind = layer.operation, layer.kind
    if kind in ("Conv2D", "SeparableConv2D"):
        return {"filters": len(outputs)}
    if kind == "Dense":
        return {"units": len(outputs)}
    if kind == "Reshape":
        return {"target_shape": (*operation.target_shape[:-1], len(outputs))}
    if kind == "Rescaling":
        return {
            key: np.asarray(value).reshape(-1)[inputs].tolist() if np.size(value) == len(layer.inputs) > 1 else value
            for key, value in (("scale", operation.scale), ("offset", operation.offset))
        }
    if kind == "Cropping2D" and operation.data_format == "channels_first":
        start, end = operation.cropping[1][0], len(layer.inputs) - operation.cropping[1][1]
        before, after = np.count_nonzero(inputs < start), np.count_nonzero(inputs >= end)
        return {"cropping": (operation.cropping[0], (int(before), int(after)))}
    return {}


def _kept_weights(layer: LayerChannels, inputs: np.ndarray, outputs: np.ndarray) -> list[np.ndarray]:
    """The weights of the kept positions, in the layer's order."""
    operation, kind = layer.operation, layer.kind
    weights = operation.get_weights()
    if kind == "Conv2D":
        first_group = inputs[inputs < len(layer.inputs) // operation.groups]  # the other groups keep the same positions
        return [weights[0][:, :, first_group][..., outputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "Dense":
        return [weights[0][inputs][:, outputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "DepthwiseConv2D":
        return [weights[0][:, :, inputs], *(bias[outputs] for bias in weights[1:])]
    if kind == "SeparableConv2D":
        multiplier = operation.depth_multiplier
        between = (inputs[:, None] * multiplier + np.arange(multiplier)).reshape(-1)
        depthwise, pointwise, *bias = weights
        return [depthwise[:, :, inputs], pointwise[:, :, between][..., outputs], *(values[outputs] for values in bias)]
    return [weight[..., inputs] if weight.shape[-1:] == (len(layer.inputs),) else weight for weight in weights]
