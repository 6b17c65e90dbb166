"""Assigns published weights to the architectures of this package: correspondence of layers, and array layouts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError

if TYPE_CHECKING:
    import keras

HEAD = "logits"  # the name of the layer that depends on the number of classes

_BLOCK_PARTS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_OUTER_PARTS = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1", HEAD: "_fc"}


def clear_head(model: keras.Model) -> None:
    """Set a new head on pretrained features to zeros: every class is then equally likely, and no feature is disturbed.

    A random head of few classes starts far above the loss of chance. For ten classes on EfficientNet's 1,280 features
    its first loss is 4.4 where chance has 2.3.
    """
    head = model.get_layer(HEAD)
    head.set_weights([np.zeros(w.shape, np.float32) for w in head.weights])


def assign_torch_efficientnet(model: keras.Model, arrays: Mapping[str, np.ndarray], *, head: bool) -> None:
    """Assign a state dictionary of efficientnet-pytorch to an EfficientNet of this package, by name.

    Args:
        model: the EfficientNet.
        arrays: the state dictionary, see `read_torch`. Every array must be used, except `num_batches_tracked`.
        head: whether to assign the last layer.

    Raises:
        InputError: if an array is missing, not used, or of another shape.
    """
    left = {name for name in arrays if not name.endswith(".num_batches_tracked")}
    blocks: dict[str, int] = {}  # "block3b" corresponds to "_blocks.4": torch numbers blocks through all stages
    for layer in model.layers:
        if not layer.weights:
            continue
        block = re.match(r"(block\d+[a-z]+)_(.+)", layer.name)
        if block:
            prefix = f"_blocks.{blocks.setdefault(block[1], len(blocks))}.{_BLOCK_PARTS[block[2]]}"
        else:
            prefix = _OUTER_PARTS[layer.name]
        names = [f"{prefix}.{part}" for part in _torch_parts(layer)]
        if not left.issuperset(names):
            missing = ", ".join(name for name in names if name not in left)
            raise InputError(
                f"the weights must contain {', '.join(names)} for the layer {layer.name!r}. Received: no {missing}"
            )
        left.difference_update(names)
        if layer.name != HEAD or head:
            _assign(layer, [_from_torch(layer, arrays[name]) for name in names])
    if left:
        raise InputError(f"the weights must fit {model.name}. Received: {len(left)} unused arrays, such as {min(left)}")


_ALEXNET_PARTS = {
    **{f"conv{number}": f"features.{index}" for number, index in enumerate((0, 3, 6, 8, 10), 1)},
    "dense6": "classifier.1",
    "dense7": "classifier.4",
    HEAD: "classifier.6",
}


def assign_torch_alexnet(model: keras.Model, arrays: Mapping[str, np.ndarray], *, head: bool) -> None:
    """Assign a state dictionary of torchvision's AlexNet to the `alexnet` of this package, by name.

    Torch flattens the last feature map channel by channel, Keras position by position. The inputs of the first dense
    layer are reordered accordingly.

    Args:
        model: an `alexnet` without normalization layers.
        arrays: the state dictionary, see `read_torch`. Every array must be used.
        head: whether to assign the last layer.

    Raises:
        InputError: if an array is missing, not used, or of another shape.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    sources = {name: [f"{prefix}.{part}" for part in ("weight", "bias")] for name, prefix in _ALEXNET_PARTS.items()}
    if layers.keys() != sources.keys():
        raise InputError(f"the weights fit the layers {', '.join(sources)}. Received: {', '.join(layers)}")
    if arrays.keys() != {name for names in sources.values() for name in names}:
        raise InputError(f"the weights must be those of torchvision's AlexNet. Received: {', '.join(arrays)[:200]}")
    for name, names in sources.items():
        if name == HEAD and not head:
            continue
        kernel, bias = (arrays[source] for source in names)
        if name == "dense6":
            height, width, channels = model.get_layer("flatten").input.shape[1:]
            if kernel.shape[1:] == (height * width * channels,):
                kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(kernel.shape)
        _assign(layers[name], [_from_torch(layers[name], kernel), bias])


def _torch_parts(layer: keras.Layer) -> tuple[str, ...]:
    """Torch's names of a layer's arrays, in Keras's order."""
    if type(layer).__name__ == "BatchNormalization":
        return ("weight", "bias", "running_mean", "running_var")
    return ("weight", "bias") if layer.use_bias else ("weight",)


def _from_torch(layer: keras.Layer, array: np.ndarray) -> np.ndarray:
    """The array in Keras's layout: OIHW -> HWIO, depthwise (C,1,H,W) -> (H,W,C,1), dense (out,in) -> (in,out)."""
    if array.ndim == 4:
        return array.transpose(2, 3, 0, 1) if type(layer).__name__ == "DepthwiseConv2D" else array.transpose(2, 3, 1, 0)
    return array.T


def _assign(layer: keras.Layer, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(layer.weights, arrays, strict=True):
        if tuple(variable.shape) != array.shape:
            raise InputError(
                f"{variable.name} of the layer {layer.name!r} must have the shape {tuple(variable.shape)}. "
                f"Received: {array.shape}"
            )
        variable.assign(array)


def assign_keras(model: keras.Model, layers: Sequence[tuple[str, list[np.ndarray]]], *, head: bool) -> None:
    """Assign the layers of a keras.applications network to the corresponding network of this package, in order.

    The kernel of a 1 x 1 convolution may become that of a dense layer. A Normalization layer must be equivalent to the
    model's own normalization of pixels.

    Args:
        model: the network.
        layers: names and arrays, see `read_keras`. Every layer must be used.
        head: whether to assign the last layer.

    Raises:
        InputError: if a layer is missing, not used, or of another kind or shape.
    """
    layers = list(layers)
    if layers and layers[0][0].startswith("normalization"):
        _check_normalization(model, layers.pop(0)[1])
    targets = [layer for layer in model.layers if layer.weights]
    if [len(layer.weights) for layer in targets] != [len(arrays) for _, arrays in layers]:
        raise InputError(
            f"the weights must fit {model.name} of {len(targets)} layers with weights. Received: {len(layers)} layers"
        )
    for layer, (_, arrays) in zip(targets, layers, strict=True):
        if layer.name != HEAD or head:
            _assign(layer, [_dense(array, variable) for array, variable in zip(arrays, layer.weights, strict=True)])


def _dense(array: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """The array, with the kernel of a 1 x 1 convolution reshaped if the variable is the kernel of a dense layer."""
    return array[0, 0] if array.ndim == 4 and len(variable.shape) == 2 and array.shape[:2] == (1, 1) else array


def _check_normalization(model: keras.Model, arrays: list[np.ndarray]) -> None:
    """Compare the means and variances of a Normalization layer with the model's Rescaling.

    The published EfficientNets store deviations in the place of variances, and keras.applications divides by their
    root: https://github.com/tensorflow/tensorflow/issues/49930
    """
    rescaling = model.get_layer("normalize")
    deviation = 1 / 255 / np.asarray(rescaling.scale)
    mean = -np.asarray(rescaling.offset) * deviation
    stored = [np.ravel(array) for array in arrays[:2]]
    if not np.allclose(stored[0], mean, atol=1e-3) or not any(
        np.allclose(stored[1], variance, atol=1e-3) for variance in (deviation, deviation**2)
    ):
        raise InputError(
            f"the weights must come from a network that normalizes with the mean {mean.round(3).tolist()} and the "
            f"deviation {deviation.round(3).tolist()}. Received: the mean {stored[0].tolist()}, the variance "
            f"{stored[1].tolist()}"
        )
