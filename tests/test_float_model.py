"""The normalization at a graph's beginning: recognised, and absorbed so that int8 takes `pixel - 128` exactly."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from converters import CheckFailed, Int8, Preprocessing, to_tflite
from converters.float_model import convert_float, find_normalization
from converters.quantization.normalization import strip_normalization
from converters.sources import open_source
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import interpreter, predict

# What a network's front does to pixels: its layers, x = scale * pixel + offset, and the zero points that stand for 0.0;
# pixel 127.5 lies between two.
FRONTS = {
    "/255": (lambda layers, x: layers.Rescaling(1 / 255)(x), 1 / 255, 0.0, (-128,)),
    "/127.5-1": (lambda layers, x: layers.Rescaling(1 / 127.5, -1)(x), 1 / 127.5, -1.0, (-1, 0)),
    "/128-127/128": (lambda layers, x: layers.Rescaling(1 / 128, -127 / 128)(x), 1 / 128, -127 / 128, (-1,)),
    "two": (lambda layers, x: layers.Rescaling(2, -1)(layers.Rescaling(1 / 255)(x)), 2 / 255, -1.0, (-1, 0)),
}
PER_CHANNEL = (np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375]) ** 2)


def _int8_runner(content: bytes):
    at = interpreter(content)
    detail, out = at.get_input_details()[0], at.get_output_details()[0]

    def run(q: np.ndarray) -> np.ndarray:
        at.set_tensor(detail["index"], q[None].astype(detail["dtype"]))
        at.invoke()
        scale, zero_point = out["quantization"]
        return scale * (at.get_tensor(out["index"])[0].astype(np.float32) - zero_point)

    return run


def _sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(reference**2.0) / np.sum((reference - other) ** 2.0)))


def _logits(network, x: np.ndarray) -> np.ndarray:
    """What Keras computes, without tracing a function for it."""
    return np.asarray(network(x.astype(np.float32), training=False))


@pytest.fixture(scope="module")
def networks(small_network):
    """The small network behind each front, and its float model."""
    found = {front: small_network(layer) for front, (layer, *_) in FRONTS.items()}
    return {front: (network, convert_float(open_source(network))) for front, network in found.items()}


@pytest.fixture(scope="module")
def in_int8(networks, pixels):
    """Makes the int8 file of a front, each once."""
    return functools.cache(lambda front: to_tflite(networks[front][0], "int8", calibration=pixels))


QUICK = [front if front == "/127.5-1" else pytest.param(front, marks=pytest.mark.slow) for front in FRONTS]


@pytest.mark.parametrize("front", FRONTS)
def test_scaling_and_shift_are_found(networks, front):
    _, scale, offset, _ = FRONTS[front]
    model = networks[front][1]
    assert model.input_scale == pytest.approx((scale,), rel=1e-6)
    if offset:  # a scale alone is folded into the first convolution's weights by TensorFlow's converter
        assert find_normalization(Graph(model.content)).scale == pytest.approx(scale, rel=1e-6)
        assert find_normalization(Graph(model.content)).offset == pytest.approx(offset, abs=1e-6)
    assert model.takes_pixels


def test_a_model_without_normalization_has_none(small_network):
    model = convert_float(open_source(small_network()))
    assert find_normalization(Graph(model.content)) is None
    assert model.input_scale is None
    assert not model.takes_pixels


def test_a_file_whose_input_is_one_number_has_no_normalization(networks):
    graph = Graph(networks["/255"][1].content)
    graph.model.subgraphs[0].tensors[graph.inputs[0]].shape = np.zeros(0, np.int32)
    assert find_normalization(graph) is None


def test_a_scaling_that_is_not_of_pixels_is_not_taken_for_one(small_network, pixels):
    """A model that takes 0..1 and makes -1..1 of it keeps its range."""
    network = small_network(lambda layers, x: layers.Rescaling(2.0, -1.0)(x))
    model = convert_float(open_source(network))
    assert not model.takes_pixels
    x = pixels / np.float32(255)
    conversion = to_tflite(network, "int8", calibration=x)
    assert conversion.pixel_offset is None
    assert _sqnr(_logits(network, x), predict(conversion.content, x)) > 20


@pytest.mark.parametrize("front", QUICK)
def test_int8_takes_the_pixel_minus_128(networks, in_int8, pixels, front):
    _, scale, offset, zero_point = FRONTS[front]
    expected = _logits(networks[front][0], pixels)
    conversion = in_int8(front)
    assert conversion.pixel_offset == -128
    entry = conversion.metadata["input"]
    assert entry["scale"] == pytest.approx(scale if offset else 1.0, rel=1e-6)
    assert entry["zero_point"] in zero_point
    assert entry["name"] == "image"
    graph = Graph(conversion.content)
    assert next(graph.operators()).name == "CONV_2D", "the normalization costs nothing"
    run = _int8_runner(conversion.content)
    outputs = np.array([run(image.astype(np.int16) - 128) for image in pixels])
    assert _sqnr(expected, outputs) > 20


@pytest.fixture(scope="module")
def quantized_by_tensorflow(small_network, tmp_path_factory):
    """A function that quantizes the network without a front by TensorFlow, for the scaled images that it gets."""
    import tensorflow as tf

    bare, folder = small_network(), str(tmp_path_factory.mktemp("bare"))
    bare.export(folder, verbose=False)

    def converted(scaled: np.ndarray) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in scaled)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()

    return bare, converted


@pytest.mark.slow
@pytest.mark.parametrize("front", [front for front in FRONTS if front != "two"])  # its numbers are those of /127.5-1
def test_absorbing_loses_nothing_against_tensorflows_converter_without_normalization(
    networks, in_int8, quantized_by_tensorflow, pixels, front
):
    """TensorFlow quantizes the same network without its front; ours is fed raw pixels, theirs the scaled ones."""
    from ai_edge_litert.interpreter import Interpreter

    _, scale, offset, _ = FRONTS[front]
    bare, converted = quantized_by_tensorflow
    scaled = (np.float32(scale) * pixels + np.float32(offset)).astype(np.float32)
    expected = _logits(bare, scaled)
    np.testing.assert_allclose(_logits(networks[front][0], pixels), expected, atol=1e-4)

    content = converted(scaled)
    detail = Interpreter(model_content=content).get_input_details()[0]
    in_scale, zero_point = detail["quantization"]
    run = _int8_runner(content)
    theirs = np.array([run(np.clip(np.rint(x / in_scale) + zero_point, -128, 127)) for x in scaled])

    run = _int8_runner(in_int8(front).content)
    ours = np.array([run(image.astype(np.int16) - 128) for image in pixels])
    assert _sqnr(expected, ours) > _sqnr(expected, theirs) - 3


@pytest.mark.slow
def test_two_scalings_give_the_file_of_one(in_int8):
    """Both fronts make -1..1 of pixels."""
    assert in_int8("two").metadata["input"] == in_int8("/127.5-1").metadata["input"]


def test_the_normalized_computes_what_the_whole_model_does(networks, pixels):
    """In float, exactly: also the shift of half a pixel that goes into the bias, away from the padding."""
    for _, model in networks.values():
        normalized = strip_normalization(model, None)
        assert find_normalization(Graph(normalized.content)) is None
        whole, part = predict(model.content, pixels), predict(normalized.content, normalized.normalize(pixels))
        assert _sqnr(whole, part) > 40


def test_half_a_pixel_in_the_bias_is_exact_where_nothing_is_padded(pixels):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(image)
    x = keras.layers.Conv2D(6, 3, padding="valid", activation="relu6")(x)
    network = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model = convert_float(open_source(network))
    normalized = strip_normalization(model, None)
    assert normalized.zero_point is not None
    expected = _logits(network, pixels)
    np.testing.assert_allclose(predict(normalized.content, normalized.normalize(pixels)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_normalization_by_channel_is_absorbed_exactly_where_nothing_is_padded(pixels, kind):
    import keras

    mean, variance = PER_CHANNEL
    image = keras.Input((32, 32, 3))
    x = keras.layers.Normalization(mean=mean, variance=variance)(image)
    if kind == "CONV_2D":
        x = keras.layers.Conv2D(6, 3, padding="valid", activation="relu6")(x)
    else:
        x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="valid", activation="relu6")(x)
    network = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model = convert_float(open_source(network))
    normalized = strip_normalization(model, Preprocessing(32))
    assert [operator.name for operator in Graph(normalized.content).operators()] == [kind, "MEAN"]
    expected = _logits(network, pixels)
    np.testing.assert_allclose(predict(normalized.content, normalized.normalize(pixels)), expected, atol=1e-5)


def test_normalization_by_channel_far_apart_stays_in_the_graph(small_network, pixels):
    network = small_network(lambda layers, x: layers.Rescaling(1 / 64, offset=[-0.5, -1.0, -2.0])(x))
    model = convert_float(open_source(network))
    assert strip_normalization(model, Preprocessing(32)).content == model.content


def test_normalization_by_channel_takes_pixels_and_costs_no_operator(small_network, pixels):
    mean, variance = PER_CHANNEL
    network = small_network(lambda layers, x: layers.Normalization(mean=mean, variance=variance)(x))
    model = convert_float(open_source(network))
    assert model.takes_pixels
    conversion = to_tflite(network, "int8", calibration=pixels)
    assert conversion.pixel_offset == -128
    assert conversion.metadata["input"]["scale"] == pytest.approx(np.mean(1 / np.sqrt(variance)), rel=1e-6)
    assert conversion.metadata["input"]["zero_point"] == 114 - 128  # the mean of the channels' means, weighed by scale
    assert next(Graph(conversion.content).operators()).name == "CONV_2D"
    integer, total = count_operators(Graph(conversion.content))
    assert integer == total
    expected = _logits(network, pixels)
    assert _sqnr(expected, predict(conversion.content, pixels, pixel_offset=-128)) > 20


def test_scaling_then_normalization_by_channel_takes_pixels(small_network):
    network = small_network(
        lambda layers, x: layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506])(
            layers.Rescaling(1 / 255)(x)
        )
    )
    assert convert_float(open_source(network)).takes_pixels


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        pytest.param(1 / 255, 0.0, marks=pytest.mark.slow),  # its normalized zero is the pixel zero
        (1 / 127.5, -1.0),
        pytest.param(1 / 128, -127 / 128, marks=pytest.mark.slow),
    ],
)
def test_explicit_padding_before_the_first_convolution_keeps_the_outputs(pixels, scale, offset):
    """Padding with the normalized zero is not padding with the pixel zero."""
    import keras

    keras.utils.set_random_seed(5)
    image = keras.Input((32, 32, 3))
    x = keras.layers.ZeroPadding2D(3)(keras.layers.Rescaling(scale, offset)(image))
    x = keras.layers.Conv2D(8, 7, strides=2, activation="relu")(x)
    network = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))
    conversion = to_tflite(network, "int8", calibration=pixels)
    assert conversion.pixel_offset == -128
    expected = _logits(network, pixels)
    assert _sqnr(expected, predict(conversion.content, pixels, pixel_offset=-128)) > 20


def test_a_preprocessing_that_says_pixels_is_believed(small_network, pixels):
    network = small_network()
    conversion = to_tflite(network, "int8", calibration=pixels, preprocessing=Preprocessing(32))
    assert conversion.pixel_offset == -128
    assert conversion.metadata["input"]["scale"] == 1.0


def test_uint8_takes_the_pixel_itself(small_model, small_conversion, pixels):
    conversion = to_tflite(small_model, Int8(io="uint8"), calibration=pixels)
    assert conversion.pixel_offset == 0
    run, signed = _int8_runner(conversion.content), _int8_runner(small_conversion.content)
    for image in pixels[:8]:
        np.testing.assert_allclose(run(image), signed(image.astype(np.int16) - 128), atol=1e-6)


def test_the_signature_names_input_and_output(small_model, pixels):
    for scheme in ("float32", "int8", Int8(io="uint8"), Int8(io="float32")):
        content = to_tflite(small_model, scheme, calibration=pixels).content
        runner = interpreter(content).get_signature_runner("serving_default")
        details = runner.get_input_details()
        assert list(details) == ["image"]
        assert list(runner.get_output_details()) == ["logits"]
        assert details["image"]["name"] == "image"
        dtype = details["image"]["dtype"]
        assert runner(image=np.zeros((1, 32, 32, 3), dtype))["logits"].shape == (1, 10)


@pytest.mark.slow
def test_normalization_by_channel_goes_through_explicit_padding(pixels):
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    mean, variance = PER_CHANNEL
    x = layers.Rescaling(1 / np.sqrt(variance), -mean / np.sqrt(variance))(image)
    x = layers.Conv2D(8, 5, strides=4, activation="relu")(layers.ZeroPadding2D(2)(x))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    conversion = to_tflite(model, "int8", calibration=pixels)
    assert {"MUL", "ADD", "SUB"}.isdisjoint(op.name for op in Graph(conversion.content).operators())
    assert conversion.pixel_offset == -128
    assert conversion.parity.sqnr_db > 20


def test_an_operator_that_tflite_lacks_is_named_with_its_layer_in_one_line(capfd):
    import keras
    from keras import layers, ops

    class Error(layers.Layer):
        def call(self, x):
            return ops.erf(x)

    image = keras.Input((32, 32, 3))
    x = keras.Sequential([layers.Conv2D(4, 3), Error(name="erf_layer")], name="block")(image)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    with pytest.raises(CheckFailed, match=r"no operator for Erf \(layer 'block/erf_layer'\)") as failure:
        to_tflite(model, "float32")
    assert "\n" not in str(failure.value)
    printed = capfd.readouterr()
    assert "tf.Erf" not in printed.out + printed.err
    assert "error" not in printed.out + printed.err
