from __future__ import annotations

import logging
import math
import subprocess
import sys
from typing import NamedTuple

import keras
import numpy as np
import pytest
from zoo import DIFFERENT

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv import models
from edge_cv.models import efficientnet
from edge_cv.models.macs import count_macs


class Expected(NamedTuple):
    """What the papers and the reference implementations say of a model."""

    name: str
    image_size: int  # pixels
    trainable: int  # parameters
    macs: int  # millions
    total: int | None = None  # parameters and statistics; EfficientNet's are without the 7 numbers of a Normalization


TABLE = (
    Expected("alexnet", 224, 61_100_840, 714),
    Expected("alexnet_2012", 227, 60_965_224, 724),
    Expected("mobilenet_v1", 224, 4_231_976, 569, total=4_253_864),
    Expected("mobilenet_v2", 224, 3_504_872, 301, total=3_538_984),
    Expected("mobilenet_v3_small", 224, 2_542_856, 57, total=2_554_968),
    Expected("mobilenet_v3_large", 224, 5_483_032, 217, total=5_507_432),
    Expected("mobilenet_v4_conv_small", 224, 3_774_024, 186),
    Expected("mobilenet_v4_conv_medium", 256, 9_715_512, 1080),
    Expected("efficientnet_b0", 224, 5_288_548, 386, total=5_330_571 - 7),
    Expected("efficientnet_b1", 240, 7_794_184, 687, total=7_856_239 - 7),
    Expected("efficientnet_b2", 260, 9_109_994, 994, total=9_177_569 - 7),
    Expected("efficientnet_b3", 300, 12_233_232, 1827, total=12_320_535 - 7),
    Expected("efficientnet_b4", 380, 19_341_616, 4394, total=19_466_823 - 7),
    Expected("efficientnet_b5", 456, 30_389_784, 10266, total=30_562_527 - 7),
    Expected("efficientnet_b6", 528, 43_040_704, 19068, total=43_265_143 - 7),
    Expected("efficientnet_b7", 600, 66_347_960, 37746, total=66_658_687 - 7),
    Expected("efficientnet_lite0", 224, 4_652_008, 385),
    Expected("efficientnet_lite1", 240, 5_416_680, 600),
    Expected("efficientnet_lite2", 260, 6_092_072, 860),
    Expected("efficientnet_lite3", 280, 8_197_096, 1383),
    Expected("efficientnet_lite4", 300, 13_006_568, 2553),
)
SMALLEST_IMAGE = {"alexnet": 63, "alexnet_2012": 67}  # pixels; 32 of all others
SMALLEST = "efficientnet_lite0"  # the network of the slower checks


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(variable.shape) for variable in model.trainable_weights)


def logits_of(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The model's logits, computed eagerly, which is faster for one batch than tracing a graph."""
    return keras.ops.convert_to_numpy(model(pixels, training=False))


@pytest.fixture(scope="module")
def small() -> keras.Model:
    """A small model that the tests do not change."""
    return models.build(SMALLEST, classes=4, image_size=32)


NARROW = {
    "name": "mobilenet_v1",
    "alpha": 0.25,
    "classes": 4,
    "image_size": 32,
}  # few and narrow layers, with batch norm


@pytest.fixture(scope="module")
def narrow() -> keras.Model:
    """A network of `NARROW` that the tests do not change."""
    return models.build(**NARROW)


def test_the_table_covers_every_model():
    assert {row.name for row in TABLE} == set(models.names())


# The quick tests build one small variant of most kinds; the others take seconds each, or differ in numbers only.
QUICK = {"mobilenet_v1", "mobilenet_v3_small", SMALLEST}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=() if row.name in QUICK else SLOW) for row in TABLE]
)
def test_model_is_the_published_one(row: Expected):
    model = models.build(row.name)

    assert trainable_parameters(model) == row.trainable
    assert row.total in (None, model.count_params())
    assert (facts := models.describe(row.name))["parameters"] == row.trainable
    assert round(facts["macs"] / 1e6) == row.macs
    assert round(count_macs(model) / 1e6) == row.macs
    (pixels,) = model.inputs
    assert (pixels.name, pixels.dtype, pixels.shape) == ("pixels", "float32", (None, row.image_size, row.image_size, 3))
    assert model.output_shape == (None, 1000)
    assert model.layers[-1].activation is keras.activations.linear
    assert model.name == row.name
    assert model.preprocessing == models.preprocessing(row.name)
    assert model.preprocessing.image_size == row.image_size
    assert model.preprocessing.takes_pixels


@pytest.mark.parametrize(
    "name",
    [name if name == "mobilenet_v1" else pytest.param(name, marks=SLOW) for name in DIFFERENT],
)
def test_model_takes_another_size_and_other_classes(name: str):
    size = SMALLEST_IMAGE.get(name, 32)
    model = models.build(name, classes=10, image_size=size)
    logits = logits_of(model, np.zeros((2, size, size, 3), np.float32))

    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    assert model.preprocessing.image_size == size


def test_size_that_is_not_a_multiple_of_32_works():
    model = models.build(**{**NARROW, "image_size": 75, "classes": 3})
    assert logits_of(model, np.zeros((1, 75, 75, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize("name", ["narrow", pytest.param("small", marks=SLOW)])
def test_keras_file_loads_without_custom_objects_and_gives_the_same_logits(name: str, request, tmp_path):
    model = request.getfixturevalue(name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    np.testing.assert_array_equal(logits_of(loaded, pixels), logits_of(model, pixels))


@pytest.mark.slow
def test_one_training_step_changes_weights_and_gives_a_finite_loss():
    keras.utils.set_random_seed(0)
    model = models.build(**{**NARROW, "classes": 3})
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    before = model.get_layer("stem_conv").get_weights()[0].copy()
    # With two equal images batch normalization would leave almost no gradient.
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    loss = model.train_on_batch(images, np.array([0, 2]))

    assert np.isfinite(loss)
    assert not np.array_equal(before, model.get_layer("stem_conv").get_weights()[0])


def test_import_loads_neither_keras_nor_tensorflow():
    code = (
        "import sys; from edge_cv import models; models.names(); models.preprocessing('efficientnet_lite0'); "
        "print({'keras', 'tensorflow', 'jax', 'PIL'} & set(sys.modules) or 'none')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "none\n"


@pytest.mark.slow
def test_builds_and_runs_on_jax():
    pytest.importorskip("jax", reason="jax is not installed (pip install 'edge-cv[jax]')")
    code = (
        "import keras, numpy as np; from edge_cv import models; assert keras.backend.backend() == 'jax'; "
        "model = models.build('alexnet', classes=5, image_size=63, alpha=0.125); "  # few layers: JAX compiles each
        "assert model(np.zeros((1, 63, 63, 3), 'float32')).shape == (1, 5)"
    )
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


# --- EfficientNet -----------------------------------------------------------------------------------------------------


def test_lite_normalizes_as_its_weights_were_trained(small: keras.Model):
    pixels = np.array([0, 127, 255], np.float32)
    np.testing.assert_allclose(small.get_layer("normalize")(pixels), (pixels - 127) / 128, rtol=1e-6)


def test_lite_preprocessing_is_the_central_square_with_a_margin_of_32():
    assert models.preprocessing("efficientnet_lite2") == Preprocessing(260, 292, "crop_then_resize", "bicubic")
    assert models.preprocessing("efficientnet_lite2", 96).resize_to == 128


def test_lite_has_only_operations_that_integer_accelerators_support(small: keras.Model):
    kinds = {type(layer).__name__ for layer in small.layers}
    assert kinds == {
        *("InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add", "Dropout"),
        *("GlobalAveragePooling2D", "Dense"),
    }


@pytest.mark.slow
def test_lite_scales_neither_stem_nor_head_nor_depth_of_the_first_and_last_stage():
    model = models.build("efficientnet_lite4", image_size=32)
    blocks = {layer.name.split("_")[0] for layer in model.layers if layer.name.startswith("block")}

    assert model.get_layer("stem_conv").filters == 32
    assert model.get_layer("head_conv").filters == 1280
    assert {"block1a", "block2d", "block7a"} <= blocks
    assert not {"block1b", "block7b"} & blocks


def test_widths_round_to_eights_and_never_lose_more_than_a_tenth():
    for channels in (16, 24, 40, 80, 112, 192, 320):
        for width in np.linspace(0.5, 4, 36):
            rounded = efficientnet.scaled_channels(channels, width)
            assert rounded % 8 == 0
            assert rounded >= 0.9 * channels * width


def test_stochastic_depth_grows_over_the_blocks_and_can_be_turned_off(small: keras.Model):
    rates = [layer.rate for layer in small.layers if layer.name.endswith("_drop")]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < 0.2
    plain = models.build(SMALLEST, image_size=32, stochastic_depth=0, dropout=0)
    assert not [layer for layer in plain.layers if isinstance(layer, keras.layers.Dropout)]


@pytest.mark.slow
def test_alpha_narrows_the_stages(small: keras.Model):
    half = models.build(SMALLEST, alpha=0.5, classes=4, image_size=32)
    assert half.get_layer("block1a_project_conv").filters == 8
    assert trainable_parameters(half) < trainable_parameters(small) / 2


def test_compound_scale_follows_the_paper():
    assert models.compound_scale(0) == (1.0, 1.0, 1.0)
    assert models.compound_scale(1) == pytest.approx((1.1, 1.2, 1.15))
    scale = models.compound_scale(2.5)
    assert (scale.width, scale.depth, scale.resolution) == pytest.approx((1.1**2.5, 1.2**2.5, 1.15**2.5))
    assert models.compound_scale(-1).width < 1
    with pytest.raises(InputError, match="finite"):
        models.compound_scale(math.nan)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_unknown_name_lists_the_known_and_suggests_the_nearest():
    with pytest.raises(InputError, match=r"'efficientnet_lit0'. Did you mean 'efficientnet_lite0'\?"):
        models.build("efficientnet_lit0")
    with pytest.raises(InputError, match="efficientnet_lite4"):
        models.preprocessing("")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, r"classes must be .* at least 1. Received: 0"),
        ({"classes": 2.5}, r"classes must be a whole number .*2.5"),
        ({"classes": True}, r"classes must be"),
        ({"image_size": 31}, r"image_size .* at least 32. Received: 31"),
        ({"image_size": "224"}, r"image_size .*'224'"),
        ({"alpha": 0}, r"alpha must be a number above 0"),
        ({"alpha": -1.0}, r"alpha must be"),
        ({"alpha": math.nan}, r"alpha must be"),
        ({"alpha": math.inf}, r"alpha must be"),
        ({"alpha": "wide"}, r"alpha must be .*'wide'"),
        ({"alpha": 0.4}, r"alpha must keep 8 channels .* at least 0.5 .*0.4"),
        ({"alpha": 0.5, "weights": "imagenet"}, r"alpha must be 1 with weights"),
        ({"dropout": 1.0}, r"dropout must be a rate"),
        ({"stochastic_depth": -0.1}, r"stochastic_depth must be a rate"),
        ({"drop_out": 0.1}, r"unknown option of efficientnet_lite0: 'drop_out'. Did you mean 'dropout'"),
        ({"weights": "imagenette"}, r'weights must be None, "imagenet" or the path'),
        ({"weights": "missing.keras"}, r"weights must be an existing file. Received: missing.keras"),
    ],
)
def test_invalid_options_are_refused_with_the_received_value(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        models.build(SMALLEST, **options)


# --- weights from a file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", pytest.param(".weights.h5", marks=SLOW)])
def test_own_file_gives_the_same_logits(narrow: keras.Model, tmp_path, suffix: str):
    path = tmp_path / f"small{suffix}"
    narrow.save(path) if suffix == ".keras" else narrow.save_weights(path)
    loaded = models.build(**NARROW, weights=path)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)

    np.testing.assert_array_equal(logits_of(loaded, pixels), logits_of(narrow, pixels))


def test_configuration_in_a_keras_file_is_never_read(narrow: keras.Model, tmp_path):
    import zipfile

    narrow.save(tmp_path / "small.keras")
    with (
        zipfile.ZipFile(tmp_path / "small.keras") as source,
        zipfile.ZipFile(tmp_path / "hostile.keras", "w") as target,
    ):
        target.writestr("config.json", '{"class_name": "Lambda", "config": "not even whole')
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    loaded = models.build(**NARROW, weights=tmp_path / "hostile.keras")

    np.testing.assert_array_equal(loaded.get_weights()[0], narrow.get_weights()[0])


def test_broken_or_foreign_file_is_refused(narrow: keras.Model, tmp_path):
    narrow.save(tmp_path / "small.keras")
    content = (tmp_path / "small.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(content[: len(content) // 2])
    (tmp_path / "noise.weights.h5").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.keras").touch()
    for name in ("half.keras", "noise.weights.h5", "empty.keras"):
        with pytest.raises(InputError, match=rf"{name} must contain the weights of mobilenet_v1"):
            models.build(**NARROW, weights=tmp_path / name)


@pytest.mark.slow
def test_file_of_a_deeper_model_is_refused(tmp_path):
    models.build("efficientnet_lite1", classes=4, image_size=32).save_weights(tmp_path / "deeper.weights.h5")
    with pytest.raises(InputError, match=rf"deeper.weights.h5 must contain the weights of {SMALLEST}"):
        models.build(SMALLEST, classes=4, image_size=32, weights=tmp_path / "deeper.weights.h5")


@pytest.mark.parametrize("suffix", [pytest.param(".keras", marks=SLOW), ".weights.h5"])
def test_own_file_with_another_head_loads_the_backbone_with_a_warning(
    narrow: keras.Model, tmp_path, caplog, suffix: str
):
    path = tmp_path / f"small{suffix}"
    narrow.save(path) if suffix == ".keras" else narrow.save_weights(path)
    with caplog.at_level(logging.WARNING):
        five = models.build(**{**NARROW, "classes": 5}, weights=path)

    assert "without the head, which has another size in the file; the layer 'logits' of 5 classes" in caplog.text
    assert five.output_shape == (None, 5)
    for weight, expected in zip(five.get_weights()[:-2], narrow.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_imagenet_weights_with_other_classes_load_the_backbone_and_log_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        ten = models.build("efficientnet_lite0", classes=10, image_size=32, weights="imagenet")
    full = models.build("efficientnet_lite0", image_size=32, weights="imagenet")

    assert "without the head" in caplog.text
    assert not logits_of(ten, np.zeros((1, 32, 32, 3), np.float32)).any()  # chance: a random head starts far above it
    assert len(caplog.records) == 1
    assert ten.output_shape == (None, 10)
    np.testing.assert_array_equal(
        ten.get_layer("head_conv").get_weights()[0], full.get_layer("head_conv").get_weights()[0]
    )


# --- multiply-accumulates ---------------------------------------------------------------------------------------------


def test_macs_of_each_kind_of_layer_follow_from_their_definition():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 6)),
            layers.Conv2D(12, 3, padding="same", groups=3, name="grouped"),  # 64 x (9 x 2) x 12
            layers.DepthwiseConv2D(3, strides=2, padding="same"),  # 16 x 9 x 12
            layers.SeparableConv2D(5, 3, padding="valid"),  # 4 x (9 x 12 + 12 x 5)
            layers.BatchNormalization(),
            layers.ReLU(),
            keras.Sequential([layers.Flatten(), layers.Dense(10)]),  # 20 x 10
        ]
    )
    assert count_macs(model) == 64 * 18 * 12 + 16 * 9 * 12 + 4 * (108 + 60) + 200


def test_macs_that_cannot_be_counted_are_refused():
    layers = keras.layers
    pixels = keras.Input((8, 8, 3))
    twice = layers.Conv2D(3, 3, padding="same")
    with pytest.raises(InputError, match="called once"):
        count_macs(keras.Model(pixels, twice(twice(pixels))))
    with pytest.raises(InputError, match="Received: Conv2DTranspose"):
        count_macs(keras.Sequential([pixels, layers.Conv2DTranspose(3, 3)]))
    with pytest.raises(InputError, match="fixed input size"):
        count_macs(keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(3, 3)]))
