"""Settings of a network's layers during a phase: which ones are trained, their momentum and their precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from converters.errors import InputError
from edge_cv.recipe import Phase

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@contextlib.contextmanager
def trainable_layers(network: keras.Model, phase: Phase) -> Iterator[None]:
    """Context in which only the layers of a phase are trainable. Afterwards each layer is as before.

    Args:
        network: the model; layers of models inside it count as its own.
        phase: `train` selects the layers, `freeze_batch_norm` excludes batch normalization.

    Raises:
        InputError: if no layer has the name that `phase.train` gives, or the selected layers have no weights.
    """
    layers = network_layers(network)
    before = [(layer, layer.trainable) for layer in layers]
    try:
        selected = _select(layers, phase.train)
        for layer in layers:
            frozen_norm = phase.freeze_batch_norm and isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = layer in selected and not frozen_norm
        if not network.trainable_variables:
            raise InputError(f"a phase must train at least one weight. Received: train={phase.train!r}")
        yield
    finally:
        for layer, trainable in before:
            layer.trainable = trainable


def _select(layers: list[keras.Layer], train: str) -> set[keras.Layer]:
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


@contextlib.contextmanager
def untrained(teacher: keras.Model | None) -> Iterator[None]:
    """Context in which a teacher may be set to not trainable. Afterwards each layer is as before."""
    layers = [] if teacher is None else [teacher, *network_layers(teacher)]
    before = [(layer, layer.trainable) for layer in layers]
    try:
        yield
    finally:
        for layer, trainable in before:
            layer.trainable = trainable


def network_layers(network: Any) -> list[keras.Layer]:
    """The layers from the input to the logits. A model, or another layer of layers, is replaced by its layers."""
    flat: list[keras.Layer] = []
    for layer in network.layers:
        flat += network_layers(layer) if hasattr(layer, "layers") else [layer]
    return flat


@contextlib.contextmanager
def batch_norm_momentum(network: keras.Model, momentum: float | None) -> Iterator[None]:
    """Context in which batch normalization uses this momentum for its statistics; None changes nothing."""
    layers = [layer for layer in network_layers(network) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = layer.momentum if momentum is None else momentum
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.momentum = value


@contextlib.contextmanager
def precision(network: keras.Model, name: str) -> Iterator[None]:
    """Context in which the network computes in `float32`, `bfloat16` or `float16`. Its weights stay float32.

    The last layer always computes in float32, because the loss takes the exponential of the logits.
    """
    layers = network_layers(network)
    before = [(layer, layer.dtype_policy) for layer in layers]
    try:
        if name != "float32":
            for layer in layers[:-1]:
                if layer.autocast:  # others compute in float32 on purpose
                    layer.dtype_policy = POLICIES[name]
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy
