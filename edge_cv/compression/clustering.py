"""Weight clustering: the weights of a layer share a few values, so that the compressed file is smaller.

Deep Compression, Han et al. 2015, https://arxiv.org/abs/1510.00149 (section 3)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.keras_graph import clone, leaf_layers
from edge_cv.compression.pruning import PRUNED_SPARSITY, prunable, total_sparsity
from edge_cv.compression.simulated_network import simulated, strip
from edge_cv.models.kernels import KERNELS

if TYPE_CHECKING:
    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import WeightClustering

ITERATIONS = 100  # of k-means, at most
POINTS = 2049  # quantiles from which k-means starts


def cluster(
    model: keras.Model,
    part: WeightClustering,
    batches: Batches | None = None,
    *,
    teacher: keras.Model | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """Replace the weights of each convolution and dense layer by a few cluster centroids and fine-tune the model.

    Zeros of a pruned model stay zero.

    Args:
        model: a Keras 3 model; it is not changed.
        part: number of clusters and excluded layers.
        batches: images for fine-tuning. None replaces the weights at once, without any training.
        teacher: model for distillation; None is `model`.
        folder: where the fine-tuning saves its state, and from which it resumes.
        progress: reports the steps.

    Returns:
        The clustered model.

    Raises:
        InputError: if there is nothing to cluster, an exclusion matches no layer, or the model is not supported.
    """
    selected = prunable(model, part.exclude)
    pruned = total_sparsity(model) > PRUNED_SPARSITY
    if part.engine == "tfmot":
        from edge_cv.compression.tfmot_engine import cluster_by_tfmot

        return cluster_by_tfmot(model, selected, part, batches, pruned=pruned, progress=progress)
    copy = clone(model)
    leaves, parts = leaf_layers(copy), {}
    for name in sorted(selected):
        (attribute,) = (kernel.attribute for kernel in KERNELS[type(leaves[name]).__name__] if not kernel.depthwise)
        kernel = np.asarray(ops.convert_to_numpy(getattr(leaves[name], attribute)))
        if kernel.size > part.clusters:
            clustered = parts[name, attribute] = ClusteredKernel(part.clusters, pruned=pruned)
            clustered.start(kernel)
    clustered_model = simulated(copy, parts, train_statistics=not part.fine_tuning.freeze_statistics)
    if batches is not None:
        fine_tune(
            clustered_model,
            batches,
            part.fine_tuning,
            steps=part.steps(len(batches)),
            teacher=teacher or model,
            folder=folder,
            title=f"clustering to {part.clusters} values",
            progress=progress,
        )
    result = strip(clustered_model)
    if batches is not None and not part.fine_tuning.freeze_statistics:
        update_statistics(result, batches)
    return result


@keras.saving.register_keras_serializable("edge_cv")
class ClusteredKernel(keras.layers.Layer):
    """Replaces each weight of a kernel by the nearest of a few trained values.

    The values get the sum of the gradients of their weights. The weights themselves are trained too, so that they may
    change to another value.
    """

    def __init__(self, clusters: int, *, pruned: bool = False, **options: Any) -> None:
        """
        Args:
            clusters: number of values.
            pruned: whether 0 is one of them, and zeros stay zero.
        """
        super().__init__(autocast=False, **options)
        self.clusters, self.pruned = clusters, pruned
        self.values = self.add_weight(shape=(clusters - pruned,), initializer="zeros", name="values")
        self.built = True

    def start(self, kernel: np.ndarray) -> None:
        """Set the values by k-means over the kernel's weights, or over those that are not zero."""
        weights = kernel[kernel != 0] if self.pruned else kernel.reshape(-1)
        self.values.assign(centroids(weights, self.clusters - self.pruned))

    def call(self, kernel: Any) -> Any:
        values = ops.sort(self.values.value)
        bounds = ops.stop_gradient((values[1:] + values[:-1]) / 2)
        nearest = ops.searchsorted(bounds, ops.reshape(ops.stop_gradient(kernel), (-1,)))
        shared = ops.reshape(ops.take(values, nearest), kernel.shape) + (kernel - ops.stop_gradient(kernel))
        return shared * ops.cast(ops.not_equal(kernel, 0), kernel.dtype) if self.pruned else shared

    def unrounded(self, kernel: Any) -> Any:
        """The kernel of few values."""
        return self(kernel)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clusters": self.clusters, "pruned": self.pruned}


def centroids(weights: np.ndarray, count: int) -> np.ndarray:
    """The centroids of k-means over numbers, sorted.

    They start where many centroids would lie: as dense as the cube root of the density of the numbers (Quantization
    Distortion in Pulse-Count Modulation, Panter and Dite 1951).

    Args:
        weights: `(n,)`.
        count: number of centroids.

    Returns:
        float32 `(count,)`. A centroid without weights keeps its place.
    """
    if not weights.size:
        return np.zeros(count, np.float32)
    ordered = np.sort(weights.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    points = ordered[np.linspace(0, len(ordered) - 1, POINTS).astype(int)]  # the same number of weights between two
    share = np.concatenate([[0.0], np.cumsum(np.diff(points) ** (2 / 3))])  # cube root of the density, times the width
    values = np.interp((np.arange(count) + 0.5) / count * share[-1], share, points)
    for _ in range(ITERATIONS):
        ends = np.searchsorted(ordered, (values[1:] + values[:-1]) / 2)
        ends = np.concatenate([[0], ends, [len(ordered)]])
        members = np.diff(ends)
        moved = np.where(members > 0, np.diff(sums[ends]) / np.maximum(members, 1), values)
        if np.array_equal(moved, values):
            break
        values = moved
    return values.astype(np.float32)
