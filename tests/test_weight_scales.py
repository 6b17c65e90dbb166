"""One scale for a layer's weights: the least square error, powers of two, and biases that fit."""

from __future__ import annotations

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.parity import sqnr_db
from converters.quantization.weight_scales import with_fitted_scales
from converters.tflite.graph import WEIGHTED, Graph
from converters.tflite.runtime import predict


def _long_tails(bias: float = 0.5):
    """Two convolutions and a dense layer with many weights, few of them far larger than the others."""
    import keras
    from keras import layers

    rng = np.random.default_rng(0)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    x = layers.Conv2D(256, 3, strides=2, activation="relu")(x)
    model = keras.Model(image, layers.Dense(1000)(layers.GlobalAveragePooling2D()(x)))
    for layer in model.layers:
        if layer.get_weights():
            kernel, old = layer.get_weights()
            kernel = rng.laplace(size=kernel.shape) / np.sqrt(np.prod(kernel.shape[:-1]))
            layer.set_weights([kernel, np.full(old.shape, bias)])
    return model


def _files(pixels, model) -> tuple[bytes, bytes]:
    """The float graph and an int8 file with one scale a layer, whose weights are rounded to the nearest."""
    plain = Int8(equalization=False, ranges="minmax", correction="none", weights="per_tensor", min_sqnr_db=-20)
    made = to_tflite(model, plain, calibration=pixels)
    return to_tflite(model, "float32").content, made.content


def _layers(float_content: bytes, content: bytes) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Of each layer: float weights, integers, scale."""
    float_graph, graph = Graph(float_content), Graph(content)
    twins = float_graph.by_output()
    return [
        (
            float_graph.values(twins[graph.name(o.outputs[0])].inputs[1]),
            graph.values(o.inputs[1]),
            float(graph.parameters(o.inputs[1])[0][0]),
        )
        for o in graph.operators()
        if o.name in WEIGHTED
    ]


def _error(weights: np.ndarray, scale: float) -> float:
    return float(np.mean((np.clip(np.rint(weights / scale), -127, 127) * scale - weights) ** 2))


def test_the_scale_has_nearly_the_least_error_of_all(pixels):
    float_content, content = _files(pixels, _long_tails())
    narrowed = with_fitted_scales(float_content, content, narrow=True, powers_of_two=False)
    shares = []
    for weights, integers, scale in _layers(float_content, narrowed):
        whole = np.abs(weights).max() / 127
        least = min(_error(weights, whole * share) for share in np.linspace(0.3, 1, 141))
        assert np.mean((integers * np.float64(scale) - weights) ** 2) <= 1.03 * least
        shares.append(scale / whole)
    assert min(shares) < 0.85


def test_clipping_a_few_weights_makes_the_outputs_more_accurate(pixels):
    float_content, content = _files(pixels, _long_tails())
    narrowed = with_fitted_scales(float_content, content, narrow=True, powers_of_two=False)
    reference = predict(float_content, pixels.astype(np.float32))
    before, after = (sqnr_db(reference, predict(file, pixels, pixel_offset=-128)) for file in (content, narrowed))
    assert after > before + 0.5


@pytest.mark.parametrize("narrow", [False, True])
def test_powers_of_two_have_the_least_error_of_those_that_are_allowed(pixels, narrow):
    float_content, content = _files(pixels, _long_tails())
    rounded = with_fitted_scales(float_content, content, narrow=narrow, powers_of_two=True)
    for weights, _, scale in _layers(float_content, rounded):
        above = 2.0 ** np.ceil(np.log2(np.abs(weights).max() / 127))
        powers = [above / 2**k for k in range(3 if narrow else 1)]
        assert scale == min(powers, key=lambda power: _error(weights, power))


@pytest.mark.parametrize("bias", [3e3, 1e6])
def test_biases_fit_their_integers(pixels, bias):
    float_content, content = _files(pixels, _long_tails(bias))
    narrowed = with_fitted_scales(float_content, content, narrow=True, powers_of_two=False)
    float_graph, graph = Graph(float_content), Graph(narrowed)
    twins = float_graph.by_output()
    for operator in graph.operators():
        if operator.name in WEIGHTED:
            integers, (scale, _) = graph.values(operator.inputs[2]), graph.parameters(operator.inputs[2])
            wanted = float_graph.values(twins[graph.name(operator.outputs[0])].inputs[2])
            np.testing.assert_allclose(integers * scale.astype(np.float64), wanted, rtol=1e-6, atol=float(scale[0]))
            assert np.abs(integers.astype(np.int64)).max() <= 2**30 + 1
