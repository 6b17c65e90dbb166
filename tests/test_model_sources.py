"""The sources of models: accepted forms predict as the model itself, and unfit models are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from source_refusal import refused

from converters import Preprocessing, to_tflite
from converters.errors import InputError
from converters.sources import open_source
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict


def _same(model: Any, expected: np.ndarray, images: np.ndarray) -> None:
    source = open_source(model)
    assert source.input_shape == (32, 32, 3)
    assert len(source.digest) == 64
    np.testing.assert_allclose(source.predict(images), expected, atol=2e-5)
    np.testing.assert_allclose(predict(to_tflite(model, "float32").content, images), expected, atol=2e-4)


@pytest.fixture(scope="module")
def expected(small_model, pixels) -> np.ndarray:
    return np.asarray(small_model(pixels[:5].astype(np.float32), training=False))


def test_a_functional_keras_3_model(small_model, expected, pixels):
    _same(small_model, expected, pixels[:5])


def test_a_keras_file_as_str_and_path(small_model, expected, pixels, tmp_path):
    small_model.save(tmp_path / "m.keras")
    _same(tmp_path / "m.keras", expected, pixels[:5])
    assert open_source(str(tmp_path / "m.keras")).digest == open_source(small_model).digest


def test_an_h5_file_of_keras_3(small_model, expected, pixels, tmp_path):
    small_model.save(tmp_path / "m.h5")
    _same(tmp_path / "m.h5", expected, pixels[:5])


def test_an_h5_file_of_weights_alone_is_rejected(small_model, tmp_path):
    small_model.save_weights(tmp_path / "m.weights.h5")
    refused(tmp_path / "m.weights.h5", "whole model, as model.save writes it, not weights alone")


def test_a_float_tflite_file(small_model, small_conversion, expected, pixels, tmp_path):
    labels = [f"class {i}" for i in range(10)]
    preprocessing = Preprocessing(32, resize_to=36)
    conversion = to_tflite(small_model, "float32", labels=labels, preprocessing=preprocessing)
    path = conversion.save(tmp_path / "m.tflite")
    _same(path, expected, pixels[:5])
    source = open_source(path)
    assert (source.name, source.preprocessing) == (small_model.name, preprocessing)
    again = to_tflite(path, "int8", calibration=pixels)
    assert again.pixel_offset == -128
    np.testing.assert_array_equal(
        *(predict(made.content, pixels, pixel_offset=-128) for made in (again, small_conversion)),
    )


def test_a_quantized_tflite_file_is_rejected_by_name(small_model, pixels, tmp_path):
    for scheme in ("float16", "dynamic_int8", "int8"):
        path = to_tflite(small_model, scheme, calibration=pixels).save(tmp_path / f"{scheme}.tflite")
        refused(path, rf"must be float32.*{scheme}\.tflite, which is quantized")
    (tmp_path / "junk.tflite").write_bytes(b"junk" * 10)
    refused(tmp_path / "junk.tflite", "TFL3")
    refused(tmp_path / "none.tflite", "must be a file that exists")


def test_a_tflite_file_that_keeps_a_state_is_rejected(small_model, tmp_path):
    graph = Graph(to_tflite(small_model, "float32").content)
    dense = next(operator for operator in graph.operators() if operator.name == "FULLY_CONNECTED")
    graph.tensors[dense.inputs[2]].isVariable = True
    graph.tensors[dense.inputs[2]].buffer = 0
    (tmp_path / "m.tflite").write_bytes(graph.to_bytes())
    refused(tmp_path / "m.tflite", r"whichever came before.*FULLY_CONNECTED, which keeps a state.*unroll=True")


def test_a_saved_model_of_one_signature_of_any_name(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((None, 32, 32, 3), name="photo")
    module.mean = tf.function(lambda photo: tf.reduce_mean(photo, (1, 2)), input_signature=[spec])
    module.top = tf.function(lambda photo: tf.reduce_max(photo, (1, 2)), input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "one", signatures={"classify": module.mean})
    photos = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(open_source(tmp_path / "one").predict(photos), photos.mean((1, 2)), rtol=1e-5)
    tf.saved_model.save(module, tmp_path / "two", signatures={"classify": module.mean, "top": module.top})
    refused(tmp_path / "two", r"serving_default, or one alone: save it with .* Received: \['classify', 'top'\]")


def test_a_saved_model_of_keras_3(small_model, expected, pixels, tmp_path):
    small_model.export(tmp_path / "saved", verbose=False)
    _same(tmp_path / "saved", expected, pixels[:5])


@pytest.mark.slow
def test_tf_keras_as_a_model_and_as_a_saved_model(small_legacy_model, pixels, tmp_path):
    expected = np.asarray(small_legacy_model(pixels[:5].astype(np.float32), training=False))
    _same(small_legacy_model, expected, pixels[:5])
    small_legacy_model.save(tmp_path / "saved", save_format="tf")
    _same(tmp_path / "saved", expected, pixels[:5])
    small_legacy_model.export(tmp_path / "exported")
    _same(tmp_path / "exported", expected, pixels[:5])


def _layers(layers: Any) -> list:
    return [
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalMaxPooling2D(),
        layers.Dense(3),
    ]


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_a_sequential_model(library, pixels):
    keras = pytest.importorskip(library)
    model = keras.Sequential([keras.layers.InputLayer((32, 32, 3)), *_layers(keras.layers)])
    _same(model, np.asarray(model(pixels[:4].astype(np.float32), training=False)), pixels[:4])


def test_a_sequential_model_that_was_not_built_is_rejected():
    import keras

    refused(keras.Sequential(_layers(keras.layers)), "so that its input is known")


def test_a_subclassed_model_is_rejected(pixels):
    import keras

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.mean(x, (1, 2)))

    model = Own()
    model(pixels[:1].astype(np.float32))
    refused(model, "must be functional or a built Sequential")


def test_a_layer_of_the_callers_own_without_a_config_converts(pixels):
    import keras

    class Twice(keras.layers.Layer):
        def get_config(self):
            raise NotImplementedError

        def call(self, x):
            return 2 * x

    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(Twice()(image))
    _same(keras.Model(image, x), 2 * pixels[:3].mean((1, 2)), pixels[:3])


def test_an_input_given_by_name_as_a_dict(pixels):
    import keras

    image = keras.Input((32, 32, 3), name="photo")
    model = keras.Model({"photo": image}, {"scores": keras.layers.GlobalAveragePooling2D()(image)})
    _same(model, pixels[:3].mean((1, 2)), pixels[:3])


def test_a_fixed_batch_of_one_is_fine(pixels):
    import keras

    image = keras.Input(batch_shape=(1, 32, 32, 3))
    _same(keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)), pixels[:3].mean((1, 2)), pixels[:3])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, None, None, 3), r"one fixed size.*\(free, free, free, 3\)"),
        ((None, 32, None, 3), r"\(free, 32, free, 3\)"),
        ((None, 32, 32, 2), r"RGB images.*\(free, 32, 32, 2\)"),
        ((None, 32, 32, 4), r"\(free, 32, 32, 4\)"),
        ((None, 3, 32, 32), r"\(free, 3, 32, 32\)"),
        ((None, 32), r"\(free, 32\); in Keras: .*Flatten"),
    ],
)
def test_an_input_that_is_not_images_of_one_size_is_rejected(shape, message):
    import keras

    image = keras.Input(batch_shape=shape)
    x = keras.layers.GlobalAveragePooling2D()(image) if len(shape) == 4 else image
    refused(keras.Model(image, x), message)


def test_two_inputs_or_outputs_are_rejected(tmp_path):
    import keras

    a, b = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    pool = keras.layers.GlobalAveragePooling2D()
    two = keras.Model([a, b], pool(a + b))
    refused(two, "one input and one output. Received: 2 inputs and 1 outputs .*; make all inputs but")
    refused(keras.Model(a, [pool(a), pool(a)]), "Received: 1 inputs and 2 outputs; choose the output")
    two.export(tmp_path / "two", verbose=False)
    refused(tmp_path / "two", "Received: 2 inputs and 1 outputs")


def test_an_output_that_is_no_row_of_classes_is_rejected():
    import keras

    image = keras.Input((32, 32, 3))
    refused(keras.Model(image, keras.layers.Conv2D(2, 1)(image)), r"output must be \(batch, classes\)")
    row = keras.layers.GlobalAveragePooling2D(keepdims=True)(image)
    refused(keras.Model(image, row), r"Received: \(free, 1, 1, 3\); in Keras: .*Flatten\(\)\(model.output\)")


@pytest.mark.parametrize("value", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_weights_that_are_not_finite_are_rejected(small_network, tmp_path, value):
    model = small_network()
    kernel = np.array(model.get_layer("logits").kernel)
    kernel[0, 0] = value
    model.get_layer("logits").kernel.assign(kernel)
    refused(model, "weights must be finite")
    model.export(tmp_path / "saved", verbose=False)
    refused(tmp_path / "saved", "weights must be finite")


@pytest.mark.parametrize("thing", [None, 3, b"x", [1], object(), lambda x: x])
def test_what_is_not_a_model_is_rejected(thing):
    refused(thing, "must be a Keras model or the path")


def test_a_lambda_in_a_loaded_model_is_the_callers_own_and_converts(pixels):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda v: v * 3.0)(image))
    _same(keras.Model(image, x), 3 * pixels[:2].mean((1, 2)), pixels[:2])


def test_the_preprocessing_beside_a_keras_file_is_the_models(small_model, tmp_path):
    small_model.save(tmp_path / "m.keras")
    beside = Preprocessing(32, resize_to=40, rule="resize_then_crop")
    (tmp_path / "m.json").write_text(json.dumps({"preprocessing": beside.to_dict()}))
    assert open_source(tmp_path / "m.keras").preprocessing == beside
    for other in ("no json", "[]", '{"preprocessing": 3}', '{"preprocessing": {"image_size": -1}}'):
        (tmp_path / "m.json").write_text(other)
        assert open_source(tmp_path / "m.keras").preprocessing is None


def test_a_tflite_file_that_declares_a_giant_tensor_is_refused(small_model, tmp_path):
    graph = Graph(to_tflite(small_model, "float32").content)
    graph.tensors[graph.inputs[0]].shape = np.array([1, 100_000, 100_000, 3], np.int32)
    (tmp_path / "giant.tflite").write_bytes(graph.to_bytes())
    refused(
        tmp_path / "giant.tflite",
        r"a tensor must have at most .* Received: tensor 0 of the shape \(1, 100000, 100000, 3\)",
    )


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (
            lambda layers, x: layers.Rescaling(float("nan"), name="r")(x),
            "layer 'r' of 'small' must be finite.*its scale",
        ),
        (lambda layers, x: layers.Rescaling(1.0, float("inf"), name="r")(x), "layer 'r' .*its offset"),
        (
            lambda layers, x: layers.Normalization(mean=[0.0, float("nan"), 0.0], variance=[1.0] * 3, name="n")(x),
            "layer 'n' .*its mean",
        ),
        (lambda layers, x: x / 0.0, "the model's outputs must be finite. Received: NaN or infinity from 'small'"),
    ],
)
def test_a_model_whose_numbers_are_not_finite_is_rejected(small_network, front, message):
    with pytest.raises(InputError, match=message):
        to_tflite(small_network(front), "float32")
