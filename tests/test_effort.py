"""int8 of high effort and of one scale a tensor: sensitivities by a closed form, gains that are exact, better files."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.errors import InputError
from converters.parity import sqnr_db
from converters.quantization import candidates, relu6_gains
from converters.quantization.candidates import with_mirror_images
from converters.quantization.equalization import equalizable, equalized
from converters.quantization.gptq import correct
from converters.quantization.ranges import observe
from converters.quantization.relu6_gains import least_noise_gains, relu6_tensors
from converters.quantization.sensitivity import least_noise_channels, noise
from converters.quantization.tensorflow_graph import TensorflowGraph, tensorflow_graph
from converters.quantization.weight_equalization import weight_gains
from converters.tflite.graph import WEIGHTED, Graph
from converters.tflite.runtime import predict

CHECKS_NOTHING = -100.0  # dB


@functools.cache
def _uneven():
    """Separable convolutions with RELU6 between channels whose ranges differ a hundredfold, as in MobileNetV2."""
    import keras
    from keras import layers

    rng = np.random.default_rng(0)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for number, (channels, strides) in enumerate(((16, 2), (24, 1), (32, 2))):
        x = layers.Conv2D(channels, 3 if not number else 1, strides=1, padding="same", name=f"wide{number}")(x)
        x = layers.ReLU(6)(x)
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", name=f"each{number}")(x)
        x = layers.ReLU(6)(x)
        x = layers.Conv2D(8, 1, name=f"narrow{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, layers.Dense(10, name="logits")(x))
    gains = np.ones(3)  # of the channels that a layer reads
    for layer in model.layers:
        if not layer.get_weights():
            continue
        kernel, bias = layer.get_weights()
        kernel = rng.normal(0, 1, kernel.shape)
        if layer.name.startswith("each"):
            kernel = kernel / gains[:, None] / 3
            gains = np.ones_like(gains)
        else:
            kernel = kernel / gains[:, None] / np.sqrt(np.prod(kernel.shape[:-1]))
            gains = np.exp(rng.uniform(-4, 0, bias.shape)) if layer.name.startswith("wide") else np.ones(bias.shape)
            kernel = kernel * gains
        layer.set_weights([kernel, 0 * bias])
    return model


@functools.cache
def _float_content() -> bytes:
    return to_tflite(_uneven(), "float32").content


def _sqnr(pixels: np.ndarray, **options) -> float:
    scheme = Int8(min_sqnr_db=CHECKS_NOTHING, **options)
    return to_tflite(_uneven(), scheme, calibration=pixels).parity.sqnr_db


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenet_v2", "efficientnet_lite0", "efficientnet_b0")),
    ],
)
def test_a_float_graph_computes_in_tensorflow_what_the_runtime_does(name):
    import keras

    from edge_cv import models

    keras.utils.set_random_seed(0)
    content = to_tflite(models.build(name, classes=10, image_size=64), "float32").content
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    graph = tensorflow_graph(content, images)
    assert graph is not None
    output = np.asarray(graph.run(images)[graph.graph.outputs[0]])
    assert sqnr_db(predict(content, images), output.reshape(2, -1)) > 80


def test_an_operator_that_is_not_known_is_told(pixels):
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = keras.ops.sin(layers.Conv2D(4, 3)(image))
    content = to_tflite(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))), "float32").content
    assert tensorflow_graph(content, pixels.astype(np.float32)) is None


def test_the_noise_of_an_error_is_that_of_the_linear_network_after_it(pixels):
    import keras
    from keras import layers

    rng = np.random.default_rng(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=4, name="features")(image)
    model = keras.Model(image, layers.Dense(6, name="logits")(layers.Flatten()(x)))
    content = to_tflite(model, "float32").content
    images = pixels.astype(np.float32)
    graph = TensorflowGraph(content)
    tensor = next(op.outputs[0] for op in graph.operators if op.name == "CONV_2D")
    error = rng.normal(0, 1, graph.graph.shape(tensor)).astype(np.float32)
    errors = {tensor: [lambda values: error + 0 * values[tensor], lambda values: 0 * error + 1]}
    kernel = model.get_layer("logits").get_weights()[0].reshape(-1, 4, 6)
    varying = (error - error.mean((0, 1, 2))).reshape(-1, 4)  # the biases absorb the mean of each channel
    by_channel = np.square(np.einsum("pc,pco->co", varying, kernel)).sum(1)
    power = np.sum(predict(content, images) ** 2) / len(images)
    exact = np.sum(np.einsum("pc,pco->o", varying, kernel) ** 2) / power
    found = noise(graph, images, errors)[tensor]
    assert found[0] == pytest.approx(exact, rel=0.3)  # 96 random v
    assert found[1] == pytest.approx(0, abs=1e-9)
    found = noise(graph, images, errors, by_channel=True)[tensor]
    np.testing.assert_allclose(found[0], by_channel / power, rtol=0.4)


def test_a_channel_is_clipped_where_its_range_is_wider_than_its_values(pixels):
    content, images = _float_content(), pixels.astype(np.float32)
    name = sorted(equalizable(content))[0]
    seen = observe(content, images, frozenset([name]))[1][name]
    wide = np.arange(len(seen.low)) % 2 == 0
    high = np.where(wide, seen.mean + 3 * (seen.high - seen.mean), seen.high)
    wider = {name: dataclasses.replace(seen, high=high)}
    found = least_noise_channels(TensorflowGraph(content), images, wider)[name]
    share = (found.high - seen.mean) / (high - seen.mean)
    np.testing.assert_allclose(share[wide], 0.65)
    assert share[~wide].min() > 0.8


def test_channels_are_shifted_to_the_middle_of_their_ranges(pixels):
    content, images = _float_content(), pixels.astype(np.float32)
    _, statistics = observe(content, images, equalizable(content))
    changed, maps = equalized(content, statistics, centre="middle")
    assert sqnr_db(predict(content, images), predict(changed, images)) > 60
    (name, *_) = [name for name, map_ in maps.items() if np.any(map_.shift)]
    after = observe(changed, images, frozenset([name]))[1][name]
    np.testing.assert_allclose(after.low, -after.high, rtol=1e-3)


def test_gains_through_relu6_keep_the_outputs(pixels):
    content, images = _float_content(), pixels.astype(np.float32)
    _, statistics = observe(content, images, equalizable(content) | relu6_tensors(content))
    gains = least_noise_gains(TensorflowGraph(content), statistics, images[:16])
    assert gains
    assert set(gains) <= relu6_tensors(content)
    assert all(gain.min() >= 1 for gain in gains.values())
    changed, maps = equalized(content, statistics, gains)
    assert set(gains) <= set(maps)
    assert sqnr_db(predict(content, images), predict(changed, images)) > 60


def test_a_tensor_that_is_read_and_whose_weights_are_rounded_has_both_noises(pixels, monkeypatch):
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = layers.ReLU(6)(layers.Conv2D(8, 3, strides=4)(image))
    for _ in range(2):  # the output of the convolution in the middle is read by the next, as in MobileNetV1
        x = layers.ReLU(6)(layers.DepthwiseConv2D(3, padding="same")(x))
        x = layers.ReLU(6)(layers.Conv2D(8, 1)(x))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    content, images = to_tflite(model, "float32").content, pixels.astype(np.float32)
    calls = []

    def watched(graph, inputs, errors, **options):
        calls.append({tensor: len(candidates) for tensor, candidates in errors.items()})
        return noise(graph, inputs, errors, **options)

    monkeypatch.setattr(relu6_gains, "noise", watched)
    statistics = observe(content, images, relu6_tensors(content))[1]
    least_noise_gains(TensorflowGraph(content), statistics, images[:16])
    _, activations, weights = calls
    assert set(activations) & set(weights)
    assert set(activations.values()) == {sum(map(len, relu6_gains.CANDIDATES.values()))}
    assert set(weights.values()) == {len(relu6_gains.CANDIDATES)}


def test_weights_are_equalized_within_their_layers(pixels):
    content, images = _float_content(), pixels.astype(np.float32)
    _, statistics = observe(content, images, equalizable(content) | relu6_tensors(content))
    changed, _ = equalized(content, statistics, weight_gains(content, statistics, strength=1.0))
    assert sqnr_db(predict(content, images), predict(changed, images)) > 60

    def spread(of: bytes) -> float:
        """The mean ratio, as a logarithm, of a depthwise layer's largest weight to each channel's."""
        graph = Graph(of)
        layers = [graph.values(o.inputs[1]) for o in graph.operators() if o.name == "DEPTHWISE_CONV_2D"]
        return float(np.mean([np.log(np.abs(w).max() / np.abs(w).max((0, 1, 2))).mean() for w in layers]))

    assert spread(changed) < 0.5 * spread(content)


def test_high_effort_is_more_accurate_where_channels_differ(pixels):
    assert _sqnr(pixels, effort="high") > _sqnr(pixels) + 3


def test_one_scale_a_tensor_is_more_accurate_when_equalized(pixels):
    equal = _sqnr(pixels, weights="per_tensor")
    assert equal > _sqnr(pixels, weights="per_tensor", equalization=False) + 3
    assert equal > _sqnr(pixels, weights="per_tensor", equalization=False, correction="none") + 6


@pytest.mark.parametrize("weights", ["per_tensor", "per_tensor_pow2"])
def test_weights_have_one_scale_a_layer(pixels, weights):
    made = to_tflite(_uneven(), Int8(weights=weights, min_sqnr_db=5), calibration=pixels)
    graph = Graph(made.content)
    scales = [graph.parameters(o.inputs[1])[0] for o in graph.operators() if o.name in WEIGHTED]
    assert len(scales) == 10
    assert {len(scale) for scale in scales} == {1}
    if weights == "per_tensor_pow2":
        exponents = np.log2([scale[0] for scale in scales])
        np.testing.assert_array_equal(exponents, np.rint(exponents))


@pytest.mark.parametrize("target", ["stm32mp25", "artpec8", "a311d"])
def test_a_target_with_one_scale_a_layer_gets_it(target, pixels):
    from converters.devices.targets import check

    made = to_tflite(_uneven(), Int8(min_sqnr_db=5), calibration=pixels, target=target)
    assert made.record.options["weights"] == "per_tensor"
    assert check(made.content, target) == ()
    (found,) = check(to_tflite(_uneven(), "int8", calibration=pixels).content, target)
    assert "one scale a layer" in found.what
    assert "per_tensor" in found.remedy


@pytest.mark.parametrize("options", [{"effort": "higher"}, {"weights": "per_row"}])
def test_an_unknown_option_is_refused_by_name(options):
    (name, value), *_ = options.items()
    with pytest.raises(InputError, match=f"{name} of an int8 scheme.*{value}"):
        Int8(**options)


@pytest.mark.parametrize("options", [{"effort": "high"}, {"weights": "per_tensor"}])
def test_the_file_is_made_of_all_images_and_their_mirror_images_unless_these_are_worse(pixels, monkeypatch, options):
    counts = []

    def watched(float_content, content, inputs, **options):
        counts.append(len(inputs))
        return correct(float_content, content, inputs, **options)

    monkeypatch.setattr(candidates, "correct", watched)
    to_tflite(_uneven(), Int8(min_sqnr_db=-20, **options), calibration=pixels[:40])
    assert counts[0] == 32  # eight are held out
    assert counts[-2] == 64
    assert counts[-1] in (40, 80)


def test_an_image_and_its_mirror_image_are_both_at_even_or_both_at_odd_places():
    images = np.arange(5 * 2 * 3).reshape(5, 1, 2, 3)
    both = with_mirror_images(images)
    assert len(both) == 8
    np.testing.assert_array_equal(both[::2][:2], images[[0, 2]])
    np.testing.assert_array_equal(both[::2][2:], images[[0, 2], :, ::-1])
