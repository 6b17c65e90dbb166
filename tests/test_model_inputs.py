"""The architectures for grey images and rectangles, and model files as they are trained: one image of one size."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError
from converters.sources import single_image_model
from edge_cv import models
from edge_cv.models.input_shape import with_input
from edge_cv.recipe import Model


# R, G and B are normalized alike in the first, and each in its own way in the others.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"alpha": 0.25}),
        ("alexnet", {"alpha": 0.125, "norm": "batch_norm"}),
        pytest.param("efficientnet_b0", {}, marks=pytest.mark.slow),
    ],
)
def test_a_grey_model_computes_what_the_rgb_model_does_on_equal_channels(name, options):
    rgb = models.build(name, classes=5, image_size=64, **options)
    rng = np.random.default_rng(0)
    weights = [w + 0.1 * rng.random(w.shape).astype(np.float32) for w in rgb.get_weights()[1:5]]  # of the stem
    rgb.set_weights([rgb.get_weights()[0], *weights, *rgb.get_weights()[5:]])
    grey = with_input(rgb, (64, 64, 1), keep_weights=True)
    image = rng.uniform(0, 255, (2, 64, 64, 1)).astype(np.float32)
    stem = next(layer.name for layer in rgb.layers if layer.__class__.__name__ == "BatchNormalization")
    expected, seen = (_output(model, stem, images) for model, images in ((rgb, image.repeat(3, -1)), (grey, image)))
    assert np.abs(seen - expected)[:, 1:-1, 1:-1].max() < 1e-3 * np.abs(expected).max()  # without the padded border


def _output(model, layer: str, images: np.ndarray) -> np.ndarray:
    import keras

    return np.asarray(keras.Model(model.inputs[0], model.get_layer(layer).output)(images, training=False))


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1",
        *(pytest.param(f"mobilenet_{v}", marks=pytest.mark.slow) for v in ("v2", "v3_small", "v4_conv_small")),
    ],
)
def test_an_architecture_takes_grey_rectangles(name):
    model = models.build(name, classes=3, image_size=(32, 64), channels=1)
    assert model.input_shape == (None, 32, 64, 1)
    assert model.output_shape == (None, 3)
    assert model.preprocessing.shape == (32, 64, 1)
    assert model.preprocessing.resize_to == models.preprocessing(name, 32).resize_to
    assert model.name == name


@pytest.mark.parametrize("size", [(32,), (32, 64, 1), (16, 64), "32x64"])
def test_other_image_sizes_are_refused(size):
    with pytest.raises(InputError, match="image_size"):
        models.build("mobilenet_v1", image_size=size, alpha=0.25)


def test_a_recipes_model_has_two_sizes_channels_and_an_output():
    assert Model("mobilenet_v1", image_size=(96, 128), channels=1).image_size == (96, 128)
    assert Model("model.keras", image_size=(96, 128), output="kind").output == "kind"
    for wrong in ({"channels": 1}, {"image_size": (1, 2, 3)}):
        with pytest.raises(InputError, match="Model"):
            Model("model.keras", **wrong)
    with pytest.raises(InputError, match=r"Model\.output is for a model file"):
        Model("mobilenet_v1", output="kind")


def test_a_keras_model_of_any_input_becomes_one_that_can_be_trained():
    import keras
    from keras import layers

    image = keras.Input(batch_shape=(8, None, None, 1), dtype="uint8")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image)))
    model = keras.Model(image, {"kind": layers.Dense(3, name="a")(x), "age": layers.Dense(2, name="b")(x)})
    single = single_image_model(model, "12x20", "kind")
    assert single.inputs[0].shape == (None, 12, 20, 1)
    assert single.inputs[0].dtype == "float32"
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 20, 1)).astype(np.uint8)
    assert np.abs(np.asarray(single(images.astype(np.float32))) - np.asarray(model(images)["kind"])).max() < 1e-5
    with pytest.raises(InputError, match="choose the output"):
        single_image_model(model, "12x20")
    fitting = keras.Model(single.inputs, single.outputs)
    assert single_image_model(fitting) is fitting
