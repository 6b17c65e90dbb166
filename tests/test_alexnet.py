from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from torchvision_alexnet import torchvision_arrays, torchvision_forward

from converters import to_onnx, to_tflite
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv import models
from edge_cv.models import alexnet, weight_layouts

SMALL = {"alexnet": {"image_size": 63, "alpha": 0.125}, "alexnet_2012": {"image_size": 67, "alpha": 0.125}}


def quick(name: str = "alexnet", **options) -> keras.Model:
    """A narrow network with a small input, which converts within seconds."""
    keras.utils.set_random_seed(1)
    return models.build(name, **{"classes": 5, **SMALL[name], **options})


def photos(number: int, size: int) -> np.ndarray:
    """Smooth random pictures of pixels 0..255."""
    coarse = np.random.default_rng(0).integers(0, 256, (number, 7, 7, 3)).astype(np.float32)
    repeats = -(-size // 7)
    return np.kron(coarse, np.ones((1, repeats, repeats, 1), np.float32))[:, :size, :size]


def logits_of(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(pixels, training=False))


def sub_model(build, shape: tuple[int, ...]) -> keras.Model:
    x = keras.Input(shape)
    return keras.Model(x, build(x))


# --- local response normalization -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("deviation", [1.0, 200.0])
def test_local_response_normalization_equals_tensorflows(channels: int, deviation: float):
    x = np.random.default_rng(0).normal(0, deviation, (2, 5, 6, channels)).astype(np.float32)
    model = sub_model(lambda y: alexnet._local_response_normalization(y, name="lrn1"), x.shape[1:])
    expected = tf.nn.local_response_normalization(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75)

    np.testing.assert_allclose(logits_of(model, x), expected, rtol=1e-5, atol=1e-5)


def test_network_with_local_response_normalization_loads_without_custom_objects(tmp_path):
    model = quick("alexnet_2012")
    model.save(tmp_path / "model.keras")
    pixels = photos(2, 67)
    np.testing.assert_array_equal(
        logits_of(keras.models.load_model(tmp_path / "model.keras"), pixels), logits_of(model, pixels)
    )


@pytest.mark.slow
def test_norm_option_selects_the_normalization():
    def kinds(name: str, **options) -> set[str]:
        return {layer.name for layer in quick(name, **options).layers if layer.name in ("lrn1", "lrn2", "conv2_bn")}

    assert kinds("alexnet") == set()
    assert kinds("alexnet", norm="lrn") == kinds("alexnet_2012") == {"lrn1", "lrn2"}
    assert kinds("alexnet", norm="batch_norm") == {"conv2_bn"}
    assert kinds("alexnet_2012", norm=None) == set()
    halves = [layer.name for layer in quick("alexnet_2012", norm="batch_norm").layers if layer.name.endswith("_bn")]
    assert halves == [
        "conv1_bn",
        "conv2a_bn",
        "conv2b_bn",
        "conv3_bn",
        "conv4a_bn",
        "conv4b_bn",
        "conv5a_bn",
        "conv5b_bn",
    ]
    with pytest.raises(InputError, match=r"unknown norm: 'batchnorm'. Did you mean 'batch_norm'"):
        quick(norm="batchnorm")


# --- the two halves ---------------------------------------------------------------------------------------------------


def test_halves_compute_the_grouped_convolution():
    """Two halves of 8 channels, each with its own convolution, against one convolution of two groups."""
    conv = alexnet.Conv(16, kernel=3, stride=1, padding=1, groups=2)

    def halves(x):
        parts = alexnet._cut(x, 2, name="in")
        parts = [
            alexnet._convolution(part, conv, alpha=1, batch_norm=False, name=name)
            for part, name in zip(parts, "ab", strict=True)
        ]
        return alexnet._join(parts, name="out")

    model = sub_model(halves, (9, 9, 12))
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 12)).astype(np.float32)
    kernels = [model.get_layer(name).get_weights()[0] for name in "ab"]
    expected = tf.nn.relu(tf.nn.conv2d(x, np.concatenate(kernels, axis=-1), 1, "SAME"))

    np.testing.assert_allclose(logits_of(model, x), expected, rtol=1e-4, atol=1e-5)


def test_half_of_the_filters_sees_half_of_the_channels():
    model = models.build("alexnet_2012", alpha=0.25, image_size=67)
    assert model.get_layer("conv2a").kernel.shape == (5, 5, 12, 32)
    assert model.get_layer("conv3").kernel.shape == (3, 3, 64, 96)
    assert model.get_layer("conv5b").kernel.shape == (3, 3, 48, 32)
    assert not any(getattr(layer, "groups", 1) > 1 for layer in model.layers)


# --- any size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 17))
def test_pooling_to_six_positions_averages_torchs_windows(size: int):
    x = np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = np.empty((2, 6, 6, 3), np.float32)
    for i in range(6):
        for j in range(6):
            rows = slice(int(np.floor(i * size / 6)), int(np.ceil((i + 1) * size / 6)))
            columns = slice(int(np.floor(j * size / 6)), int(np.ceil((j + 1) * size / 6)))
            expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2))

    np.testing.assert_allclose(logits_of(sub_model(alexnet._pool_to_fixed_size, x.shape[1:]), x), expected, atol=1e-6)


@pytest.mark.parametrize(("name", "least"), [("alexnet", 63), ("alexnet_2012", 67)])
def test_smallest_image_leaves_one_position_after_the_poolings(name: str, least: int):
    assert quick(name, image_size=least).get_layer("pool5").output.shape[1:3] == (1, 1)
    with pytest.raises(
        InputError, match=rf"image_size must be at least {least} pixels for {name}.* Received: {least - 1}"
    ):
        quick(name, image_size=least - 1)


def test_alpha_below_what_keeps_eight_channels_is_refused():
    with pytest.raises(InputError, match=r"at least 0.125 for alexnet. Received: 0.1"):
        quick(alpha=0.1)


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_normalization_is_torchvisions_or_the_mean_alone():
    pixels = np.array([[[[0, 127, 255]]]], np.float32)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(
        quick().get_layer("normalize")(pixels), (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        quick("alexnet_2012").get_layer("normalize")(pixels), pixels - [123.68, 116.779, 103.939], rtol=1e-5
    )


def test_preprocessing_resizes_the_short_side_to_256_and_cuts_the_centre():
    assert models.preprocessing("alexnet") == Preprocessing(224, 256, "resize_then_crop", "bilinear")
    assert models.preprocessing("alexnet_2012") == Preprocessing(227, 256, "resize_then_crop", "bilinear")
    assert models.preprocessing("alexnet", 112).resize_to == 128


def test_dropout_stands_before_the_dense_layers_in_torchvisions_and_behind_them_in_2012():
    def order(name: str, **options) -> list[str]:
        kept = ("dropout6", "dense6", "dropout7", "dense7", "logits")
        return [layer.name for layer in quick(name, **options).layers if layer.name in kept]

    assert order("alexnet") == ["dropout6", "dense6", "dropout7", "dense7", "logits"]
    assert order("alexnet_2012") == ["dense6", "dropout6", "dense7", "dropout7", "logits"]
    assert order("alexnet", dropout=0) == ["dense6", "dense7", "logits"]


# --- the whole chain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("alexnet", {}, marks=pytest.mark.slow),
        pytest.param("alexnet", {"norm": "batch_norm"}, marks=pytest.mark.slow),
        pytest.param("alexnet_2012", {}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_trains_and_converts_to_every_format(name: str, options: dict):
    model = quick(name, **options)
    images = photos(16, model.input_shape[1])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # so that one step gives statistics of the data, as after training
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3), loss, run_eagerly=True)

    assert np.isfinite(model.train_on_batch(images, np.arange(16) % 5))
    assert all((old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True))

    assert to_tflite(model, "float32", calibration=[images]).parity.sqnr_db > 60
    int8 = to_tflite(model, "int8", calibration=[images])
    assert int8.metadata["operators"]["integer"] == int8.metadata["operators"]["total"]  # the roots of LRN too
    assert int8.metadata["input"]["pixel_offset"] == -128
    assert int8.parity.sqnr_db > 20
    assert to_onnx(model, calibration=[images]).parity.sqnr_db > 60


# --- torchvision's weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [224, 160])
def test_torchvision_arrays_give_torchvisions_logits(image_size: int):
    arrays = torchvision_arrays(0.125, 7)
    model = models.build("alexnet", alpha=0.125, classes=7, image_size=image_size)
    weight_layouts.assign_torch_alexnet(model, arrays, head=True)
    pixels = np.random.default_rng(3).integers(0, 256, (2, image_size, image_size, 3)).astype(np.float32)
    expected = torchvision_forward(arrays, pixels)

    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits_of(model, pixels), expected, atol=1e-4 * np.abs(expected).max())


def test_head_of_another_size_is_not_changed():
    model = quick(alpha=0.25, classes=3)
    head = model.get_layer("logits").get_weights()[0]
    weight_layouts.assign_torch_alexnet(model, torchvision_arrays(0.25, 7), head=False)
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], head)


def test_arrays_that_do_not_fit_are_refused():
    arrays = torchvision_arrays(0.25, 5)
    with pytest.raises(InputError, match=r"kernel of the layer 'conv1' must have the shape \(11, 11, 3, 8\)"):
        weight_layouts.assign_torch_alexnet(quick(), arrays, head=True)
    with pytest.raises(InputError, match=r"weights fit the layers conv1, .* Received: conv1, conv1_bn"):
        weight_layouts.assign_torch_alexnet(quick(alpha=0.25, norm="batch_norm"), arrays, head=True)
    del arrays["features.3.bias"]
    with pytest.raises(InputError, match="must be those of torchvision's AlexNet"):
        weight_layouts.assign_torch_alexnet(quick(alpha=0.25), arrays, head=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alexnet", {"norm": "lrn"}, "norm must be None"),
        ("alexnet", {"alpha": 0.5}, "alpha must be 1"),
        ("alexnet_2012", {}, r"must be one of alexnet, .* Received: 'alexnet_2012'"),
    ],
    ids=str,
)
def test_imagenet_weights_of_a_network_without_published_ones_are_refused(name: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        models.build(name, weights="imagenet", **options)


@pytest.mark.slow
def test_other_file_in_the_place_of_torchvisions_is_refused_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_CV_WEIGHTS", str(tmp_path))
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="must have the sha256 7be5be79"):
        models.build("alexnet", weights="imagenet")
