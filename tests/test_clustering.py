from __future__ import annotations

import numpy as np
import pytest

from edge_cv.compression.clustering import ClusteredKernel, centroids, cluster
from edge_cv.compression.keras_graph import clone, leaf_layers
from edge_cv.compression.pruning import prunable, total_sparsity
from edge_cv.recipe import FineTuning, WeightClustering


def kernels(model):
    return [
        np.asarray(layer.kernel) for layer in leaf_layers(model).values() if type(layer).__name__ in ("Conv2D", "Dense")
    ]


@pytest.mark.slow
def test_each_layer_has_few_values_and_the_accuracy_is_kept(digits, digits_model):
    batches, images, labels = digits
    clustered = cluster(
        digits_model, WeightClustering(16, fine_tuning=FineTuning(epochs=1, learning_rate=1e-3)), batches
    )
    assert all(len(np.unique(kernel)) <= 16 for kernel in kernels(clustered))
    scores = [np.mean(np.asarray(m(images.astype(np.float32))).argmax(1) == labels) for m in (digits_model, clustered)]
    assert scores[1] >= scores[0] - 0.03


@pytest.mark.slow
def test_zeros_of_a_pruned_model_stay_zero(digits, digits_model):
    sparse = clone(digits_model)
    kernel = np.asarray(sparse.get_layer("head_conv").kernel).copy()
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.75)] = 0
    sparse.get_layer("head_conv").set_weights([kernel])
    assert total_sparsity(sparse) > 0.1
    others = tuple(name for name in prunable(sparse) if name != "head_conv")
    part = WeightClustering(8, exclude=others, fine_tuning=FineTuning(epochs=1, learning_rate=1e-3))
    clustered = cluster(sparse, part, digits[0])
    after = np.asarray(clustered.get_layer("head_conv").kernel)
    assert not after[kernel == 0].any()
    assert len(np.unique(after)) <= 8
    assert np.mean(after == 0) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("clusters", [4, 16, 64])
def test_centroids_are_as_near_to_the_weights_as_those_of_scikit_learn(clusters):
    from sklearn.cluster import KMeans

    weights = np.random.default_rng(0).standard_t(4, 4000).astype(np.float32)
    ours = centroids(weights, clusters)
    theirs = KMeans(clusters, n_init=3, random_state=0).fit(weights[:, None])
    inertia = float(np.square(weights[:, None] - ours).min(1).sum())
    assert inertia <= 1.3 * theirs.inertia_
    assert len(np.unique(ours)) == clusters


def test_the_values_get_the_sum_of_the_gradients_of_their_weights():
    import tensorflow as tf

    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
    clustered = ClusteredKernel(4)
    clustered.start(kernel)
    with tf.GradientTape() as tape:
        shared = clustered(tf.constant(kernel))
        loss = tf.reduce_sum(shared)
    values, counts = np.unique(shared.numpy(), return_counts=True)
    np.testing.assert_allclose(values, np.sort(clustered.values.numpy()))
    np.testing.assert_allclose(tape.gradient(loss, clustered.values.value), counts)
    nearest = np.abs(kernel[..., None] - values).argmin(-1)
    np.testing.assert_array_equal(values[nearest], shared)
