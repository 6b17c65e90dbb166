"""The quantized graphs: integer operators, scales of weights and activations, types of input and output."""

from __future__ import annotations

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.float_model import convert_float
from converters.parity import sqnr_db
from converters.quantization.normalization import strip_normalization
from converters.quantization.ranges import activation_ranges
from converters.sources import open_source
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict


@pytest.fixture
def int8(small_conversion):
    return small_conversion


def test_every_operator_of_int8_is_integer(int8):
    graph = Graph(int8.content)
    assert count_operators(graph) == (int8.metadata["operators"]["total"],) * 2
    assert {str(graph.dtype(t)) for t in (*graph.inputs, *graph.outputs)} == {"int8"}


def test_weights_have_a_scale_a_channel_and_dense_one(int8):
    graph = Graph(int8.content)
    channels = {}
    for operator in graph.operators():
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            scales, zero_points = graph.quantization(operator.inputs[1])
            channels.setdefault(operator.name, set()).add(len(scales))
            assert not zero_points.any()
            weights = graph.constant(operator.inputs[1])
            assert weights.dtype == np.int8
            assert weights.min() >= -127
            bias = graph.quantization(operator.inputs[2])[0]
            inputs = graph.quantization(operator.inputs[0])[0]
            np.testing.assert_allclose(bias, inputs * scales, rtol=1e-5)
    assert channels == {"CONV_2D": {8}, "DEPTHWISE_CONV_2D": {8}, "FULLY_CONNECTED": {1}}


def test_activations_hold_the_calibrated_ranges(small_model, pixels):
    int8 = to_tflite(small_model, Int8(equalization=False, ranges="minmax", correction="none"), calibration=pixels)
    model = convert_float(open_source(small_model))
    normalized = strip_normalization(model, None)
    ranges = activation_ranges(normalized.content, normalized.normalize(pixels))
    graph = Graph(int8.content)
    seen = 0
    for operator in graph.operators():
        if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD"):
            continue
        name = graph.name(operator.outputs[0])
        low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
        scale, zero_point = (values[0] for values in graph.quantization(operator.outputs[0]))
        assert scale == pytest.approx((high - low) / 255, rel=0.05), name
        assert zero_point == pytest.approx(-128 - low / scale, abs=1), name
        seen += 1
    assert seen >= 3


def test_other_io_types_give_the_outputs_of_int8(small_model, int8, pixels):
    wanted = predict(int8.content, pixels, pixel_offset=-128)
    for io, dtype in (("uint8", "uint8"), ("float32", "float32")):
        conversion = to_tflite(small_model, Int8(io=io), calibration=pixels)
        graph = Graph(conversion.content)
        assert {str(graph.dtype(t)) for t in (*graph.inputs, *graph.outputs)} == {dtype}
        outputs = predict(conversion.content, pixels, pixel_offset=conversion.pixel_offset)
        step = int8.metadata["output"]["scale"]
        assert np.abs(outputs - wanted).max() <= 1.01 * step if io == "float32" else np.array_equal(outputs, wanted)
        assert np.mean(outputs == wanted) > 0.9


def test_uint8_is_integer_throughout(small_model, pixels):
    conversion = to_tflite(small_model, Int8(io="uint8"), calibration=pixels)
    integer, total = count_operators(Graph(conversion.content))
    assert integer == total


def test_float16_and_dynamic_int8_store_what_they_say(small_model, pixels):
    wanted = {"float16": np.float16, "dynamic_int8": np.int8}
    for scheme, dtype in wanted.items():
        graph = Graph(to_tflite(small_model, scheme).content)
        constants = [graph.constant(t) for t in range(len(graph.tensors))]
        kernels = [c for c in constants if c is not None and c.ndim == 4 and c.size > 100]
        assert kernels
        assert all(k.dtype == dtype for k in kernels), scheme


def test_runs_twice_alike(small_model, pixels, int8):
    again = to_tflite(small_model, "int8", calibration=pixels)
    np.testing.assert_array_equal(
        predict(again.content, pixels, pixel_offset=-128), predict(int8.content, pixels, pixel_offset=-128)
    )


@pytest.mark.parametrize("correction", [pytest.param("none", marks=pytest.mark.slow), "gptq"])
@pytest.mark.parametrize("kind", ["Conv2D", "DepthwiseConv2D"])
def test_a_channel_of_bias_alone_keeps_its_value(kind, correction, pixels):
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    layer = layers.Conv2D(3, 3, name="layer") if kind == "Conv2D" else layers.DepthwiseConv2D(3, name="layer")
    x = layers.GlobalAveragePooling2D()(layer(layers.Rescaling(1 / 128, -127 / 128)(image)))
    model = keras.Model(image, x)
    weights = layer.get_weights()[0]
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, weights.shape)
    channel = np.moveaxis(weights, -1 if kind == "Conv2D" else 2, 0)
    channel[0], channel[1] = 0.0, 1e-13  # one dead, one next to dead: scales from them would not hold these biases
    layer.set_weights([weights, np.array([2.0, -1.5, 0.1])])
    conversion = to_tflite(model, Int8(correction=correction), calibration=pixels)
    logits = predict(conversion.content, pixels, pixel_offset=-128)
    assert logits[:, :2] == pytest.approx(np.broadcast_to([2.0, -1.5], (len(pixels), 2)), abs=0.05)


@pytest.mark.parametrize("scheme", [Int8(correction="none"), Int8(), "int16x8"])
def test_a_dead_layer_and_what_it_feeds_keep_their_values(scheme, pixels):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 127.5, -1)(image))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    dead = layers.Conv2D(4, 1, activation="relu", bias_initializer=keras.initializers.Constant(-10.0))(squeezed)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(dead)
    closed = layers.Conv2D(8, 1, activation="relu", bias_initializer=keras.initializers.Constant(-10.0))(squeezed)
    shut = layers.Multiply()([x, closed])  # 0 everywhere
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([layers.Multiply()([x, gate]), shut]))
    model = keras.Model(image, layers.Dense(5)(pooled))
    conversion = to_tflite(model, scheme, calibration=pixels)
    logits = predict(conversion.content, pixels, pixel_offset=conversion.pixel_offset)
    assert sqnr_db(model.predict(pixels.astype(np.float32), verbose=0), logits) > 25
