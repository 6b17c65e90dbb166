"""How much a model's outputs depend on each channel, measured on training images.

Importance Estimation for Neural Network Pruning, Molchanov et al. 2019, https://arxiv.org/abs/1906.10771

A channel that becomes zero changes the outputs, to first order, by the derivative with respect to a factor of 1 on that
channel. The factor stands at the inputs of the layers that read the channel, so that batch normalization and residuals
need no special case. The outputs' squared change is summed over images and classes in one backward pass: each output
gets a random sign, and in the square the products of different outputs cancel out on average.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_cv.compression.channel_graph import ChannelGraph
from edge_cv.models.kernels import combining_kernel

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches

PASSES = 32  # backward passes, one a batch
SEED = 0


def channel_sensitivity(model: keras.Model, graph: ChannelGraph, batches: Batches) -> np.ndarray:
    """The mean squared change of a model's outputs when a channel becomes zero, to first order.

    Args:
        model: a Keras 3 model.
        graph: its dependent channels.
        batches: training images.

    Returns:
        float `(channels,)`, at the roots of `graph`.
    """
    layers = [layer for layer in graph.layers.values() if combining_kernel(layer.operation) is not None]
    kernels = [combining_kernel(layer.operation) for layer in layers]
    roots = [graph.roots(_read_channels(layer)) for layer in layers]
    rng = np.random.default_rng(SEED)
    gradients = _gradients(model, kernels)
    total, images_seen = np.zeros(graph.size), 0
    every = itertools.chain.from_iterable(batches.epoch(epoch) for epoch in range(PASSES))
    for images, _ in itertools.islice(every, PASSES):
        signs = rng.choice([-1.0, 1.0], (len(images), model.outputs[0].shape[-1])).astype(np.float32)
        change = np.zeros(graph.size)
        for kernel, gradient, channels in zip(
            kernels, gradients(np.asarray(images, np.float32), signs), roots, strict=True
        ):
            np.add.at(change, channels, _by_input(np.asarray(kernel) * np.asarray(gradient), len(channels)))
        total += change**2
        images_seen += len(images)
    return total / max(images_seen, 1)


def _read_channels(layer: Any) -> np.ndarray:
    """The channel of each input of a layer's combining kernel."""
    return np.repeat(layer.inputs, getattr(layer.operation, "depth_multiplier", 1))


def _by_input(products: np.ndarray, inputs: int) -> np.ndarray:
    """The sums of a kernel's products `(..., inputs of a group, outputs)` over all that belongs to one input."""
    products = products.reshape(-1, *products.shape[-2:]).sum(0)
    groups = inputs // products.shape[0]
    return products.reshape(products.shape[0], groups, -1).sum(2).T.reshape(-1)


def _gradients(model: keras.Model, kernels: list[Any]) -> Any:
    """A function of images and signs: the gradients of the signed sum of the outputs."""
    import keras

    if keras.backend.backend() == "jax":
        return functools.partial(_jax_gradients(model, kernels), [kernel.value for kernel in kernels])
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def gradients(images: Any, signs: Any) -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(images, training=False) * signs)
        return tape.gradient(total, [kernel.value for kernel in kernels])

    return gradients


def _jax_gradients(model: keras.Model, kernels: list[Any]) -> Any:
    """As `_gradients`, with the kernels' values as the first argument."""
    import jax
    import keras

    def signed_sum(values: list[Any], images: Any, signs: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(kernels, values, strict=True))):
            return (model(images, training=False) * signs).sum()

    return jax.jit(jax.grad(signed_sum))
