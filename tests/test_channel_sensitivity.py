from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from edge_cv.compression.channel_graph import ChannelGraph
from edge_cv.compression.channel_sensitivity import channel_sensitivity
from edge_cv.compression.channels import remove_channels
from edge_cv.compression.keras_graph import leaf_layers


class SingleImages:
    """Sixteen random images, one a batch, so that no products of different images are left in a square."""

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).normal(0, 1, (16, 6, 6, 3)).astype(np.float32)

    def epoch(self, number: int):
        return ((image[None], None) for image in self.images)


@pytest.fixture(scope="module")
def linear_model():
    """A linear network of one output, in which the first-order change is the change."""
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 1, name="first")(image)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2D(24, 3, groups=2, name="grouped")(x)
    x = layers.Conv2D(16, 1, name="second")(x)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return keras.Model(image, layers.Dense(1, name="output")(x))


def change_without_inputs(model, layer, inputs):
    """The mean squared change of the output when a layer does not read some inputs."""
    images = SingleImages().images
    before = np.asarray(model(images))
    kernel, *rest = layer.get_weights()
    changed = kernel.copy()
    changed[..., inputs, :] = 0
    layer.set_weights([changed, *rest])
    after = np.asarray(model(images))
    layer.set_weights([kernel, *rest])
    return float(np.mean((after - before) ** 2))


@pytest.mark.slow
def test_the_sensitivity_is_the_squared_change_of_the_output_without_the_channel(linear_model):
    graph = ChannelGraph(linear_model)
    sensitivity = channel_sensitivity(linear_model, graph, SingleImages())
    layers = leaf_layers(linear_model)
    roots = graph.roots(graph.layers["second"].inputs)
    for channel in range(12):  # the channels of both groups are removed in pairs
        assert roots[channel] == roots[channel + 12]
        expected = change_without_inputs(linear_model, layers["second"], [channel, channel + 12])
        assert sensitivity[roots[channel]] == pytest.approx(expected, rel=1e-3)
    roots = graph.roots(graph.layers["second"].outputs)
    for channel in range(16):  # behind the flattening each channel is read at four positions
        expected = change_without_inputs(linear_model, layers["output"], list(range(channel, 64, 16)))
        assert sensitivity[roots[channel]] == pytest.approx(expected, rel=1e-3)


def test_channels_are_removed_in_the_order_of_the_given_importance(linear_model):
    graph = ChannelGraph(linear_model)
    importance = np.full(graph.size, 1e9)
    unimportant = [1, 2, 4, 5, 8, 9, 11, 14]
    importance[graph.roots(graph.layers["second"].outputs)[unimportant]] = 0
    kept = remove_channels(linear_model, 0.95, importance=importance).get_layer("second").kernel
    expected = np.delete(np.asarray(linear_model.get_layer("second").kernel), unimportant, axis=-1)
    np.testing.assert_array_equal(kept, expected)


ON_ONE_BACKEND = """
import sys
import keras, numpy as np
from keras import layers
from edge_cv.compression.channel_graph import ChannelGraph
from edge_cv.compression.channel_sensitivity import channel_sensitivity

class Images:
    def epoch(self, number):
        rng = np.random.default_rng(number)
        yield rng.normal(0, 1, (4, 8, 8, 3)).astype(np.float32), None

image = keras.Input((8, 8, 3))
x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(12, 3, name="first")(image)))
x = layers.Conv2D(8, 1, name="second")(layers.DepthwiseConv2D(3)(x))
model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
rng = np.random.default_rng(0)
signs = {False: (1,), True: (-1, 1)}
model.set_weights([rng.uniform(0.1, 1, w.shape) * rng.choice(signs[w.ndim > 1], w.shape) for w in model.get_weights()])
np.save(sys.argv[1], channel_sensitivity(model, ChannelGraph(model), Images()))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is an extra")
def test_jax_measures_the_sensitivity_that_tensorflow_measures(tmp_path):
    measured = []
    for backend in ("tensorflow", "jax"):
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
        file = tmp_path / f"{backend}.npy"
        subprocess.run([sys.executable, "-c", ON_ONE_BACKEND, file], env=environment, check=True)
        measured.append(np.load(file))
    assert measured[0].max() > 0
    np.testing.assert_allclose(measured[1], measured[0], rtol=1e-3, atol=1e-6)
