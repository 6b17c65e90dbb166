"""Float TFLite files of PyTorch's models, whose input has its channels first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import to_onnx, to_tflite
from converters.parity import sqnr_db
from converters.sources import open_source
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict, predict_onnx

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
GOLDEN = Path(__file__).parent / "golden" / "litert_torch.npz"  # of make_litert_torch.py


def _plain(layers: Any, image: Any) -> Any:
    return layers.Permute((2, 3, 1))(image)


def _normalized(layers: Any, image: Any) -> Any:
    return _plain(layers, (image / np.float32(255) - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(3, 1, 1))


def _read_twice(layers: Any, image: Any) -> Any:
    return _plain(layers, image) + image[:, :1, :1, :1]


def _network(front: Callable[[Any, Any], Any]) -> Any:
    """A tf_keras classifier of images with channels first; `front` gives channels last."""
    import tf_keras

    tf_keras.utils.set_random_seed(5)
    layers = tf_keras.layers
    image = tf_keras.Input((3, 32, 32), batch_size=1)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(front(layers, image))
    x = layers.Conv2D(8, 3, activation="relu")(x)
    return tf_keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    "front", [_plain, *(pytest.param(front, marks=pytest.mark.slow) for front in (_normalized, _read_twice))]
)
def test_a_file_of_channels_first_takes_images_of_channels_last(front, pixels, tmp_path):
    import tensorflow as tf

    network, path = _network(front), tmp_path / "torch.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    source = open_source(path)
    assert source.input_shape == (32, 32, 3)
    calibration = pixels if front is _normalized else pixels / np.float32(255)
    images = calibration[:5].astype(np.float32)
    expected = np.concatenate([np.asarray(network(image[None].transpose(0, 3, 1, 2))) for image in images])
    np.testing.assert_allclose(source.predict(images), expected, atol=1e-4)
    int8 = to_tflite(path, "int8", calibration=calibration)
    assert int8.parity.sqnr_db > 20
    assert int8.pixel_offset == (-128 if front is _normalized else None)
    names = [operator.name for operator in Graph(int8.content).operators()]
    assert ("TRANSPOSE" in names) == (front is _read_twice)
    assert to_onnx(path, calibration=calibration).parity.sqnr_db > 60


def test_a_file_of_litert_torch_converts_to_what_pytorch_computes(edge_cv, tmp_path):
    from PIL import Image

    golden, photos, path = np.load(GOLDEN), tmp_path / "photos", tmp_path / "torch.tflite"
    path.write_bytes(golden["content"].tobytes())
    photos.mkdir()
    for number, image in enumerate(golden["images"]):
        Image.fromarray(image).save(photos / f"{number}.png")
    code, _, err = edge_cv(
        "convert", path, "--scheme", "float32", "--scheme", "int8", "--onnx", "--calibration", photos,
        "--resize", "stretch", "--mean", 0, "--std", 255, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    pixels, logits = golden["images"].astype(np.float32), golden["logits"]
    for name, run in (("float32.tflite", predict), ("onnx_float32.onnx", predict_onnx)):
        outputs = run((tmp_path / f"torch_{name}").read_bytes(), pixels / 255)
        np.testing.assert_allclose(outputs, logits, atol=1e-4)
    int8 = (tmp_path / "torch_int8.tflite").read_bytes()
    assert sqnr_db(logits, predict(int8, golden["images"], pixel_offset=-128)) > 18
    integer, total = count_operators(Graph(int8))
    assert integer == total
