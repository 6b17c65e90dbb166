"""Networks from elsewhere, whole: keras.applications and tf_keras, random weights, batch-norm statistics from data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import to_onnx, to_tflite
from converters.tflite.graph import Graph, count_operators

pytestmark = pytest.mark.slow

# library, network, whether it takes pixels 0..255 (else -1..1), the least SQNR of int8 in dB (measured: 6 dB more)
NETWORKS = [
    ("keras", "MobileNetV2", False, 30),
    ("keras", "MobileNetV3Small", True, 28),  # raw operations, hard-swish
    ("keras", "EfficientNetB0", True, 15),  # squeeze-and-excite, swish
    ("tf_keras", "MobileNetV2", False, 30),
]
# each of our families, at a small size
FAMILIES = [
    ("alexnet", {}),
    ("mobilenet_v1", {"alpha": 0.5}),
    ("mobilenet_v2", {"alpha": 0.5}),
    ("mobilenet_v3_small", {}),
    ("mobilenet_v4_conv_small", {}),
    ("efficientnet_b0", {"alpha": 0.6, "phi": -1}),
    ("efficientnet_lite0", {}),
]


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    from converters import Preprocessing
    from edge_cv import data

    return np.stack([p for p, _ in data.open_samples("sample_calibration").pixels(Preprocessing(96), limit=32)])


def _build(library: str, name: str, images: np.ndarray) -> Any:
    import importlib

    keras = importlib.import_module(library)
    keras.utils.set_random_seed(1)
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(96, 96, 3), classes=50, classifier_activation=None)
    _settle(model, images)
    return model


def _settle(model: Any, images: np.ndarray) -> None:
    """Batch-norm statistics of the images."""
    for layer in model.layers:
        if "BatchNormalization" in type(layer).__name__:
            layer.momentum = 0.3
    for _ in range(4):
        model(images[:16], training=True)


@pytest.mark.parametrize(("library", "name", "takes_pixels", "min_sqnr_db"), NETWORKS)
def test_every_scheme_of_a_known_network(photos, library, name, takes_pixels, min_sqnr_db):
    images = photos.astype(np.float32) if takes_pixels else photos / np.float32(127.5) - 1
    model = _build(library, name, images)
    least = {"float32": 90, "float16": 45, "dynamic_int8": 20, "int8": min_sqnr_db}
    for scheme, sqnr_db in least.items():
        conversion = to_tflite(model, scheme, calibration=images)
        assert conversion.parity.sqnr_db > sqnr_db, scheme
    integer, total = count_operators(Graph(conversion.content))
    assert integer == total
    assert conversion.pixel_offset == (-128 if takes_pixels else None)
    assert to_onnx(model, calibration=images).parity.sqnr_db > 90


def _int8_sqnr_db(model: Any, images: np.ndarray) -> tuple[float, float]:
    """Of the plain int8 file and of the default one, on images that neither was calibrated on."""
    from converters import Int8
    from converters.parity import sqnr_db
    from converters.tflite.runtime import predict

    wanted = predict(to_tflite(model, "float32").content, images[24:])
    scores = []
    for scheme in (Int8(equalization=False, ranges="minmax", correction="none"), Int8()):
        made = to_tflite(model, scheme, calibration=images[:24])
        scores.append(sqnr_db(wanted, predict(made.content, images[24:], pixel_offset=made.pixel_offset)))
    return scores[0], scores[1]


@pytest.mark.parametrize(("library", "name", "takes_pixels"), [n[:3] for n in NETWORKS])
def test_int8_is_no_worse_than_the_plain_file_on_other_photos(photos, library, name, takes_pixels):
    images = photos.astype(np.float32) if takes_pixels else photos / np.float32(127.5) - 1
    plain, ours = _int8_sqnr_db(_build(library, name, images), images)
    assert ours >= plain


@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=str)
def test_int8_of_our_families_is_no_worse_than_the_plain_file_on_other_photos(photos, name, options):
    import keras

    from edge_cv import models

    keras.utils.set_random_seed(1)
    model = models.build(name, classes=50, image_size=96, **options)
    _settle(model, photos.astype(np.float32))
    plain, ours = _int8_sqnr_db(model, photos)
    assert ours >= plain
