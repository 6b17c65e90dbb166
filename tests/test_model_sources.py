"""The sources of models: accepted forms predict as the model itself, unsafe ones are not run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import InputError, Preprocessing, load, to_tflite
from converters.sources import open_source
from converters.tflite.runtime import predict


def _one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def _refused(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_source(model)
    _one_line(error)


def _same(model: Any, expected: np.ndarray, images: np.ndarray) -> None:
    source = open_source(model)
    assert source.input_shape == (32, 32, 3)
    assert len(source.digest) == 64
    np.testing.assert_allclose(source.predict(images), expected, atol=2e-5)
    np.testing.assert_allclose(predict(to_tflite(model, "float32").content, images), expected, atol=2e-4)


@pytest.fixture(scope="module")
def expected(small_model, pixels) -> np.ndarray:
    return small_model.predict(pixels[:5].astype(np.float32), verbose=0)


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
    _refused(tmp_path / "m.weights.h5", "whole model, as model.save writes it, not weights alone")


def test_the_code_of_a_lambda_layer_in_an_h5_file_is_not_run(tmp_path):
    import keras

    trace = tmp_path / "trace"
    path = str(trace)
    code = lambda x: (open(path, "w").write("executed"), x * 2)[1]  # noqa: E731, SIM115
    image = keras.Input((32, 32, 3))
    x = keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "code.h5")
    trace.unlink(missing_ok=True)
    _refused(tmp_path / "code.h5", "Lambda layer.*runs only if you trust")
    assert not trace.exists()


def test_a_float_tflite_file(small_model, expected, pixels, tmp_path):
    labels = [f"class {i}" for i in range(10)]
    preprocessing = Preprocessing(32, resize_to=36)
    conversion = to_tflite(small_model, "float32", labels=labels, preprocessing=preprocessing)
    path = conversion.save(tmp_path / "m.tflite")
    _same(path, expected, pixels[:5])
    source = open_source(path)
    assert (source.name, source.preprocessing) == (small_model.name, preprocessing)
    again = to_tflite(path, "int8", calibration=pixels)
    direct = to_tflite(small_model, "int8", calibration=pixels, preprocessing=preprocessing)
    assert again.pixel_offset == -128
    np.testing.assert_array_equal(
        *(predict(made.content, pixels, pixel_offset=-128) for made in (again, direct)),
    )


def test_a_quantized_tflite_file_is_rejected_by_name(small_model, pixels, tmp_path):
    for scheme in ("float16", "dynamic_int8", "int8"):
        path = to_tflite(small_model, scheme, calibration=pixels).save(tmp_path / f"{scheme}.tflite")
        _refused(path, rf"must be float32.*{scheme}\.tflite, which is quantized")
    (tmp_path / "junk.tflite").write_bytes(b"junk" * 10)
    _refused(tmp_path / "junk.tflite", "TFL3")
    _refused(tmp_path / "none.tflite", "must be a file that exists")


def test_a_saved_model_of_keras_3(small_model, expected, pixels, tmp_path):
    small_model.export(tmp_path / "saved", verbose=False)
    _same(tmp_path / "saved", expected, pixels[:5])


def test_tf_keras_as_a_model_and_as_a_saved_model(small_legacy_model, pixels, tmp_path):
    expected = small_legacy_model.predict(pixels[:5].astype(np.float32), verbose=0)
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
    _same(model, model.predict(pixels[:4].astype(np.float32), verbose=0), pixels[:4])


def test_a_sequential_model_that_was_not_built_is_rejected():
    import keras

    _refused(keras.Sequential(_layers(keras.layers)), "so that its input is known")


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
    _refused(model, "must be functional or a built Sequential")


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
        ((None, 32, 32, 1), r"RGB images.*\(free, 32, 32, 1\)"),
        ((None, 32, 32, 4), r"\(free, 32, 32, 4\)"),
        ((None, 3, 32, 32), r"\(free, 3, 32, 32\)"),
        ((8, 32, 32, 3), "batch size must be free or 1"),
        ((None, 32), r"\(free, 32\)"),
    ],
)
def test_an_input_that_is_not_rgb_of_one_size_is_rejected(shape, message):
    import keras

    image = keras.Input(batch_shape=shape)
    x = keras.layers.GlobalAveragePooling2D()(image) if len(shape) == 4 else image
    _refused(keras.Model(image, x), message)


def test_two_inputs_or_outputs_are_rejected(tmp_path):
    import keras

    a, b = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    pool = keras.layers.GlobalAveragePooling2D()
    two = keras.Model([a, b], pool(a + b))
    _refused(two, "one input and one output. Received: 2 inputs and 1 outputs")
    _refused(keras.Model(a, [pool(a), pool(a)]), "Received: 1 inputs and 2 outputs")
    two.export(tmp_path / "two", verbose=False)
    _refused(tmp_path / "two", "Received: 2 inputs and 1 outputs")


def test_an_output_that_is_no_row_of_classes_is_rejected():
    import keras

    image = keras.Input((32, 32, 3))
    _refused(keras.Model(image, keras.layers.Conv2D(2, 1)(image)), r"output must be \(batch, classes\)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(small_network, tmp_path, value):
    model = small_network()
    kernel = np.array(model.get_layer("logits").kernel)
    kernel[0, 0] = value
    model.get_layer("logits").kernel.assign(kernel)
    _refused(model, "weights must be finite")
    model.export(tmp_path / "saved", verbose=False)
    _refused(tmp_path / "saved", "weights must be finite")


@pytest.mark.parametrize("thing", [None, 3, b"x", [1], object(), lambda x: x])
def test_what_is_not_a_model_is_rejected(thing):
    _refused(thing, "must be a Keras model or the path")


def test_files_that_are_no_models_are_rejected(tmp_path):
    (tmp_path / "empty.keras").write_bytes(b"")
    (tmp_path / "junk.keras").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "lambda.keras").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "folder.keras").mkdir()
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    _refused(tmp_path / "none.keras", "must be a file that exists")
    for name in ("empty", "junk", "lambda"):
        _refused(tmp_path / f"{name}.keras", "not a .keras archive, or is corrupt")
    _refused(tmp_path / "model.h5", "not an HDF5 file of a Keras model")
    (tmp_path / "model.onnx").write_bytes(b"junk")
    _refused(tmp_path / "model.onnx", "must be a .keras archive")
    _refused(tmp_path / "other.keras", "must hold config.json")
    _refused(tmp_path / "folder.keras", "must hold saved_model.pb")


def _rewrite(source: Path, target: Path, change: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_a_damaged_keras_file_is_rejected(small_model, tmp_path):
    good = tmp_path / "lambda_m.keras"
    small_model.save(good)
    content = good.read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(content[: len(content) // 2])
    _refused(cut, "corrupt")
    flipped = bytearray(content)
    at = content.index(b"\x89HDF") + 2000
    flipped[at : at + 50] = bytes(50)
    cut.write_bytes(flipped)
    with pytest.raises(InputError) as error:
        open_source(cut)
    _one_line(error)
    for change in (
        {"config.json": b"{"},
        {"config.json": b"[]"},
        {"config.json": b'{"class_name": "NoSuch", "config": {}}'},
        {"model.weights.h5": None},
        {"model.weights.h5": b"no weights"},
    ):
        _refused(_rewrite(good, tmp_path / "lambda_bad.keras", change), "cannot be loaded as a Keras 3 model")


def test_an_archive_that_unpacks_to_far_more_than_it_weighs_is_rejected(small_model, tmp_path):
    small_model.save(tmp_path / "m.keras")
    bomb = _rewrite(tmp_path / "m.keras", tmp_path / "bomb.keras", {"model.weights.h5": bytes(200_000_000)})
    assert bomb.stat().st_size < 1_000_000
    _refused(bomb, "unpacks to 2.* bytes, over 50 times its size")


@pytest.fixture
def lambda_file(tmp_path: Path) -> tuple[Path, Path]:
    """A .keras file whose Lambda layer writes a file when it is called, and that file."""
    import keras

    trace = tmp_path / "trace"

    image = keras.Input((32, 32, 3))
    path = str(trace)
    code = lambda x: (open(path, "w").write("executed"), x * 2)[1]  # noqa: E731, SIM115
    x = keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "code.keras")
    trace.unlink(missing_ok=True)
    return tmp_path / "code.keras", trace


def test_the_code_of_a_lambda_layer_is_not_run(lambda_file):
    file, trace = lambda_file
    _refused(file, "Lambda layer.*runs only if you trust")
    assert not trace.exists()


def test_the_code_of_a_lambda_layer_is_run_when_the_caller_says_so(lambda_file, pixels):
    file, trace = lambda_file
    model = load(file, unsafe=True)
    np.testing.assert_allclose(open_source(model).predict(pixels[:2]), 2 * pixels[:2].mean((1, 2)), rtol=1e-5)
    assert trace.exists()


def test_a_lambda_in_a_loaded_model_is_the_callers_own_and_converts(pixels):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Lambda(lambda v: v * 3.0)(image))
    _same(keras.Model(image, x), 3 * pixels[:2].mean((1, 2)), pixels[:2])


def _save_hostile(folder: Path, step: Any) -> None:
    """A SavedModel whose signature does `step()` before it computes."""
    import tensorflow as tf

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])
        def serve(self, image):
            with tf.control_dependencies([step()]):
                return {"scores": tf.reduce_mean(image, (1, 2))}

    module = Hostile()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


@pytest.mark.parametrize("kind", ["WriteFile", "ReadFile", "EagerPyFunc", "PyFunc", "PrintV2", "MatchingFiles"])
def test_a_saved_model_that_reaches_outside_is_not_run(kind, tmp_path):
    import tensorflow as tf

    trace = tmp_path / "trace"

    def touch() -> np.float32:
        trace.write_text("executed")
        return np.float32(0)

    steps = {
        "WriteFile": lambda: tf.io.write_file(str(trace), "executed"),
        "ReadFile": lambda: tf.io.read_file("/etc/hostname"),
        "EagerPyFunc": lambda: tf.py_function(touch, [], tf.float32),
        "PyFunc": lambda: tf.numpy_function(touch, [], tf.float32),
        "PrintV2": lambda: tf.print("executed", output_stream=f"file://{trace}"),
        "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
    }
    _save_hostile(tmp_path / "saved", steps[kind])
    _refused(tmp_path / "saved", f"may reach outside the model, and is not run: .*{kind}")
    assert not trace.exists()


def test_unsafe_code_under_the_name_of_the_saver_is_not_run(tmp_path):
    """The functions that save and restore may touch files, but only while the model itself does not call them."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    trace = tmp_path / "trace"
    _save_hostile(tmp_path / "saved", lambda: tf.io.write_file(str(trace), "executed"))
    file = tmp_path / "saved" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    text = str(proto)
    names = {f.signature.name for meta in proto.meta_graphs for f in meta.graph_def.library.function}
    for name in sorted(names, key=len, reverse=True):
        if not name.startswith("__inference__traced"):
            text = text.replace(f'"{name}"', f'"__inference__traced_save_{name}"')
    from google.protobuf import text_format

    file.write_bytes(text_format.Parse(text, saved_model_pb2.SavedModel()).SerializeToString())
    _refused(tmp_path / "saved", "WriteFile")
    assert not trace.exists()


def test_damaged_saved_models_are_rejected(small_model, tmp_path):
    (tmp_path / "saved").mkdir()
    _refused(tmp_path / "saved", "must hold saved_model.pb")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    _refused(tmp_path / "saved", "saved by TensorFlow 2")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(np.random.default_rng(0).bytes(3000))
    _refused(tmp_path / "saved", "not a SavedModel, or is corrupt")
    small_model.export(tmp_path / "cut", verbose=False)
    for file in (tmp_path / "cut" / "variables").iterdir():
        file.unlink()
    _refused(tmp_path / "cut", "cannot be loaded as a SavedModel")


def test_the_preprocessing_beside_a_keras_file_is_the_models(small_model, tmp_path):
    small_model.save(tmp_path / "m.keras")
    beside = Preprocessing(32, resize_to=40, rule="resize_then_crop")
    (tmp_path / "m.json").write_text(json.dumps({"preprocessing": beside.to_dict()}))
    assert open_source(tmp_path / "m.keras").preprocessing == beside
    for other in ("no json", "[]", '{"preprocessing": 3}', '{"preprocessing": {"image_size": -1}}'):
        (tmp_path / "m.json").write_text(other)
        assert open_source(tmp_path / "m.keras").preprocessing is None
