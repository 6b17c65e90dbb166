"""The ranges of tensors that only an activation reads: the least error of the activation's result."""

from __future__ import annotations

import numpy as np
import pytest

from converters.float_model import convert_float
from converters.quantization.ranges import activation_ranges, activations_of, clipped_ranges
from converters.sources import open_source
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict

RESULTS = {
    "swish": lambda x: x / (1 + np.exp(-x)),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def network(activation: str):
    """A convolution of values mostly far below 0, an activation, and a layer of its means."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    convolution = layers.Conv2D(
        8, 3, name="layer", kernel_initializer=keras.initializers.RandomNormal(stddev=4.0), bias_initializer="ones"
    )
    x = layers.Activation(activation)(convolution(layers.Rescaling(1 / 127.5, -1)(image)))
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    step = (high - low) / 255
    return (np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step).astype(np.float64)


@pytest.mark.parametrize("activation", RESULTS)
def test_the_range_before_an_activation_has_nearly_the_least_error_of_its_result(activation: str, pixels: np.ndarray):
    content = convert_float(open_source(network(activation))).content
    graph, inputs = Graph(content), pixels.astype(np.float32)
    (name,) = (n for n in activations_of(graph) if n.startswith("layer"))
    graph.set_outputs([t for o in graph.operators() for t in o.outputs if graph.name(t) == name])
    values, result = predict(graph.to_bytes(), inputs).astype(np.float64), RESULTS[activation]
    ranges = activation_ranges(content, inputs)

    def error(low: float, high: float) -> float:
        return float(np.mean((result(rounded(values, low, high)) - result(values)) ** 2))

    chosen = clipped_ranges(content, inputs, ranges)[name]
    low, high = ranges[name]
    shares = np.geomspace(1, 0.02, 25)
    least = min(error(low * below, high * above) for below in shares for above in shares)
    assert error(*chosen) < 1.25 * least
    assert error(*chosen) < 0.5 * error(low, high)


def test_a_tensor_that_another_layer_reads_too_keeps_its_own_values():
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, name="layer")(image)
    both = layers.Add()([layers.Activation("hard_swish")(x), x])
    content = convert_float(open_source(keras.Model(image, layers.GlobalAveragePooling2D()(both)))).content
    assert activations_of(Graph(content)) == {}
