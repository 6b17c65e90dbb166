"""Networks of keras.applications and tf_keras and our own: random weights, batch-norm statistics from data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import Int8, to_onnx, to_tflite
from converters.parity import sqnr_db
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict

pytestmark = pytest.mark.slow

# library, network, its last layer before the pooling (None: the network's own; the blocks that follow repeat these),
# whether it takes pixels 0..255 (else -1..1), the least SQNR of int8 in dB (measured with three seeds: 6 dB more)
NETWORKS = [
    ("keras", "MobileNetV2", None, False, 30),
    ("keras", "MobileNetV3Small", "expanded_conv_5_add", True, 30),  # raw operations, hard-swish
    ("keras", "EfficientNetB0", "block3b_add", True, 21),  # squeeze-and-excite, swish
    ("tf_keras", "MobileNetV2", "block_4_add", False, 30),
]
# each of our families that differs from those networks, at a small size
FAMILIES = [
    ("alexnet", {"alpha": 0.25}),
    ("mobilenet_v1", {"alpha": 0.5}),
    ("mobilenet_v4_conv_small", {"alpha": 0.5}),
    ("efficientnet_b0", {"phi": -4, "lite": True}),
]
SIZE = 64  # pixels
CHANCE_DB = 0.1  # between some photos and others
CALIBRATION = slice(24)  # of the photos; the others measure what neither int8 file was calibrated on
PLAIN = Int8(equalization=False, ranges="minmax", correction="none")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    from converters import Preprocessing
    from edge_cv import data

    return np.stack([p for p, _ in data.open_samples("sample_calibration").pixels(Preprocessing(SIZE), limit=32)])


def _build(library: str, name: str, end: str | None, images: np.ndarray) -> Any:
    """A classifier of 50 classes on a network up to the layer `end`."""
    import importlib

    keras = importlib.import_module(library)
    keras.utils.set_random_seed(1)
    whole = getattr(keras.applications, name)(weights=None, input_shape=(SIZE, SIZE, 3), include_top=False)
    features = whole.output if end is None else whole.get_layer(end).output
    logits = keras.layers.Dense(50)(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(whole.input, logits)
    _settle(model, images)
    return model


def _settle(model: Any, images: np.ndarray) -> None:
    """Batch-norm statistics of the images."""
    for layer in model.layers:
        if "BatchNormalization" in type(layer).__name__:
            layer.momentum = 0.3
    for _ in range(4):
        model(images[:16], training=True)


def _sqnr_on_other_photos(model: Any, conversion: Any, images: np.ndarray) -> float:
    """Of a conversion, beside the float file, in dB."""
    others = images[CALIBRATION.stop :]
    wanted = predict(to_tflite(model, "float32").content, others)
    return sqnr_db(wanted, predict(conversion.content, others, pixel_offset=conversion.pixel_offset))


@pytest.mark.parametrize(("library", "name", "end", "takes_pixels", "min_sqnr_db"), NETWORKS)
def test_every_scheme_of_a_known_network_and_int8_is_no_worse_than_the_plain_file(
    photos, library, name, end, takes_pixels, min_sqnr_db
):
    images = photos.astype(np.float32) if takes_pixels else photos / np.float32(127.5) - 1
    model = _build(library, name, end, images)
    least = {"float32": 90, "float16": 45, "dynamic_int8": 20, "int8": min_sqnr_db}
    for scheme, least_db in least.items():
        conversion = to_tflite(model, scheme, calibration=images[CALIBRATION])
        assert conversion.parity.sqnr_db > least_db, scheme
    integer, total = count_operators(Graph(conversion.content))
    assert integer == total
    assert conversion.pixel_offset == (-128 if takes_pixels else None)
    assert to_onnx(model, calibration=images[CALIBRATION]).parity.sqnr_db > 90
    plain = to_tflite(model, PLAIN, calibration=images[CALIBRATION])
    assert _sqnr_on_other_photos(model, conversion, images) >= _sqnr_on_other_photos(model, plain, images) - CHANCE_DB


@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=str)
def test_int8_of_our_families_is_no_worse_than_the_plain_file_on_other_photos(photos, name, options):
    import keras

    from edge_cv import models

    keras.utils.set_random_seed(1)
    model = models.build(name, classes=50, image_size=SIZE, **options)
    _settle(model, photos.astype(np.float32))
    plain, ours = (to_tflite(model, scheme, calibration=photos[CALIBRATION]) for scheme in (PLAIN, Int8()))
    assert _sqnr_on_other_photos(model, ours, photos) >= _sqnr_on_other_photos(model, plain, photos)
