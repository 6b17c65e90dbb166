"""Whole-model files of Keras 2 and 3: rebuilt to the same outputs in float32, or refused before memory is taken."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import keras_2_model, save_keras_2, small_features, teachable_machine
from source_refusal import refused

from converters.errors import InputError, UnknownLayer, WeightsAlone
from converters.sources import import_layers, load, open_source


def _images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


def _outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """What a Keras model computes, without tracing a function for it."""
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize(
    "version", ["2.2.4-tf", *(pytest.param(v, marks=pytest.mark.slow) for v in ("2.3.0-tf", "2.10.0", "2.15.0"))]
)
def test_an_h5_file_of_keras_2_computes_what_tf_keras_computes(version, tmp_path):
    import h5py

    model = keras_2_model()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    path = save_keras_2(model, tmp_path / "two.h5", version)
    with h5py.File(path) as file:
        assert len(file["optimizer_weights"])
    np.testing.assert_allclose(open_source(path).predict(_images()), _outputs(model, _images()), atol=1e-5)


def test_a_teachable_machine_file_becomes_a_keras_3_model(tmp_path):
    import keras

    model = teachable_machine()
    loaded = load(save_keras_2(model, tmp_path / "keras_model.h5", "2.2.4-tf"))
    images = _images() / 127.5 - 1
    np.testing.assert_allclose(open_source(loaded).predict(images), _outputs(model, images), atol=1e-5)
    # hard_sigmoid has another slope in Keras 3: such a model stays what it is
    assert not isinstance(loaded, keras.Model)
    import tf_keras

    image = tf_keras.Input((32, 32, 3))
    plain = tf_keras.Model(image, tf_keras.layers.Conv2D(3, 3, activation="swish")(image))
    plain = tf_keras.Sequential([plain, tf_keras.layers.GlobalMaxPooling2D()])
    assert isinstance(load(save_keras_2(plain, tmp_path / "plain.h5", "2.2.4-tf")), keras.Model)


def test_arithmetic_of_tensorflow_becomes_rescaling_layers(tmp_path):
    import keras
    import tf_keras

    image = tf_keras.Input((32, 32, 3))
    x = tf_keras.layers.Conv2D(4, 3)(image / 127.5 - 1.0)
    model = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    for path in (save_keras_2(model, tmp_path / "m.h5", "2.8.0"), tmp_path / "m.keras"):
        if path.suffix == ".keras":
            model.save(path)
        loaded = load(path)
        assert isinstance(loaded, keras.Model)
        assert [type(layer).__name__ for layer in loaded.layers[1:3]] == ["Rescaling", "Rescaling"]
        np.testing.assert_allclose(_outputs(loaded, _images()), _outputs(model, _images()), atol=1e-4)


def test_a_keras_file_of_tf_keras_computes_the_same(tmp_path):
    model = keras_2_model()
    model.save(tmp_path / "two.keras")
    source = open_source(tmp_path / "two.keras")
    np.testing.assert_allclose(source.predict(_images()), _outputs(model, _images()), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["keras", "h5", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hdf5", "model", "tf_keras"))]
)
def test_a_model_of_mixed_precision_computes_in_float32(policy, kind, small_network, tmp_path):
    import keras
    import tf_keras

    library = tf_keras if kind == "tf_keras" else keras
    policies = library.mixed_precision if kind == "tf_keras" else keras.mixed_precision
    plain = keras_2_model() if kind == "tf_keras" else small_network(lambda layers, x: layers.Rescaling(1 / 255)(x))
    policies.set_global_policy(policy) if kind == "tf_keras" else keras.config.set_dtype_policy(policy)
    try:
        model = keras_2_model() if kind == "tf_keras" else small_network(lambda layers, x: layers.Rescaling(1 / 255)(x))
    finally:
        policies.set_global_policy("float32") if kind == "tf_keras" else keras.config.set_dtype_policy("float32")
    plain.set_weights(model.get_weights())
    given: Any = model
    if kind in ("keras", "h5", "hdf5"):
        given = tmp_path / f"mixed.{kind}"
        model.save(tmp_path / f"mixed.{kind.replace('hdf5', 'h5')}")
        if kind == "hdf5":
            (tmp_path / "mixed.h5").rename(given)
    np.testing.assert_allclose(open_source(given).predict(_images()), _outputs(plain, _images()), atol=1e-4)


def _with_config(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model file with each object of its configuration changed."""
    import h5py

    def changed(config: Any) -> Any:
        pending = [config]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                if "class_name" in value:
                    change(value)
                pending += value.values()
            elif isinstance(value, list):
                pending += value
        return json.dumps(config).encode()

    if source.suffix == ".h5":
        target.write_bytes(source.read_bytes())
        with h5py.File(target, "r+") as file:
            file.attrs["model_config"] = changed(json.loads(file.attrs["model_config"]))
        return target
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, changed(json.loads(content)) if name == "config.json" else content)
    return target


def _giant(node: dict[str, Any]) -> None:
    if node["class_name"] == "Dense":
        node["config"]["units"] = 10**10


def _giant_image(node: dict[str, Any]) -> None:
    node.pop("build_config", None)
    if node["class_name"] == "InputLayer":
        (key,) = {"batch_shape", "batch_input_shape"} & node["config"].keys()
        node["config"][key] = [None, 300_000, 300_000, 3]


def _process(node: dict[str, Any]) -> None:
    if node["class_name"] == "ReLU":
        node.update(module="subprocess", class_name="Popen", registered_name=None, config={"args": "true"})


def _function(node: dict[str, Any]) -> None:
    if node["class_name"] == "SeparableConv2D":
        node["config"]["activation"] = {
            "class_name": "function", "config": "system", "module": "os", "registered_name": "system"
        }  # fmt: skip


@pytest.mark.parametrize("name", ["three.keras", "three.h5", "two.keras", "two.h5"])
def test_giants_and_foreign_classes_are_refused_before_they_are_made(name, tmp_path):
    import keras

    path = tmp_path / name
    if name.startswith("two"):
        model = keras_2_model()
        model.save(path) if name.endswith(".keras") else save_keras_2(model, path, "2.8.0")
    else:
        image = keras.Input((32, 32, 3))
        x = keras.layers.GlobalAveragePooling2D()(small_features(keras.layers, image))
        keras.Model(image, keras.layers.Dense(3)(x)).save(path)
    changed = tmp_path / f"changed{path.suffix}"
    for change, message in (
        (_giant, r"declares layers of \d{2},[0-9,]+ weights, but stores \d+ values: refused"),
        (_giant_image, "must compute at most .* Received: 270,000,000,000"),
        (_process, "holds Popen, which is not a layer of Keras"),
        (_function, "holds system, which is not a layer of Keras"),
    ):
        refused(_with_config(path, changed, change), message)


def test_a_random_shear_that_keras_does_not_read_is_passed_over(tmp_path):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.RandomShear(0.2, 0.1)(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(open_source(tmp_path / "m.keras").predict(_images()), _images().mean((1, 2)), rtol=1e-5)


def test_a_function_of_tensorflow_that_writes_files_is_refused(tmp_path):
    import tf_keras

    image = tf_keras.Input((32, 32, 3))
    path = save_keras_2(tf_keras.Model(image, image / 2.0), tmp_path / "m.h5", "2.8.0")

    def write(node: dict[str, Any]) -> None:
        if node["class_name"] == "TFOpLambda":
            node["config"]["function"] = "io.write_file"

    refused(_with_config(path, tmp_path / "w.h5", write), "the TensorFlow function io.write_file, which is not a layer")


def test_an_array_that_is_declared_but_not_stored_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_dataset("x", (10**6, 10**6), chunks=(100, 100), dtype="f4", compression="gzip")
    refused(tmp_path / "bomb.h5", "unpacks to 4000000000000 bytes, over 50 times its size")
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_dataset("x", data=["a", "b"], dtype=h5py.string_dtype())
    refused(tmp_path / "text.h5", "must hold arrays of numbers")


LAYERS = """
import keras

class Gate(keras.layers.Layer):
    def build(self, shape):
        self.gate = self.add_weight(shape=(shape[-1],), initializer="ones", name="gate")

    def call(self, x):
        return x * self.gate
"""


@pytest.fixture
def registered_objects():
    """Keras's global table of custom objects, which is as before after the test."""
    import keras

    objects = keras.saving.get_custom_objects()
    before = dict(objects)
    yield objects
    objects.clear()
    objects.update(before)


def test_layers_of_the_users_own_are_imported_only_when_asked(registered_objects, tmp_path):
    import keras

    (tmp_path / "my_layers.py").write_text(LAYERS)
    scope: dict[str, Any] = {"__name__": "my_layers"}
    exec(LAYERS, scope)  # noqa: S102
    image = keras.Input((32, 32, 3))
    gate = scope["Gate"]()
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(gate(image)))
    gate.gate.assign([1, 2, 3])
    model.save(tmp_path / "own.keras")
    refused(tmp_path / "own.keras", "holds Gate, which is not a layer of Keras: import the Python file that defines it")
    with pytest.raises(UnknownLayer):
        load(tmp_path / "own.keras")
    assert import_layers(tmp_path / "my_layers.py") == ("Gate",)
    expected = _images().mean((1, 2)) * [1, 2, 3]
    np.testing.assert_allclose(open_source(tmp_path / "own.keras").predict(_images()), expected, rtol=1e-5)


def test_the_loss_of_a_training_is_not_needed(small_network, registered_objects, tmp_path):
    import keras

    @keras.saving.register_keras_serializable("tests")
    def own_loss(expected, outputs):
        return keras.ops.mean(outputs - expected, axis=-1)

    model = small_network()
    model.compile("adam", own_loss)
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
    registered_objects.clear()
    for name in ("m.keras", "m.h5"):
        predicted = open_source(tmp_path / name).predict(_images())
        np.testing.assert_allclose(predicted, _outputs(model, _images()), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a Python file that exists"),
        ("x = 1", "must define the model's layers"),
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError: No module named 'nowhere"),
        ("def f(:", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "layers.py").write_text(content)
    with pytest.raises(InputError, match=message):
        import_layers(tmp_path / "layers.py")


def test_a_model_that_keras_quantized_is_recognized(small_network, tmp_path):
    model = small_network()
    model.quantize("int8")
    model.save(tmp_path / "q.keras")
    for given in (model, tmp_path / "q.keras"):
        refused(given, r"quantized by Keras's model\.quantize\('int8'\).*convert the model from before that call")


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_widths_of_keras_quantization_are_recognized_too(mode, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.quantize(mode)
    model.save(tmp_path / "q.keras")
    refused(tmp_path / "q.keras", "quantized by Keras's model.quantize .*convert the model from before that call")


def test_weights_alone_need_the_architecture(edge_cv, tmp_path):
    import keras

    image = keras.Input((32, 32, 3))
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(7, 3)(image))).save_weights(
        tmp_path / "m.weights.h5"
    )
    with pytest.raises(WeightsAlone):
        load(tmp_path / "m.weights.h5")
    command = ("convert", tmp_path / "m.weights.h5", "--scheme", "float32", "--out", tmp_path, "--input-size", "32")
    code, _, printed = edge_cv(*command)
    assert code == 2
    assert "--architecture NAME" in printed
    code, _, printed = edge_cv(*command, "--architecture", "mobilenet_v1")
    assert code == 2
    assert len(printed.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.tflite"))


@pytest.mark.slow
def test_weights_alone_are_converted_with_their_architecture(edge_cv, tmp_path):
    from edge_cv import models

    model = models.build("mobilenet_v1", classes=7, image_size=32, alpha=0.25)
    model.save_weights(tmp_path / "m.weights.h5")
    command = ("convert", tmp_path / "m.weights.h5", "--scheme", "float32", "--out", tmp_path, "--input-size", "32")
    code, _, printed = edge_cv(*command, "--architecture", "mobilenet_v1", "--alpha", "0.25")
    assert code == 0, printed
    (file,) = tmp_path.glob("*float32.tflite")
    images = _images()
    np.testing.assert_allclose(open_source(file).predict(images), _outputs(model, images), atol=1e-4)


def test_raw_operations_in_an_h5_file_of_keras_3_are_read_although_it_does_not_name_them(tmp_path):
    import keras

    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.Add()([x, keras.ops.relu6(x + 3.0) * x * (1 / 6)])
    x = keras.ops.mean(x, axis=(1, 2)) / 2.0 - 1
    model = keras.Model(image, keras.layers.Dense(3)(x))
    model.save(tmp_path / "raw.h5")
    with pytest.raises(ValueError, match="Relu6"):
        keras.models.load_model(tmp_path / "raw.h5")
    predicted = open_source(tmp_path / "raw.h5").predict(_images())
    np.testing.assert_allclose(predicted, _outputs(model, _images()), rtol=1e-5)


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_an_h5_file_of_convnext_is_read_with_its_own_layers(library, tmp_path):
    convnext = importlib.import_module(f"{library}.src.applications.convnext")
    options = {"depths": [1, 1, 1, 1], "projection_dims": [4, 4, 8, 8], "drop_path_rate": 0.1, "default_size": 32}
    model = convnext.ConvNeXt(**options, weights=None, input_shape=(32, 32, 3), classes=3)
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":  # at its initial 1e-6 it would not matter
            layer.gamma.assign(np.linspace(-1, 1, layer.gamma.shape[0]))
    model.save(tmp_path / "convnext.h5")
    loaded = open_source(tmp_path / "convnext.h5").predict(_images())
    np.testing.assert_allclose(loaded, _outputs(model, _images()), atol=1e-5)
