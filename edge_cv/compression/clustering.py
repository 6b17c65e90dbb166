"""Weight clustering: the weights of a layer take few different values, so that the file compresses well.

Deep Compression, Han et al. 2015, https://arxiv.org/abs/1510.00149 (section 3)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_cv.compression.fine_tuning import fine_tune, settle_statistics
from edge_cv.compression.pruning import prunable, total_sparsity
from edge_cv.compression.tf_keras_bridge import cross

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
    """The model with so many different weights, at most, in each convolution and dense layer.

    Zeros of a pruned model stay zero.

    Args:
        model: a Keras 3 model; it stays as it is.
        part: how many values, and where not.
        batches: the images to fine-tune on.
        teacher: what the part distills from; None is the model itself.
        checkpoint: where a stopped run left its state.
        progress: told the steps.

    Raises:
        InputError: nothing is to be clustered, an exclusion names no layer, or the model cannot be carried.
    """
    import tensorflow_model_optimization as tfmot

    chosen = prunable(model, part.exclude)
    pruned = total_sparsity(model) > 0.1
    wrappers: dict[str, Any] = {}

    def wrap(layer: Any, name: str) -> Any:
        original = name.removesuffix(".pointwise")
        if original not in chosen or not hasattr(layer, "kernel") or layer.kernel.shape.num_elements() <= part.clusters:
            return layer
        wrapper = tfmot.clustering.keras.cluster_weights(
            layer,
            number_of_clusters=part.clusters,
            cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
            preserve_sparsity=pruned,
        )
        if wrapper is not layer:
            wrappers[name] = wrapper
        return wrapper

    crossing = cross(model, wrap=wrap, check=False)
    fine_tune(
        crossing.model,
        batches,
        part.fine_tuning,
        teacher=teacher or model,
        checkpoint=checkpoint,
        title=f"clustering to {part.clusters} values",
        progress=progress,
    )
    for wrapper in wrappers.values():
        wrapper.update_clustered_weights_associations()
        for name, variable in wrapper.original_clusterable_weights.items():
            variable.assign(getattr(wrapper.layer, name))
    made = crossing.back()
    settle_statistics(made, batches)
    return made
