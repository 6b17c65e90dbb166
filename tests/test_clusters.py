"""Zeros of a pruned model and the few values of a clustered one stay in int8 files, whoever made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.quantization.clusters import is_clustered
from converters.tflite.graph import WEIGHTED, Graph


def _weights(content: bytes) -> list[np.ndarray]:
    graph = Graph(content)
    return [graph.values(operator.inputs[1]) for operator in graph.operators() if operator.name in WEIGHTED]


def _network(change: Any, *, normalization: bool) -> Any:
    """A small network whose kernels are `change(kernel)`."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for filters in (16, 24, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        x = layers.BatchNormalization()(x) if normalization else x
        x = layers.ReLU()(x)
    model = keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(change(np.asarray(weight)))
        elif "gamma" in weight.path or "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def _pruned(kernel: np.ndarray) -> np.ndarray:
    return np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.5), 0, kernel)


def _clustered(kernel: np.ndarray) -> np.ndarray:
    centroids = np.quantile(kernel, np.linspace(0.02, 0.98, 8)).astype(np.float32)
    return centroids[np.abs(kernel[..., None] - centroids).argmin(-1)]


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["gptq", "bias"])
def test_zeros_of_a_pruned_model_stay_zero(correction, pixels):
    model = _network(_pruned, normalization=True)
    floats = _weights(to_tflite(model, "float32", calibration=pixels).content)
    integers = _weights(to_tflite(model, Int8(correction=correction), calibration=pixels).content)
    for before, after in zip(floats, integers, strict=True):
        assert np.mean(before == 0) >= 0.49
        assert not after[before == 0].any()
        assert np.mean(after == 0) < 0.75


def test_weights_of_a_clustered_model_stay_few(pixels):
    model = _network(_clustered, normalization=False)
    conversion = to_tflite(model, "int8", calibration=pixels)
    for before, after in zip(_weights(to_tflite(model, "float32").content), _weights(conversion.content), strict=True):
        assert len(np.unique(before)) <= 8
        assert len(np.unique(after)) <= 8
    assert conversion.parity.sqnr_db > 25


def test_values_that_batch_norm_scaled_stay_few_in_each_channel(pixels):
    model = _network(_clustered, normalization=True)
    for after in _weights(to_tflite(model, "int8", calibration=pixels).content)[1:]:
        assert max(len(np.unique(channel)) for channel in after) <= 8


def test_clusters_are_told_from_other_weights():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(16, 3, 3, 8)).astype(np.float32)
    assert not is_clustered(dense)
    assert not is_clustered(np.where(np.abs(dense) < 1.6, 0, dense))  # pruned to 89 %
    assert not is_clustered(np.zeros_like(dense))
    few = np.round(dense)
    assert is_clustered(few)
    assert is_clustered(few * rng.uniform(0.5, 2, (16, 1, 1, 1)).astype(np.float32))
    assert is_clustered(few.transpose(1, 2, 3, 0) * rng.uniform(0.5, 2, 16).astype(np.float32), channel_axis=3)
