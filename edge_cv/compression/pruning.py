"""Magnitude pruning: the smallest weights become zero while the model goes on learning.

To prune, or not to prune, Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878 (the polynomial schedule);
Accelerating Sparse Deep Neural Networks, Mishra et al. 2021, https://arxiv.org/abs/2104.08378 (two of four).
Zeros make a file smaller once it is compressed. They make it faster only in a runtime with sparse kernels.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from edge_cv.compression.fine_tuning import fine_tune, settle_statistics
from edge_cv.compression.keras_graph import leaf_layers
from edge_cv.compression.tf_keras_bridge import cross

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Prune

UPDATES = 50  # of the masks, at most, while a schedule goes from its begin to its end
KERNELS = {"Conv2D": ("kernel",), "Dense": ("kernel",), "SeparableConv2D": ("pointwise_kernel",)}


def prune(
    model: keras.Model,
    part: Prune,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """The model with a share of the weights of its convolutions and dense layers at zero.

    Depthwise filters and biases, a small part of every network, stay as they are.

    Args:
        model: a Keras 3 model; it stays as it is.
        part: how much, when, and where not.
        batches: the images to fine-tune on.
        teacher: what the part distills from; None is the model itself.
        checkpoint: where a stopped run left its state.
        progress: told the steps.

    Raises:
        InputError: nothing is to be pruned, an exclusion names no layer, or the model cannot be carried.
    """
    chosen = prunable(model, part.exclude)
    wrappers: dict[str, Any] = {}

    def wrap(layer: Any, name: str) -> Any:
        import tensorflow_model_optimization as tfmot

        if name.removesuffix(".pointwise") not in chosen or not hasattr(layer, "kernel"):
            return layer
        pattern = {"sparsity_m_by_n": (2, 4)} if part.pattern == "2:4" else {}
        wrappers[name] = tfmot.sparsity.keras.prune_low_magnitude(layer, _schedule(part, len(batches)), **pattern)
        return wrappers[name]

    crossing = cross(model, wrap=wrap, check=False)
    import tensorflow_model_optimization as tfmot

    fine_tune(
        crossing.model,
        batches,
        part.fine_tuning,
        teacher=teacher or model,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        checkpoint=checkpoint,
        title=f"pruning to {part.sparsity:.0%}",
        progress=progress,
    )
    for wrapper in wrappers.values():
        for weight, mask, _ in wrapper.pruning_vars:  # the last step of training moved zeros too
            weight.assign(weight * mask)
    made = crossing.back()
    settle_statistics(made, batches)
    return made


def _schedule(part: Prune, steps: int) -> Any:
    import tensorflow_model_optimization as tfmot

    begin, end = round(part.begin_epoch * steps), round(part.end() * steps)
    frequency = max(1, (end - begin) // UPDATES)
    if part.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(part.sparsity, max(1, begin), frequency=frequency)
    # The masks are brought up to date at begin + n * frequency: the end has to be one of those.
    end = max(1, begin) + max(1, (end - max(1, begin)) // frequency) * frequency
    return tfmot.sparsity.keras.PolynomialDecay(0.0, part.sparsity, max(1, begin), end, frequency=frequency)


def prunable(model: keras.Model, exclude: tuple[str, ...] = ()) -> set[str]:
    """The names of the layers that can be pruned or clustered, but those that a pattern of `exclude` matches.

    Raises:
        InputError: there are none, or a pattern matches no layer.
    """
    names = {name for name, layer in leaf_layers(model).items() if type(layer).__name__ in KERNELS}
    if not names:
        raise InputError(f"a model to compress must have convolutions or dense layers. Received: {model.name!r}")
    for pattern in exclude:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"exclude must name convolutions or dense layers of {model.name!r}, such as "
                f"{sorted(names)[0]!r}. Received: {pattern!r}"
            )
    chosen = {name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)}
    if not chosen:
        raise InputError(f"exclude must leave something to compress. Received: {', '.join(exclude)}")
    return chosen


def sparsity(model: keras.Model) -> dict[str, float]:
    """The share of zeros, 0..1, in the kernel of each convolution and dense layer, by the layer's name."""
    found = {}
    for name, layer in leaf_layers(model).items():
        for kernel in KERNELS.get(type(layer).__name__, ()):
            found[name] = float(np.mean(np.asarray(getattr(layer, kernel)) == 0))
    return found


def total_sparsity(model: keras.Model) -> float:
    """The share of zeros, 0..1, in all kernels together."""
    zeros = total = 0
    for layer in leaf_layers(model).values():
        for kernel in KERNELS.get(type(layer).__name__, ()):
            values = np.asarray(getattr(layer, kernel))
            zeros, total = zeros + np.count_nonzero(values == 0), total + values.size
    return zeros / max(total, 1)
