"""MobileNet and EfficientNet: conversion of each architecture, preprocessing, scalings and options."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from converters import Int8, to_onnx, to_tflite
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv import models
from edge_cv.models import efficientnet

# The other variants have the same blocks, more or fewer of them; test_models.py builds them.
CHAIN = (
    ("mobilenet_v1", {"alpha": 0.25}),
    ("mobilenet_v2", {"alpha": 0.35}),
    ("mobilenet_v3_small", {"alpha": 0.25, "minimalistic": True}),
    ("mobilenet_v3_large", {"alpha": 0.25}),
    ("efficientnet_b0", {"alpha": 0.6, "phi": -1}),
    ("efficientnet_b0", {"alpha": 0.5, "lite": True}),
)
IMAGE_SIZE = 64  # pixels


def photos(count: int, size: int) -> np.ndarray:
    """Coloured squares, float32 `(count, size, size, 3)`, 0..255."""
    squares = np.random.default_rng(4).integers(0, 256, (count, 4, 4, 3))
    return squares.repeat(size // 4, axis=1).repeat(size // 4, axis=2).astype(np.float32)


def trained_one_step(name: str, options: dict, images: np.ndarray) -> keras.Model:
    """A network after one training step."""
    keras.utils.set_random_seed(0)
    model = models.build(name, classes=5, image_size=IMAGE_SIZE, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # one step brings the statistics close to the images'
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)  # for one step, tracing a graph takes longer
    assert np.isfinite(model.train_on_batch(images, np.arange(len(images)) % 5))
    changed = [(old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True)]
    assert np.mean(changed) > 0.7  # stochastic depth skips some blocks
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CHAIN, ids=str)
def test_trains_and_converts_to_every_format(name: str, options: dict):
    images = photos(16, IMAGE_SIZE)
    model = trained_one_step(name, options, images)
    assert to_tflite(model, "float32", calibration=[images]).parity.sqnr_db > 60
    # test_applications.py has GPTQ, which takes long, of networks with the same blocks.
    int8 = to_tflite(model, Int8(correction="none", min_sqnr_db=0.0), calibration=[images])
    assert int8.metadata["operators"]["integer"] == int8.metadata["operators"]["total"]
    assert int8.metadata["input"]["pixel_offset"] == -128
    assert int8.parity.sqnr_db > 10
    assert to_onnx(model, calibration=[images]).parity.sqnr_db > 60


@pytest.mark.slow
def test_hard_swish_is_one_operator_and_the_graph_consists_of_layers():
    import collections

    from converters.tflite.graph import Graph

    model = models.build("mobilenet_v3_small", alpha=0.25, classes=4, image_size=32)
    kinds = {type(layer).__module__.split(".")[2] for layer in model.layers}
    assert kinds == {"layers"}
    content = to_tflite(model, "float32", calibration=[photos(2, 32)]).content
    operators = collections.Counter(operator.name for operator in Graph(content).operators())
    assert operators["HARD_SWISH"] == sum("hard_swish" in layer.name for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mobilenet_v1", "mobilenet"),
        ("mobilenet_v2", "mobilenet_v2"),
    ],
)
def test_pixels_are_normalized_as_in_keras_applications(name: str, module: str):
    pixels = np.arange(256, dtype=np.float32)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    actual = models.build(name, image_size=32, alpha=0.25, classes=2).get_layer("normalize")(pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.slow
def test_efficientnet_b_normalizes_by_imagenets_mean_and_deviation():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    actual = models.build("efficientnet_b0", image_size=32).get_layer("normalize")(pixels)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_preprocessing_is_that_of_the_published_models():
    assert models.preprocessing("efficientnet_b3") == Preprocessing(300, 332, "crop_then_resize", "bicubic")
    for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"):
        assert models.preprocessing(name) == Preprocessing(224, 256, "crop_then_resize", "bilinear")


@pytest.mark.slow
def test_the_minimalistic_form_has_only_operations_of_integer_accelerators():
    model = models.build("mobilenet_v3_large", minimalistic=True)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"Multiply", "Activation"}
    assert {layer.kernel_size for layer in model.layers if hasattr(layer, "kernel_size")} == {(1, 1), (3, 3)}
    assert model.count_params() == keras.applications.MobileNetV3Large(weights=None, minimalistic=True).count_params()


# --- scalings of EfficientNet -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_phi_0_is_the_baseline_and_phi_1_has_the_width_and_depth_of_b2():
    assert models.build("efficientnet_b0", phi=0).count_params() == models.build("efficientnet_b0").count_params()
    assert models.build("efficientnet_b0", phi=1).count_params() == 9_177_569 - 7


@pytest.mark.slow
def test_phi_grows_every_dimension():
    sizes, parameters = [], []
    for phi in (-3, -1, 0, 1.5):
        model = models.build("efficientnet_b0", phi=phi)
        sizes.append(model.input_shape[1])
        parameters.append(model.count_params())
        assert model.preprocessing.image_size == sizes[-1]
    assert sizes == sorted(set(sizes))
    assert parameters == sorted(set(parameters))


@pytest.mark.slow
def test_lite_option_gives_the_lite_form():
    b0 = models.build("efficientnet_b0", lite=True)
    lite0 = models.build("efficientnet_lite0")
    assert [(type(a), a.name) for a in b0.layers] == [(type(b), b.name) for b in lite0.layers]
    assert b0.count_params() == lite0.count_params()
    b3 = models.build("efficientnet_b3", lite=True, image_size=32)
    assert b3.count_params() == models.build("efficientnet_lite3", image_size=32).count_params()


def test_the_dropout_of_a_scaling_is_that_of_the_variant_nearest_in_depth():
    assert efficientnet.scaled_variant("efficientnet_b0", -2).dropout == 0.2
    assert efficientnet.scaled_variant("efficientnet_b0", 5).dropout == 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "mobilenet_v1",
            {"alpha": 0.2},
            r"alpha must keep 8 channels .* at least 0.25 for mobilenet_v1. Received: 0.2",
        ),
        ("mobilenet_v2", {"alpha": 0.1}, r"alpha must keep 8 channels .*0.1"),
        ("mobilenet_v3_small", {"alpha": 0.1}, r"alpha must keep 8 channels .*0.1"),
        ("mobilenet_v3_large", {"image_size": 31}, r"image_size .* at least 32. Received: 31"),
        ("mobilenet_v3_large", {"minimalistic": 1}, r"minimalistic must be True or False. Received: 1"),
        ("mobilenet_v2", {"dropout": 1}, r"dropout must be a rate"),
        ("efficientnet_b0", {"phi": 11}, r"phi must be at most 10. Received: 11"),
        ("efficientnet_b0", {"phi": -9}, r"keep 8 channels|alpha must keep"),
        ("efficientnet_b0", {"phi": "1"}, r"phi must be a finite number. Received: '1'"),
        ("efficientnet_b1", {"phi": 1}, r"phi must be omitted for a variant that is already scaled"),
        ("efficientnet_lite0", {"lite": False}, r"lite must be omitted for efficientnet_lite0"),
        ("mobilenet_v3_medium", {}, r"unknown model"),
    ],
)
def test_an_invalid_option_is_reported_with_what_must_hold_and_the_value(name: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        models.build(name, **options)
