"""Grad-CAM compared with the closed form for models that end in pooling and dense, and between backends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.data import Samples
from edge_cv.evaluation.grad_cam import explain, grad_cam, overlaid, worth_explaining
from edge_cv.evaluation.predictions import Predictions


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)


def class_activation_map(model, images: np.ndarray, classes: list[int]) -> np.ndarray:
    """The closed form (Zhou et al. 2016, https://arxiv.org/abs/1512.04150): features weighted by the dense layer."""
    import keras

    features = keras.ops.convert_to_numpy(keras.Model(model.inputs[0], model.get_layer("residual").output)(images))
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").kernel)
    maps = np.maximum(np.einsum("nhwk,kn->nhw", features, kernel[:, classes]), 0)
    peaks = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(peaks > 0, peaks, 1)


def test_behind_global_pooling_grad_cam_is_the_class_activation_map(small_model, images):
    classes = [0, 1, 2, 3, 9, 0]
    maps = grad_cam(small_model, images, classes)
    assert maps.shape == (6, 16, 16)
    assert maps.max() == 1.0
    np.testing.assert_allclose(maps, class_activation_map(small_model, images, classes), atol=1e-5)
    assert not np.allclose(maps[0], grad_cam(small_model, images[:1], [1])[0])


def test_a_hidden_layer_behind_the_features_is_differentiated(images):
    """Dense layers on flattened features: the gradient is that of the linear map that ReLU leaves, by hand."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 5, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(3),
        ]
    )
    features = keras.ops.convert_to_numpy(model.layers[0](images))
    flat = features.reshape(6, -1)
    first, bias = (keras.ops.convert_to_numpy(v) for v in model.layers[2].weights)
    last = keras.ops.convert_to_numpy(model.layers[3].kernel)
    for place, label in enumerate([0, 1, 2, 0, 1, 2]):
        gradient = (first * (flat[place] @ first + bias > 0)) @ last[:, label]
        weights = gradient.reshape(features.shape[1:]).mean(axis=(0, 1))
        expected = np.maximum(features[place] @ weights, 0)
        found = grad_cam(model, images[place : place + 1], [label])[0]
        np.testing.assert_allclose(found, expected / max(expected.max(), 1e-30), atol=1e-4)


@pytest.mark.slow
def test_jax_gives_the_maps_of_tensorflow(small_model, images, tmp_path):
    pytest.importorskip("jax", reason="jax is not installed (pip install 'edge-cv[jax]')")
    small_model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy as np; from edge_cv.evaluation.grad_cam import grad_cam\n"
        "assert keras.backend.backend() == 'jax'\n"
        "model, images = keras.models.load_model('model.keras'), np.load('images.npy')\n"
        "np.save('maps.npy', grad_cam(model, images, [5, 4, 3, 2, 1, 0]))"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "maps.npy"), grad_cam(small_model, images, [5, 4, 3, 2, 1, 0]), atol=1e-4
    )


def test_a_model_without_rows_and_columns_is_refused():
    import keras

    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(image)), name="pooled")
    flat = keras.Input((8,))
    with pytest.raises(InputError, match="has none"):
        grad_cam(keras.Model(flat, keras.layers.Dense(2)(flat)), np.zeros((1, 8)), [0])
    assert grad_cam(model, np.ones((1, 32, 32, 3)), [0]).shape == (1, 32, 32)  # the pixels are all there is


def predictions(
    labels: list[int], answers: list[int], probabilities: list[float], files: list | None = None
) -> Predictions:
    indices = np.repeat(np.array(answers, np.int32)[:, None, None], 5, axis=2)
    shares = np.repeat(np.array(probabilities, np.float32)[:, None, None], 5, axis=2)
    files = files or [Path(f"{n}.jpg") for n in range(len(labels))]
    return Predictions(["float32"], files, np.array(labels, np.int32), indices, shares)


def test_confident_misses_are_first_then_hits_at_even_intervals():
    made = predictions([0, 0, 0, 0, -1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1], [0.9, 0.3, 0.8, 0.5, 1.0, 0.7, 0.6, 0.5])
    assert worth_explaining(made, "float32", 2, 2) == [2, 3, 0, 6]
    assert worth_explaining(made, "float32", 6, 1) == [2, 3, 1, 0, 5, 6, 7]
    assert worth_explaining(predictions([-1], [0], [0.5]), "float32", 2, 2) == []


def test_images_have_maps_of_the_predicted_and_the_true_class(small_model, tmp_path):
    from PIL import Image

    files = []
    for n in range(2):
        files.append(tmp_path / f"{n}.png")
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 60, 3), np.uint8)).save(files[-1])
    made = predictions([3, 4], [3, 7], [0.25, 0.75], files)
    names = [f"class {n}" for n in range(10)]
    source = Samples.from_files("two", files, [3, 4], names)
    hit, miss = explain(small_model, Preprocessing(32), made, "float32", [0, 1], names, source)
    assert (hit.photo, hit.label, hit.answer, hit.probability) == ("0.png", "class 3", "class 3", 0.25)
    assert [overlay.name for overlay in hit.overlays] == ["class 3"]
    assert [overlay.name for overlay in miss.overlays] == ["class 7", "class 4"]
    for picture in (hit.jpeg, *(overlay.jpeg for overlay in (*hit.overlays, *miss.overlays))):
        assert picture.startswith(b"\xff\xd8")
    assert explain(small_model, Preprocessing(32), made, "float32", [], names, source) == ()


def test_an_overlay_is_grey_where_the_map_is_zero_and_coloured_where_it_is_one():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cold, hot = (overlaid(pixels, np.full((4, 4), value, np.float32)).astype(int) for value in (0, 1))
    grey = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(cold - grey[..., None]).max() <= 1
    assert np.abs(hot[..., 0] - hot[..., 2]).min() > 100  # yellow
