"""Each kind of model file that users bring: converted to float32, int8 and ONNX, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import (
    channels_first,
    fake_quantized,
    in_precision,
    keras_2_model,
    keras_3_model,
    normalized_images,
    plain_keras_2_model,
    save_keras_2,
    teachable_machine,
)
from source_refusal import refused

from converters import to_onnx, to_tflite
from converters.sources import open_source
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict, predict_onnx

pytestmark = pytest.mark.slow


def _pixels() -> np.ndarray:
    return np.rint((normalized_images() + 1) * 127.5).astype(np.float32)


def _saved(model: Any, path: Path, **options: Any) -> Path:
    model.save(path, **options)
    return path


def _exported(model: Any, path: Path) -> Path:
    model.export(path, verbose=False)
    return path


def _tflite(model: Any, path: Path, **options: Any) -> Path:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in options.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    return path


def _renamed(path: Path, suffix: str) -> Path:
    return path.rename(path.with_suffix(suffix))


def _augmented(library: Any) -> Callable[[Any], Any]:
    layers = library.layers
    return lambda image: layers.RandomFlip("horizontal")(
        layers.RandomRotation(0.1)(layers.RandomContrast(0.2)(layers.Rescaling(1 / 255)(image)))
    )


def _subclassed() -> Any:
    import keras

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.dense = keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(keras.ops.mean(self.convolution(x / 255.0), (1, 2)))

    keras.utils.set_random_seed(1)
    model = Own()
    model(_pixels()[:1])
    return model


def _sequential() -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    first = [keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(8, 3, 2, activation="relu")]
    return keras.Sequential([*first, layers.Flatten(), layers.Dense(3)])


def _pruned() -> Any:
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0, frequency=1)
    model = tfmot.sparsity.keras.prune_low_magnitude(plain_keras_2_model("pruned"), schedule)
    model.compile("sgd", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.fit(normalized_images(), np.zeros((24, 3)), epochs=1, verbose=0, callbacks=callbacks)
    return model


def _clustered() -> Any:
    import tensorflow_model_optimization as tfmot

    start = tfmot.clustering.keras.CentroidInitialization.LINEAR
    return tfmot.clustering.keras.cluster_weights(plain_keras_2_model("clustered"), 8, start)


def _two(**options: Any) -> Any:
    return keras_2_model(**options)


def _keras_2() -> Any:
    import tf_keras

    return tf_keras


def _keras_3() -> Any:
    import keras

    return keras


# kind: (the model, what the user hands over, whether it takes pixels 0..255)
ACCEPTED: dict[str, tuple[Callable[[], Any], Callable[[Any, Path], Any], bool]] = {
    "a Keras 3 model": (keras_3_model, lambda m, d: m, True),
    "a .keras file": (keras_3_model, lambda m, d: _saved(m, d / "m.keras"), True),
    "a .keras file of a Sequential model": (_sequential, lambda m, d: _saved(m, d / "m.keras"), True),
    "an .h5 file of Keras 3": (keras_3_model, lambda m, d: _saved(m, d / "m.h5"), True),
    "an .hdf5 file of Keras 3": (keras_3_model, lambda m, d: _renamed(_saved(m, d / "m.h5"), ".hdf5"), True),
    "an .h5 file of Keras 2.2.4": (_two, lambda m, d: save_keras_2(m, d / "m.h5", "2.2.4-tf"), True),
    "an .h5 file of Keras 2.15": (_two, lambda m, d: save_keras_2(m, d / "m.h5", "2.15.0"), True),
    "a Teachable Machine file": (teachable_machine, lambda m, d: save_keras_2(m, d / "m.h5", "2.2.4-tf"), False),
    "arithmetic of TensorFlow in an .h5 file": (
        lambda: _two(front=lambda image: image / 127.5 - 1.0),
        lambda m, d: save_keras_2(m, d / "m.h5", "2.8.0"),
        True,
    ),
    "a tf_keras model": (_two, lambda m, d: m, True),
    "a .keras file of tf_keras": (_two, lambda m, d: _saved(m, d / "m.keras"), True),
    "mixed_float16": (
        lambda: in_precision("mixed_float16", keras_3_model),
        lambda m, d: _saved(m, d / "m.keras"),
        True,
    ),
    "mixed_bfloat16 in an .h5 file": (
        lambda: in_precision("mixed_bfloat16", keras_3_model),
        lambda m, d: _saved(m, d / "m.h5"),
        True,
    ),
    "a SavedModel of mixed_float16": (
        lambda: in_precision("mixed_float16", keras_3_model),
        lambda m, d: _exported(m, d / "m"),
        True,
    ),
    "augmentation inside": (
        lambda: keras_3_model(_augmented(_keras_3())),
        lambda m, d: _saved(m, d / "m.keras"),
        True,
    ),
    "augmentation inside an .h5 file of Keras 2": (
        lambda: _two(front=_augmented(_keras_2())),
        lambda m, d: save_keras_2(m, d / "m.h5", "2.8.0"),
        True,
    ),
    "a SavedModel of Keras 3": (keras_3_model, lambda m, d: _exported(m, d / "m"), True),
    "a SavedModel of tf_keras": (_two, lambda m, d: _saved(m, d / "m", save_format="tf"), True),
    "a SavedModel of a subclassed model": (_subclassed, lambda m, d: _exported(m, d / "m"), True),
    "a float .tflite file": (_two, lambda m, d: _tflite(m, d / "m.tflite"), True),
    "a float .tflite file with channels first": (channels_first, lambda m, d: _tflite(m, d / "m.tflite"), True),
    "quantize_model in an .h5 file": (fake_quantized, lambda m, d: _saved(m, d / "m.h5", save_format="h5"), False),
    "quantize_model in a .tflite file": (fake_quantized, lambda m, d: _tflite(m, d / "m.tflite"), False),
    "pruning wrappers in an .h5 file": (_pruned, lambda m, d: _saved(m, d / "m.h5", save_format="h5"), False),
    "clustering wrappers in a .keras file": (_clustered, lambda m, d: _saved(m, d / "m.keras"), False),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_a_kind_of_file_becomes_float32_int8_and_onnx(kind, tmp_path):
    make, hand_over, takes_pixels = ACCEPTED[kind]
    model = make()
    images = _pixels() if takes_pixels else normalized_images()
    if kind.endswith("channels first"):
        expected = np.concatenate([np.asarray(model(image[None].transpose(0, 3, 1, 2))) for image in images])
    else:
        expected = np.asarray(model(images, training=False)).astype(np.float32)
    source = open_source(hand_over(model, tmp_path))  # opened and converted to float32 once for all three files
    aware, half = "quantize_model" in kind, "mixed" in kind
    tolerance = np.ptp(expected) * (0.6 if aware else 0.03 if half else 1e-4)
    float32 = to_tflite(source, "float32", calibration=images)
    np.testing.assert_allclose(predict(float32.content, images), expected, atol=tolerance, rtol=0)
    int8 = to_tflite(source, "int8", calibration=images)
    assert int8.parity.sqnr_db > 20
    integer, total = count_operators(Graph(int8.content))
    assert integer >= 0.6 * total
    outputs = predict(int8.content, images, pixel_offset=int8.pixel_offset)
    assert np.abs(outputs - expected).max() <= 0.2 * np.ptp(expected)
    onnx = to_onnx(source, calibration=images)
    np.testing.assert_allclose(predict_onnx(onnx.content, images), expected, atol=tolerance, rtol=0)


def _quantized(path: Path, **options: Any) -> Path:
    import tensorflow as tf

    return _tflite(teachable_machine(), path, optimizations=[tf.lite.Optimize.DEFAULT], **options)


def _float16(path: Path) -> Path:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(teachable_machine())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    return path


def _with_lambda(path: Path) -> Path:
    import keras

    return _saved(keras_3_model(lambda image: keras.layers.Lambda(lambda x: x * 2)(image)), path)


def _with_own_layer(path: Path) -> Path:
    import keras

    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    return _saved(keras_3_model(lambda image: Twice()(image)), path)


def _weights(path: Path) -> Path:
    keras_3_model().save_weights(path)
    return path


def _quantized_by_keras(path: Path) -> Path:
    model = keras_3_model()
    model.quantize("int8")
    return _saved(model, path)


def _bytes(path: Path) -> Path:
    path.write_bytes(b"\x08\x07" * 100)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "an int8 .tflite file": (
        lambda path: _quantized(path, representative_dataset=lambda: ([image[None]] for image in normalized_images())),
        "m.tflite",
        "quantized: int8 weights and activations; convert the float model",
    ),
    "float16 weights in a .tflite file": (_float16, "m.tflite", "quantized: float16 weights; convert the float model"),
    "a Lambda layer": (_with_lambda, "m.keras", "Lambda layer, which is Python code.*only if you trust the author"),
    "a layer of the user's own": (_with_own_layer, "m.keras", "holds Twice.*import the Python file that defines it"),
    "weights alone": (_weights, "m.weights.h5", "not weights alone: load the weights into the model"),
    "a model that Keras quantized": (_quantized_by_keras, "m.keras", "convert the model from before that call"),
    "quantize_model in a .keras file": (lambda p: _saved(fake_quantized(), p), "m.keras", r"save it with model\.save"),
    "augmentation on in a SavedModel": (
        lambda path: _exported(keras_3_model(_augmented(_keras_3())), path),
        "m",
        "answers at random.*save the model itself",
    ),
    "an ONNX file": (_bytes, "m.onnx", "onnx2tf"),
    "a PyTorch file": (_bytes, "m.pth", "litert-torch"),
    "a frozen graph of TensorFlow 1": (_bytes, "m.pb", "SavedModel"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_of_file_is_refused_with_what_to_do(kind, tmp_path):
    make, name, message = REFUSED[kind]
    refused(make(tmp_path / name), message)
