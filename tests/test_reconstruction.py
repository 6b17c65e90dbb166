"""Reconstruction of a layer's outputs by the weights that remain."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge_cv.compression.reconstruction import solve

RECONSTRUCTED = """
import sys
import keras
import numpy as np
import test_reconstruction as here
from edge_cv.compression.keras_graph import clone
from edge_cv.compression.reconstruction import reconstruct
dense = here.network()
pruned = here.pruned(dense)
reconstruct(pruned, dense, here.batches())
np.savez(sys.argv[1], *pruned.get_weights())
"""


def network():
    """A network with every kind of layer whose weights are solved for, and weights that no backend draws."""
    import keras
    from keras import layers

    x = image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 128, offset=-1)(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = before = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="project")(x)
    x = layers.Conv2D(32, 3, groups=2, dilation_rate=2, name="grouped")(layers.Add()([x, before]) * 0.5)
    x = layers.Conv2D(24, 1, use_bias=False, name="without_bias")(x)
    x = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    model, rng = keras.Model(image, x), np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(rng.normal(0, np.prod(weight.shape[:-1]) ** -0.5, weight.shape))
        elif "norm" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def pruned(dense):
    """A copy with half of the weights of every layer, the larger ones."""
    from edge_cv.compression.pruning import prune
    from edge_cv.recipe import Prune

    return prune(dense, Prune(0.5))


def batches(seed: int = 0):
    from edge_cv.data.input_pipeline.batches import array_batches

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (96, 4, 4, 3)).repeat(4, 1).repeat(4, 2)
    images = np.clip(coarse + rng.integers(-30, 31, coarse.shape), 0, 255).astype(np.uint8)
    return array_batches(images, rng.integers(0, 4, 96), classes=tuple("abcd"), batch_size=32, seed=0)


def outputs(model, layers):
    """The outputs of layers on images that were not used for reconstruction."""
    import keras

    images = next(iter(batches(1).epoch(0)))[0]
    every = keras.Model(model.inputs, [model.get_layer(name).output for name in layers])
    return [np.asarray(values) for values in every([np.asarray(images, np.float32)])]


@pytest.fixture(scope="module")
def dense():
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    return network()


def test_weights_that_can_express_the_outputs_exactly_do():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 500, 6)).astype(np.float32)
    x[:, :, 3:] = 2 * x[:, :, :3]  # the inputs 3 to 5 say nothing new
    weights = rng.normal(size=(2, 6, 5)).astype(np.float32)
    kept = np.where(np.arange(6)[:, None] < 3, weights, 0)
    solved = solve(x, np.matmul(x, weights), kept, damping=0.0)
    np.testing.assert_allclose(solved[:, :3], weights[:, :3] + 2 * weights[:, 3:], rtol=1e-4, atol=1e-4)
    assert not solved[:, 3:].any()
    np.testing.assert_allclose(np.matmul(x, solved), np.matmul(x, weights), atol=1e-4)


def test_the_solution_is_that_of_ridge_regression_with_the_remaining_inputs():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1, 300, 8)), rng.normal(size=(1, 300, 4))
    weights = rng.normal(size=(1, 8, 4)) * (rng.random((1, 8, 4)) < 0.5)
    solved = solve(x.astype(np.float32), y.astype(np.float32), weights.astype(np.float32), damping=0.2)[0]
    penalty = 0.2 * np.mean(x[0] ** 2) * 300
    for output, present in enumerate(weights[0].T):
        rows = np.flatnonzero(present)
        ridge = linear_model.Ridge(alpha=penalty, fit_intercept=False)
        ridge.fit(x[0][:, rows], y[0][:, output] - x[0][:, rows] @ present[rows])
        np.testing.assert_allclose(solved[rows, output], present[rows] + ridge.coef_, rtol=1e-4, atol=1e-4)
    assert ((solved != 0) == (weights[0] != 0)).all()


def test_a_model_of_which_nothing_was_removed_stays_as_it_is(dense):
    from edge_cv.compression.keras_graph import clone
    from edge_cv.compression.reconstruction import reconstruct

    same = clone(dense)
    reconstruct(same, dense, batches())
    for after, before in zip(same.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-3)


def test_every_layer_of_a_pruned_model_comes_nearer_to_the_dense_one_and_the_zeros_stay(dense):
    from edge_cv.compression.keras_graph import clone
    from edge_cv.compression.reconstruction import reconstruct

    layers = ["stem_norm", "depthwise", "project", "grouped", "without_bias", "logits"]
    before = pruned(dense)
    after, again = clone(before), clone(before)
    for model in (after, again):
        reconstruct(model, dense, batches())
    for one, other in zip(after.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # a run that is resumed ends as an undisturbed one
    for name in ("stem", "project", "grouped", "without_bias", "logits"):
        kernels = [np.asarray(model.get_layer(name).kernel) for model in (before, after)]
        np.testing.assert_array_equal(kernels[0] == 0, kernels[1] == 0)
    wanted = outputs(dense, layers)
    errors = [[np.mean((a - b) ** 2) for a, b in zip(outputs(m, layers), wanted, strict=True)] for m in (before, after)]
    assert all(new < 0.6 * old for old, new in zip(*errors, strict=True)), errors


def test_a_small_last_layer_keeps_the_weights_of_the_dense_model_and_the_others_have_all_zeros(dense):
    from edge_cv.compression.pruning import prune, sparsity, total_sparsity
    from edge_cv.recipe import FineTuning, Prune

    one_step = FineTuning(steps=1, learning_rate=1e-6)
    half = prune(dense, Prune(0.5, fine_tuning=one_step), batches())
    shares = sparsity(half)
    assert shares.pop("logits") == 0
    assert all(shares.values())
    assert total_sparsity(half) == pytest.approx(0.5, abs=0.01)
    kernel = np.asarray(half.get_layer("logits").kernel)
    np.testing.assert_allclose(kernel, dense.get_layer("logits").kernel, atol=1e-5)
    wanted, found = outputs(dense, ["logits"])[0], outputs(half, ["logits"])[0]
    assert np.abs(found.mean(0) - wanted.mean(0)).max() < 0.1 * wanted.std()  # the bias restores the mean
    nine_tenths = prune(dense, Prune(0.9, fine_tuning=one_step), batches())
    assert sparsity(nine_tenths)["logits"] > 0  # it would be a large share of the weights that remain


def test_channels_that_remain_come_nearer_to_those_of_the_dense_model(dense):
    from edge_cv.compression.channel_graph import ChannelGraph
    from edge_cv.compression.channel_removal import without_channels
    from edge_cv.compression.reconstruction import reconstruct

    graph = ChannelGraph(dense)
    removed = np.zeros(graph.size, bool)
    removed[graph.roots(graph.layers["stem"].outputs)[::2]] = True  # channels of the residual
    smaller = without_channels(dense, graph, removed)
    kept = {name: graph.kept_positions(layer.outputs, removed) for name, layer in graph.layers.items()}
    layers = ["project", "grouped", "without_bias", "logits"]
    wanted = [values[..., kept[name]] for name, values in zip(layers, outputs(dense, layers), strict=True)]
    errors = []
    for _ in range(2):
        errors.append([np.mean((a - b) ** 2) for a, b in zip(outputs(smaller, layers), wanted, strict=True)])
        reconstruct(smaller, dense, batches(), kept=kept)
    assert [len(kept[name]) for name in ("stem", "depthwise", "project")] == [8, 16, 8]
    assert all(new < 0.7 * old for old, new in zip(*errors, strict=True)), errors


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is an extra")
def test_jax_finds_the_weights_that_tensorflow_finds(tmp_path):
    found = []
    for backend in ("tensorflow", "jax"):
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path}
        file = tmp_path / f"{backend}.npz"
        subprocess.run([sys.executable, "-c", RECONSTRUCTED, str(file)], env=environment, check=True, timeout=300)
        with np.load(file) as arrays:
            found.append([arrays[name] for name in arrays.files])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
