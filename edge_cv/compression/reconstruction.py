"""Layer-wise reconstruction: after weights or channels were removed, least squares give the others new values.

The compressed network is walked layer by layer beside the dense one, on training images. At each layer both the
compressed network's input, with its accumulated error, and the dense layer's output are known. For each layer:

1. Draw patches x of the compressed layer's input, and the dense layer's outputs y at the same places, both without
   their means.
2. Take H = x^T x / n, add the damping to its diagonal, and solve H w = x^T y / n for the weights that remain. The
   damping draws them to the values that they have.
   A layer with one sample an image that lost nothing keeps its weights: it would learn the images by heart.
3. Set the bias, or the mean of the batch normalization behind it, so that each channel's mean is the dense layer's.

A few photos are enough: each has many places, and a layer has few weights for each output. Fine-tuning on labels alone
learns such photos by heart and does not bring back the features that were lost.

Channel Pruning for Accelerating Very Deep Neural Networks, He et al. 2017, https://arxiv.org/abs/1707.06168;
Optimal Brain Compression, Frantar et al. 2022, https://arxiv.org/abs/2208.11580
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import ThreadpoolController

from converters.quantization.layers import Dequantizer, Geometry
from edge_cv.compression.keras_graph import leaf_layers, walk
from edge_cv.progress import silent

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress

IMAGES = 256  # at most, of the first epochs: augmented copies of few photos are other patches
MOST_BYTES = 2**28  # of the largest activation on all images; up to about eight of that size are in memory
BATCH = 32  # images that a layer computes together
# Patches for each value of a patch, within these limits.
PATCHES_PER_VALUE, LEAST_PATCHES, MOST_PATCHES = 16, 2048, 16384
MOST_VALUES = 4800  # of a patch; a layer with larger ones keeps its weights: too slow
DAMPING = 0.05  # of the mean variance of a layer's inputs


def reconstruct(
    model: keras.Model,
    dense: keras.Model,
    batches: Batches,
    *,
    kept: Mapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> None:
    """Give the remaining weights of a compressed model the values that best restore the outputs of the dense layers.

    Weights that are zero stay zero. Depthwise filters, biases and the means of batch normalization change too.

    Args:
        model: a Keras 3 model, changed in place.
        dense: the model before its weights or channels were removed, with the same layers.
        batches: training images.
        kept: for each layer of the dense model the positions of the outputs that `model` has; None is all of them.
        progress: reports the layers.
    """
    images, layers, calls = _images(dense, batches), leaf_layers(model), _calls(dense)
    times, made = Counter(call.name for call in calls), iter(range(1, len(calls)))

    def restored(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Activation:
        number, own, inputs = next(made), layers[name], _found(Activation, args, kwargs)
        outputs = slice(None) if kept is None else kept[name]
        if times[name] == 1 and type(own).__name__ == "BatchNormalization":
            _restore_mean(own, inputs[0], outputs)
        elif times[name] == 1:
            normalized = calls[number].normalized
            _restore_weights(own, operation, inputs[0], outputs, normalized=normalized, seed=number)
        output = Activation(
            _computed(operation, args, kwargs, "dense"), _computed(own, args, kwargs, "own"), calls[number].readers
        )
        for value in inputs:
            value.release()
        update(number, len(calls) - 1)
        return output

    with (progress or silent)("reconstructing the outputs of the dense layers") as update:
        walk(dense, [Activation(images, images, calls[0].readers)], restored)


class Call:
    """One call of an operation of the dense network, or its input.

    Attributes:
        name: of the operation.
        readers: how many operations read its output.
        normalized: whether only a batch normalization reads it.
    """

    def __init__(self, name: str) -> None:
        self.name, self.readers, self.normalized = name, 0, False


def _calls(dense: keras.Model) -> list[Call]:
    """The input and then all calls, in the order of the walk."""
    calls = [Call("")]

    def visit(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Call:
        for call in _found(Call, args, kwargs):
            call.readers += 1
            call.normalized = call.readers == 1 and type(operation).__name__ == "BatchNormalization"
        calls.append(Call(name))
        return calls[-1]

    for output in walk(dense, calls[:1], visit):
        output.readers += 1
    return calls


class Activation:
    """The values of one tensor on all images, in both networks, until the last reader has read them."""

    def __init__(self, dense: np.ndarray, own: np.ndarray, readers: int) -> None:
        self.dense, self.own, self._readers = dense, own, readers

    def release(self) -> None:
        """Forget the values after the last reader."""
        self._readers -= 1
        if self._readers <= 0:
            self.dense = self.own = np.empty(0, np.float32)


def _found(kind: type, *arguments: Any) -> list[Any]:
    import keras

    return [value for value in keras.tree.flatten(arguments) if isinstance(value, kind)]


def _computed(operation: Any, args: tuple, kwargs: dict[str, Any], field: str) -> np.ndarray:
    """An operation's output on all images, from one of the fields of the activations among its arguments."""
    import keras
    from keras import ops

    images = len(getattr(_found(Activation, args, kwargs)[0], field))
    outputs = []
    for start in range(0, images, BATCH):

        def part(value: Any, start: int = start) -> Any:
            if not isinstance(value, Activation):
                return value
            return ops.convert_to_tensor(getattr(value, field)[start : start + BATCH])

        batch_args, batch_kwargs = keras.tree.map_structure(part, (args, kwargs))
        outputs.append(ops.convert_to_numpy(operation(*batch_args, **batch_kwargs)))
    return np.concatenate(outputs)


def _restore_mean(layer: Any, inputs: Activation, outputs: np.ndarray | slice) -> None:
    """Change the mean of a batch normalization by the difference of the means of its two inputs."""
    axes = tuple(range(inputs.own.ndim - 1))
    if layer.axis in (-1, inputs.own.ndim - 1):
        layer.moving_mean.assign_add(inputs.own.mean(axes) - inputs.dense.mean(axes)[outputs])


def _restore_weights(
    layer: Any, dense: Any, inputs: Activation, outputs: np.ndarray | slice, *, normalized: bool, seed: int
) -> None:
    """Solve for the weights and the bias of a layer, steps 1 to 3 above."""
    geometry, dense_geometry = _geometry(layer, inputs.own), _geometry(dense, inputs.dense)
    if geometry is None or dense_geometry is None:
        return
    weights, dense_weights = _grouped(layer, geometry), _grouped(dense, dense_geometry)
    size = weights.shape[1]
    if size > MOST_VALUES:
        return
    count = min(max(LEAST_PATCHES, PATCHES_PER_VALUE * size), MOST_PATCHES)
    x = geometry.patches(inputs.own, count, seed, Dequantizer())
    y = np.matmul(dense_geometry.patches(inputs.dense, count, seed, Dequantizer()), dense_weights)
    y = y.transpose(1, 0, 2).reshape(y.shape[1], -1)[:, outputs]
    y = y.reshape(len(y), len(weights), -1).transpose(1, 0, 2)
    means = [values.mean(1, keepdims=True) for values in (x, y)]
    if layer.use_bias or normalized:
        x, y = x - means[0], y - means[1]
    whole = inputs.own.ndim == 2 and weights.shape == dense_weights.shape and np.all(weights)
    solved = weights if whole else solve(x, y, weights)
    layer.kernel.assign(solved.transpose(1, 0, 2).reshape(layer.kernel.shape))
    if layer.use_bias:
        bias = 0.0 if not dense.use_bias else np.asarray(dense.bias)[outputs]
        layer.bias.assign((means[1] - np.matmul(means[0], solved)).reshape(-1) + bias)


def solve(x: np.ndarray, y: np.ndarray, weights: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """The weights by which x gives y with the least mean square error; those that are zero stay zero.

    Args:
        x: inputs, `(groups, samples, patch)`.
        y: outputs, `(groups, samples, outputs / groups)`.
        weights: the present ones, `(groups, patch, outputs / groups)`.
        damping: how far the present weights are kept, as a multiple of the mean variance of the inputs.

    Returns:
        float32, shaped as `weights`.
    """
    size, transposed = x.shape[2], x.transpose(0, 2, 1)
    hessian = (np.matmul(transposed, x) / x.shape[1]).astype(np.float64)
    ridge = np.maximum(damping * np.einsum("gkk->g", hessian) / size, np.finfo(np.float32).tiny)
    hessian[:, range(size), range(size)] += ridge[:, None]
    wanted = np.matmul(transposed, y) / x.shape[1] + ridge[:, None, None] * weights
    if np.all(weights):
        return np.linalg.solve(hessian, wanted).astype(np.float32)
    solved = np.zeros(weights.shape, np.float32)
    with ThreadpoolController().limit(limits=1, user_api="blas"):  # threads would wait for each other: small systems
        for group, output in np.argwhere(weights.any(1)):
            rows = np.flatnonzero(weights[group, :, output])
            system = hessian[group][np.ix_(rows, rows)]
            solved[group, rows, output] = np.linalg.solve(system, wanted[group, rows, output])
    return solved


def _geometry(layer: Any, inputs: np.ndarray) -> Geometry | None:
    """Which inputs a layer computes each output from; None for a layer whose weights are not solved for."""
    kind = type(layer).__name__
    if kind == "Dense":
        return Geometry(1, inputs=inputs.shape[-1]) if inputs.ndim == 2 else None
    if kind not in ("Conv2D", "DepthwiseConv2D") or layer.data_format != "channels_last":
        return None
    groups = inputs.shape[-1] if kind == "DepthwiseConv2D" else layer.groups
    return Geometry(groups, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding == "same")


def _grouped(layer: Any, geometry: Geometry) -> np.ndarray:
    """The kernel as `(groups, patch, outputs / groups)`."""
    from keras import ops

    kernel = ops.convert_to_numpy(layer.kernel)
    outputs = math.prod(kernel.shape[2:]) if type(layer).__name__ == "DepthwiseConv2D" else kernel.shape[-1]
    return kernel.reshape(-1, geometry.groups, outputs // geometry.groups).transpose(1, 0, 2)


def _images(dense: keras.Model, batches: Batches) -> np.ndarray:
    """Augmented images of the first epochs, as many as the memory for activations allows."""
    largest = max((math.prod(layer.output.shape[1:]) for layer in leaf_layers(dense).values()), default=1)
    count = max(BATCH, min(IMAGES, MOST_BYTES // (4 * largest)) // BATCH * BATCH)
    parts: list[np.ndarray] = []
    for images, _ in itertools.chain.from_iterable(map(batches.epoch, itertools.count())):
        parts.append(np.asarray(images, np.float32))
        if sum(map(len, parts)) >= count:
            return np.concatenate(parts)[:count]
    raise AssertionError("batches end nowhere")
