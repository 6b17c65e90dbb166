"""Equalization: outputs stay the same, channels get similar ranges, and RELU6 is left alone."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.parity import sqnr_db
from converters.quantization.equalization import equalizable, equalized
from converters.quantization.ranges import observe
from converters.tflite.channels import ChannelMap, read_channels
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict


def _residual(activation: str | None, padding: str = "same", kernel: int = 1):
    """Two convolutions, a sum and a pooling between channels of very different ranges."""
    import keras
    from keras import layers

    rng = np.random.default_rng(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu6", name="first")(layers.Rescaling(1 / 127.5, -1)(image))
    a = layers.Conv2D(8, 1, name="a")(x)
    b = layers.Conv2D(8, 1, name="b")(layers.Conv2D(16, kernel, padding=padding, activation=activation, name="wide")(a))
    x = layers.Add(name="sum")([a, b])
    x = layers.AveragePooling2D(2, padding="same")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 1, activation=activation, name="last")(x))
    model = keras.Model(image, layers.Dense(10, name="logits")(x))
    for layer in model.layers:
        if layer.get_weights():
            kernel_values, bias = layer.get_weights()
            gains = np.exp(rng.normal(0, 2.0, bias.shape)) if layer.name in ("a", "b", "wide") else 1.0
            kernel_values = rng.normal(0, 1 / np.sqrt(np.prod(kernel_values.shape[:-1])), kernel_values.shape)
            layer.set_weights([kernel_values * gains, rng.normal(0, 0.3, bias.shape) * gains])
    return model


def _equalized(content: bytes, images: np.ndarray) -> tuple[bytes, dict[str, ChannelMap]]:
    return equalized(content, observe(content, images, equalizable(content))[1])


@functools.cache
def _float_content(activation: str | None, padding: str = "same", kernel: int = 1) -> bytes:
    return to_tflite(_residual(activation, padding, kernel), "float32").content


@pytest.mark.parametrize(
    ("activation", "padding", "kernel"),
    [
        *(("relu", "same", 3), ("relu6", "same", 1)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("relu", "same", 1), ("relu", "valid", 1))),
        pytest.param(None, "same", 3, marks=pytest.mark.slow),
    ],
)
def test_outputs_stay_the_same(pixels, activation, padding, kernel):
    content = _float_content(activation, padding, kernel)
    images = pixels.astype(np.float32)
    changed, maps = _equalized(content, images[:16])
    assert maps
    assert sqnr_db(predict(content, images), predict(changed, images)) > 90
    assert [o.name for o in Graph(content).operators()] == [o.name for o in Graph(changed).operators()]


def test_channels_come_nearer_to_each_other_and_to_zero(pixels):
    content = _float_content("relu")
    images = pixels.astype(np.float32)
    changed, maps = _equalized(content, images)

    def of_channels(of: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
        graph = Graph(of)
        graph.set_outputs([t for op in graph.operators() for t in op.outputs if graph.name(t) == name])
        values = predict(graph.to_bytes(), images).reshape(-1, graph.shape(graph.outputs[0])[-1])
        return np.ptp(values, axis=0), values.mean(0)

    for name in ("a", "b", "sum"):
        before, after = (of_channels(of, name) for of in (content, changed))
        assert after[0].max() / np.median(after[0]) < before[0].max() / np.median(before[0])
        np.testing.assert_allclose(after[1], 0, atol=1e-2 * after[0].max())
        assert np.any(maps[name].shift != 0)


def test_tensors_behind_relu6_stay(pixels):
    _, maps = _equalized(_float_content("relu6"), pixels.astype(np.float32))
    assert not {"first", "wide", "last"} & set(maps)
    _, maps = _equalized(_float_content("relu"), pixels.astype(np.float32))
    assert {"wide", "last"} <= set(maps)
    assert "first" not in maps


def test_a_tensor_that_a_padded_window_reads_is_scaled_but_not_shifted(pixels):
    _, maps = _equalized(_float_content("relu", "same", 3), pixels.astype(np.float32))
    assert not maps["a"].shift.any()
    assert np.ptp(maps["a"].gain) > 0


def test_an_equalized_file_stores_its_channel_maps_and_is_more_accurate(pixels):
    model = _residual("relu")
    made, without = (
        to_tflite(model, Int8(equalization=equalization, ranges="minmax"), calibration=pixels)
        for equalization in (True, False)
    )
    maps = read_channels(Graph(made.content))
    assert {"a", "b", "sum", "wide"} <= set(maps)
    assert read_channels(Graph(without.content)) == {}
    assert made.parity.sqnr_db > without.parity.sqnr_db
    graph = Graph(made.content)
    channels = {graph.name(t): graph.shape(t)[-1] for op in graph.operators() for t in op.outputs}
    assert all(len(map_.gain) == len(map_.shift) == channels[name] for name, map_ in maps.items())


def test_channels_that_are_all_but_constant_are_not_spread_over_all_steps(pixels):
    """As in networks of random weights; the runtime refuses the scales that would be needed."""
    import keras
    from keras import layers

    import converters

    keras.utils.set_random_seed(2)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    faint = keras.initializers.RandomNormal(stddev=1e-7)
    y = layers.Conv2D(8, 1, activation="relu6", kernel_initializer=faint, bias_initializer="ones")(x)
    y = layers.Conv2D(8, 1)(layers.Conv2D(8, 1)(y))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D(keepdims=True)(y), pooled])
    model = keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))
    made = converters.to_tflite(model, "int8", calibration=pixels)
    assert made.parity.sqnr_db > 30
