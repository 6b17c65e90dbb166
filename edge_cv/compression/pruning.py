"""Magnitude pruning: the smallest weights are set to zero while the model is fine-tuned.

To prune, or not to prune, Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878 (polynomial schedule);
Accelerating Sparse Deep Neural Networks, Mishra et al. 2021, https://arxiv.org/abs/2104.08378 (2:4 pattern)

Zeros make the compressed file smaller. They reduce latency only in a runtime with sparse kernels.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import import_tensorflow
from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.keras_graph import leaf_layers
from edge_cv.compression.tf_keras_bridge import to_tf_keras
from edge_cv.models.kernels import combining_kernel

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Prune

PRUNED_SPARSITY = 0.1  # a model or a kernel with a larger share of zeros is pruned
MASK_UPDATES = 50  # at most, between the begin and the end of a schedule


def prune(
    model: keras.Model,
    part: Prune,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """Set a share of the weights of convolutions and dense layers to zero and fine-tune the model.

    Depthwise filters and biases, a small part of every network, are not pruned.

    Args:
        model: a Keras 3 model; it is not changed.
        part: sparsity, schedule, pattern and excluded layers.
        batches: images for fine-tuning.
        teacher: model for distillation; None is `model`.
        checkpoint: file in which the fine-tuning saves its state and from which it resumes.
        progress: reports the steps.

    Returns:
        The pruned model.

    Raises:
        InputError: if there is nothing to prune, an exclusion matches no layer, or the model is not supported.
    """
    selected = prunable(model, part.exclude)
    steps, schedule = part.steps(len(batches)), _schedule(part, len(batches))
    wrappers: dict[str, Any] = {}

    def wrap(layer: Any, name: str) -> Any:
        import tensorflow_model_optimization as tfmot

        if name.removesuffix(".pointwise") not in selected or not hasattr(layer, "kernel"):
            return layer
        pattern = {"sparsity_m_by_n": (2, 4)} if part.pattern == "2:4" else {}
        wrappers[name] = tfmot.sparsity.keras.prune_low_magnitude(layer, schedule, **pattern)
        return wrappers[name]

    twin = to_tf_keras(model, wrap=wrap, check=False)
    import tensorflow_model_optimization as tfmot

    fine_tune(
        twin.model,
        batches,
        part.fine_tuning,
        steps=steps,
        teacher=teacher or model,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        checkpoint=checkpoint,
        title=f"pruning to {part.sparsity:.0%}",
        progress=progress,
    )
    for wrapper in wrappers.values():
        for weight, mask, _ in wrapper.pruning_vars:  # the last training step changed the zeros
            weight.assign(weight * mask)
    pruned = twin.to_keras()
    if not part.fine_tuning.freeze_statistics:
        update_statistics(pruned, batches)
    return pruned


def _schedule(part: Prune, steps_per_epoch: int) -> Any:
    import_tensorflow()
    import tensorflow_model_optimization as tfmot

    begin, end = part.schedule_steps(steps_per_epoch)
    frequency = max(1, (end - begin) // MASK_UPDATES)
    if part.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(part.sparsity, max(1, begin), frequency=frequency)
    # The masks are updated at begin + n * frequency; the end must be one of these steps.
    end = max(1, begin) + max(1, (end - max(1, begin)) // frequency) * frequency
    return tfmot.sparsity.keras.PolynomialDecay(0.0, part.sparsity, max(1, begin), end, frequency=frequency)


def prunable(model: keras.Model, exclude: tuple[str, ...] = ()) -> set[str]:
    """The names of the layers that can be pruned or clustered.

    Args:
        model: a Keras 3 model.
        exclude: patterns of names to leave out.

    Returns:
        Names of convolutions and dense layers, as `walk` gives them.

    Raises:
        InputError: if there are none, or a pattern matches no layer.
    """
    names = {name for name, layer in leaf_layers(model).items() if combining_kernel(layer) is not None}
    if not names:
        raise InputError(f"a model to compress must have convolutions or dense layers. Received: {model.name!r}")
    for pattern in exclude:
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"exclude must name convolutions or dense layers of {model.name!r}, such as "
                f"{sorted(names)[0]!r}. Received: {pattern!r}"
            )
    selected = {name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in exclude)}
    if not selected:
        raise InputError(f"exclude must leave at least one layer to compress. Received: {', '.join(exclude)}")
    return selected


def sparsity(model: keras.Model) -> dict[str, float]:
    """The share of zeros, 0..1, in the kernel of each convolution and dense layer, by the layer's name."""
    return {name: float(np.mean(kernel == 0)) for name, kernel in _kernels(model).items()}


def total_sparsity(model: keras.Model) -> float:
    """The share of zeros, 0..1, in all kernels of convolutions and dense layers together."""
    kernels = _kernels(model).values()
    zeros = sum(int(np.count_nonzero(kernel == 0)) for kernel in kernels)
    return zeros / max(sum(kernel.size for kernel in kernels), 1)


def _kernels(model: keras.Model) -> dict[str, np.ndarray]:
    kernels = {name: combining_kernel(layer) for name, layer in leaf_layers(model).items()}
    return {name: np.asarray(kernel) for name, kernel in kernels.items() if kernel is not None}
