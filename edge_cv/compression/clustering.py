"""Weight clustering: the weights of a layer share a few values, so that the compressed file is smaller.

Deep Compression, Han et al. 2015, https://arxiv.org/abs/1510.00149 (section 3)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.pruning import PRUNED_SPARSITY, prunable, total_sparsity
from edge_cv.compression.tf_keras_bridge import to_tf_keras

if TYPE_CHECKING:
    import keras

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import WeightClustering


def cluster(
    model: keras.Model,
    part: WeightClustering,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """Replace the weights of each convolution and dense layer by a few cluster centroids and fine-tune the model.

    Zeros of a pruned model stay zero.

    Args:
        model: a Keras 3 model; it is not changed.
        part: number of clusters and excluded layers.
        batches: images for fine-tuning.
        teacher: model for distillation; None is `model`.
        checkpoint: file in which the fine-tuning saves its state and from which it resumes.
        progress: reports the steps.

    Returns:
        The clustered model.

    Raises:
        InputError: if there is nothing to cluster, an exclusion matches no layer, or the model is not supported.
    """
    selected = prunable(model, part.exclude)
    pruned = total_sparsity(model) > PRUNED_SPARSITY
    wrappers: dict[str, Any] = {}

    def wrap(layer: Any, name: str) -> Any:
        if name.removesuffix(".pointwise") not in selected or not hasattr(layer, "kernel"):
            return layer
        if layer.kernel.shape.num_elements() <= part.clusters:
            return layer
        wrapper = _clustered(layer, part.clusters, preserve_sparsity=pruned)
        if wrapper is not layer:
            wrappers[name] = wrapper
        return wrapper

    twin = to_tf_keras(model, wrap=wrap, check=False)
    fine_tune(
        twin.model,
        batches,
        part.fine_tuning,
        steps=part.steps(len(batches)),
        teacher=teacher or model,
        checkpoint=checkpoint,
        title=f"clustering to {part.clusters} values",
        progress=progress,
    )
    for wrapper in wrappers.values():
        wrapper.update_clustered_weights_associations()
        for name, variable in wrapper.original_clusterable_weights.items():
            variable.assign(getattr(wrapper.layer, name))
    clustered = twin.to_keras()
    if not part.fine_tuning.freeze_statistics:
        update_statistics(clustered, batches)
    return clustered


def _clustered(layer: Any, clusters: int, *, preserve_sparsity: bool) -> Any:
    import tensorflow_model_optimization as tfmot

    return tfmot.clustering.keras.cluster_weights(
        layer,
        number_of_clusters=clusters,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=preserve_sparsity,
    )
