"""Which layers of a network learn in a phase, and in which arithmetic they compute."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from converters.errors import InputError
from edge_cv.recipe import Phase

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextlib.contextmanager
def learning(network: keras.Model, phase: Phase) -> Iterator[None]:
    """Within it only the layers of the phase can be trained; afterwards all are as they were.

    Raises:
        InputError: no layer has such a name, or none of those that are left has a weight.
    """
    layers = network_layers(network)
    before = [(layer, layer.trainable) for layer in layers]
    try:
        chosen = _chosen(layers, phase.train)
        for layer in layers:
            frozen_norm = phase.freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = layer in chosen and not frozen_norm
        if not network.trainable_variables:
            raise InputError(f"a phase must train at least one weight. Received: train={phase.train!r}")
        yield
    finally:
        for layer, trainable in before:
            layer.trainable = trainable


def _chosen(layers: list[keras.Layer], train: str) -> set[keras.Layer]:
    if train == "all":
        return set(layers)
    weighted = [layer for layer in layers if layer.weights]
    if train == "head":
        return {weighted[-1]} if weighted else set()
    first = next((index for index, layer in enumerate(layers) if layer.name.startswith(train)), None)
    if first is None:
        blocks = list(dict.fromkeys(layer.name.split("_")[0] for layer in weighted))
        shown = ", ".join(blocks if len(blocks) <= 30 else [*blocks[:5], "...", *blocks[-10:]])
        raise InputError(f"train must be all, head, or the beginning of a layer's name ({shown}). Received: {train!r}")
    return set(layers[first:])


def network_layers(network: keras.Model) -> list[keras.Layer]:
    """The layers that are no networks themselves, from the input to the logits."""
    flat: list[keras.Layer] = []
    for layer in network.layers:
        flat += network_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return flat


@contextlib.contextmanager
def batch_norm_momentum(network: keras.Model, momentum: float | None) -> Iterator[None]:
    """Within it batch normalization's statistics move with this momentum; None changes nothing."""
    layers = [layer for layer in network_layers(network) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = layer.momentum if momentum is None else momentum
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.momentum = own


@contextlib.contextmanager
def precision(network: keras.Model, name: str) -> Iterator[None]:
    """Within it the network computes in `float32`, `bfloat16` or `float16`; its weights are float32 throughout.

    The last layer stays in float32: logits are compared and exponentiated.
    """
    layers = network_layers(network)
    before = [(layer, layer.dtype_policy) for layer in layers]
    try:
        if name != "float32":
            for layer in layers[:-1]:
                layer.dtype_policy = POLICIES[name]
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy
