"""Magnitude pruning: the smallest weights are set to zero before or while the model is fine-tuned.

To prune, or not to prune, Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878 (polynomial schedule);
Layer-adaptive Sparsity for the Magnitude-based Pruning, Lee et al. 2021, https://arxiv.org/abs/2010.07611 (LAMP);
Accelerating Sparse Deep Neural Networks, Mishra et al. 2021, https://arxiv.org/abs/2104.08378 (2:4 pattern)

Zeros make the compressed file smaller. They reduce latency only in a runtime with sparse kernels.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from converters.errors import InputError
from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.keras_graph import clone, leaf_layers
from edge_cv.compression.reconstruction import reconstruct
from edge_cv.models.kernels import combining_kernel
from edge_cv.training.callbacks import StepCallback

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import Prune

PRUNED_SPARSITY = 0.1  # a model or a kernel with a larger share of zeros is pruned
MASK_UPDATES = 50  # at most, between the begin and the end of a schedule
POWER = 3  # of the polynomial schedule
MOST_OF_HEAD = 0.2  # of the weights that remain: a last layer with at most this share of them stays dense
FIRST_PASS = 7 / 8  # of the zeros of a one-shot schedule, the polynomial's middle: better weights then decide the rest


def prune(
    model: keras.Model,
    part: Prune,
    batches: Batches | None = None,
    *,
    teacher: keras.Model | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """Set a share of the weights of convolutions and dense layers to zero and fine-tune the model.

    Unless the schedule says otherwise, all zeros are set before the training, and the other weights get the values by
    which each layer comes nearest to the outputs of the dense model's, see `reconstruct`. A small last layer then stays
    dense, and the others have the zeros: it has one sample an image, from which least squares would learn the photos.

    Depthwise filters and biases, a small part of every network, are not pruned.

    Args:
        model: a Keras 3 model; it is not changed.
        part: sparsity, schedule, pattern and excluded layers.
        batches: images for fine-tuning. None sets the weights to zero at once, without any training.
        teacher: model for distillation; None is `model`.
        folder: where the fine-tuning saves its state, and from which it resumes.
        progress: reports the steps.

    Returns:
        The pruned model.

    Raises:
        InputError: if there is nothing to prune, an exclusion matches no layer, or the model is not supported.
    """
    selected = prunable(model, part.exclude)
    if part.engine == "tfmot":
        from edge_cv.compression.tfmot_engine import prune_by_tfmot

        return prune_by_tfmot(model, selected, part, batches, progress=progress)
    pruned = clone(model)
    if batches is None:
        _set_to_zero(pruned, part, part.sparsity)
        return pruned
    steps, title = part.steps(len(batches)), f"pruning to {part.sparsity:.0%}"
    if part.at_once:
        part = _with_dense_head(model, part)
        shares = (FIRST_PASS, 1.0) if part.pattern == "any" else (1.0,)
        for share in shares:
            _set_to_zero(pruned, part, share * part.sparsity)
            reconstruct(pruned, model, batches, progress=progress)
        part = dataclasses.replace(part, schedule="constant", end_epoch=0.0)  # keeps these zeros
    pruning = PruningCallback(part, steps_per_epoch=len(batches))
    fine_tune(
        pruned,
        batches,
        part.fine_tuning,
        steps=steps,
        teacher=teacher or model,
        callbacks=[pruning],
        folder=folder,
        title=title,
        progress=progress,
    )
    pruning.apply(pruned)  # averaged weights have masks of earlier steps in them
    if not part.fine_tuning.freeze_statistics:
        update_statistics(pruned, batches)
    return pruned


def _with_dense_head(model: keras.Model, part: Prune) -> Prune:
    """The same share of zeros in all layers together, none of them in the last layer where that is small."""
    if part.allocation != "lamp" or part.pattern != "any":
        return part
    kernels, selected = _kernels(model), prunable(model, part.exclude)
    shapes = {name: kernel.shape for name, kernel in kernels.items() if name in selected}
    head, shape = list(shapes.items())[-1]
    total = sum(map(math.prod, shapes.values()))
    if len(shape) > 2 or math.prod(shape) > MOST_OF_HEAD * (1 - part.sparsity) * total:
        return part
    share = part.sparsity * total / (total - math.prod(shape))
    return dataclasses.replace(part, exclude=(*part.exclude, glob.escape(head)), sparsity=share)


def _set_to_zero(model: keras.Model, part: Prune, sparsity: float) -> None:
    """Set a share of the weights to zero, all at once."""
    kernels = _selected_kernels(model, part.exclude)
    for kernel, mask in zip(kernels, masks(kernels, part, sparsity), strict=True):
        kernel.assign(kernel * mask)


class PruningCallback(StepCallback):
    """Prunes a model while Keras's `fit` trains it.

        model.fit(images, labels, epochs=5, callbacks=[PruningCallback(Prune(0.75))])

    Weights that are zero by the mask are set to zero again before each step and at the end of each epoch. The model
    needs no wrappers, so there is nothing to strip.
    """

    def __init__(self, part: Prune, *, steps_per_epoch: int | None = None) -> None:
        """
        Args:
            part: sparsity, schedule, pattern and excluded layers.
            steps_per_epoch: of the images; the schedule then ends as `part.fine_tuning` says. None takes the length of
                the training from Keras's `fit`.

        Raises:
            InputError: if the schedule is one_shot, which only `prune` follows.
        """
        super().__init__()
        if part.schedule == "one_shot":
            raise InputError("PruningCallback needs the schedule polynomial or constant. Received: 'one_shot'")
        self.part = part
        self._schedule = None if steps_per_epoch is None else part.schedule_steps(steps_per_epoch)
        self._masks: list[Any] = []
        self._kernels: list[keras.Variable] = []

    def on_train_begin(self, logs: Any = None) -> None:
        network = getattr(self.model, "network", self.model)
        self._kernels = _selected_kernels(network, self.part.exclude)
        if self._schedule is None:
            steps, epochs = self.params.get("steps"), self.params.get("epochs", 1)
            if steps is None:
                raise InputError(
                    "PruningCallback needs the number of steps of an epoch. Received: data of unknown length; give it "
                    "steps_per_epoch"
                )
            self._schedule = self.part.schedule_within(epochs * steps, steps)

    def on_step(self) -> None:
        if self._schedule is None:  # Keras calls `on_train_begin` first
            return
        sparsity = scheduled_sparsity(self.part, *self._schedule, self.step)
        if sparsity is None and not self._masks:
            return
        _ = self.model  # on JAX this brings the trained values back into the variables
        if sparsity is not None:
            self._masks = [ops.convert_to_tensor(mask) for mask in masks(self._kernels, self.part, sparsity)]
        self._set_to_zero(self._kernels)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.on_step()

    def figures(self) -> dict[str, float]:
        return {"sparsity": total_sparsity(getattr(self.model, "network", self.model))}

    def apply(self, model: keras.Model) -> None:
        """Set the weights of a model to zero by the last masks."""
        self._set_to_zero(_selected_kernels(model, self.part.exclude))

    def _set_to_zero(self, kernels: list[keras.Variable]) -> None:
        for kernel, mask in zip(kernels, self._masks, strict=bool(self._masks)):
            kernel.assign(kernel * mask)

    def state(self) -> list[np.ndarray]:
        return [*super().state(), *(np.asarray(ops.convert_to_numpy(mask), bool) for mask in self._masks)]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        super().restore(arrays)
        self._masks = [ops.cast(ops.convert_to_tensor(mask), "float32") for mask in arrays[1:]]


def scheduled_sparsity(part: Prune, begin: int, end: int, step: int) -> float | None:
    """The sparsity of the masks that are made before a step; None where they stay as they are.

    Args:
        part: the schedule.
        begin, end: its first and last step.
        step: counted from 0.
    """
    every = max(1, (end - begin) // MASK_UPDATES)
    end = begin + max(1, (end - begin) // every) * every  # a step with new masks
    if step < begin or step > end or (step - begin) % every:
        return None
    if part.schedule == "constant":
        return part.sparsity
    return part.sparsity * (1 - (1 - (step - begin) / (end - begin)) ** POWER)


def masks(kernels: Sequence[Any], part: Prune, sparsity: float) -> list[np.ndarray]:
    """The mask of each kernel, see `magnitude_mask`.

    Args:
        kernels: `(..., inputs, outputs)` each.
        part: the pattern, and how the zeros are divided between the layers.
        sparsity: share of zeros in all kernels together.
    """
    if part.allocation == "uniform" or part.pattern != "any":
        return [magnitude_mask(kernel, sparsity, part.pattern) for kernel in kernels]
    scores = [lamp_scores(np.asarray(ops.convert_to_numpy(kernel))) for kernel in kernels]
    kept = magnitude_mask(np.concatenate([score.reshape(-1) for score in scores]), sparsity, part.pattern)
    ends = np.cumsum([score.size for score in scores])[:-1]
    return [mask.reshape(score.shape) for mask, score in zip(np.split(kept, ends), scores, strict=True)]


def lamp_scores(kernel: np.ndarray) -> np.ndarray:
    """The square of each weight, divided by the sum of the squares of the weights of its kernel that are not smaller.

    Weights of different layers can be compared by it: the largest of each layer has 1, and is kept.

    Args:
        kernel: of any shape.

    Returns:
        0..1, of the kernel's shape.
    """
    squares = np.square(kernel.reshape(-1).astype(np.float64))
    order = np.argsort(squares)
    scores = np.empty(squares.shape)
    scores[order] = squares[order] / np.maximum(np.cumsum(squares[order][::-1])[::-1], np.finfo(np.float64).tiny)
    return scores.reshape(kernel.shape)


def magnitude_mask(kernel: Any, sparsity: float, pattern: str) -> np.ndarray:
    """1 for the weights to keep, 0 for the smallest ones; float32, of the kernel's shape.

    Args:
        kernel: `(..., inputs, outputs)`.
        sparsity: share of zeros. 2:4 has its own, a half.
        pattern: as in `Prune`.
    """
    size = np.abs(ops.convert_to_numpy(kernel))  # numpy selects the n-th weight in linear time, the backends sort
    if pattern == "2:4":
        return _two_of_four(size)
    kept = round(size.size * (1 - sparsity))
    if kept == 0:
        return np.zeros(size.shape, np.float32)
    smallest = np.partition(size.reshape(-1), size.size - kept)[size.size - kept]
    return (size >= smallest).astype(np.float32)


def _two_of_four(size: np.ndarray) -> np.ndarray:
    """Keeps the two largest of every four neighbours along the input channels; fewer than four at the end stay."""
    *rest, inputs, outputs = size.shape
    mask = np.ones(size.shape, np.float32)
    whole = inputs // 4 * 4
    groups = size[..., :whole, :].reshape(math.prod(rest), whole // 4, 4, outputs)
    rank = np.argsort(np.argsort(-groups, axis=2, kind="stable"), axis=2)
    mask[..., :whole, :] = (rank < 2).reshape(*rest, whole, outputs)
    return mask


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


def _selected_kernels(model: keras.Model, exclude: tuple[str, ...]) -> list[Any]:
    leaves = leaf_layers(model)
    return [combining_kernel(leaves[name]) for name in sorted(prunable(model, exclude))]


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
    return {name: np.asarray(ops.convert_to_numpy(k)) for name, k in kernels.items() if k is not None}
