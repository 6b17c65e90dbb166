from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import h5py
import keras
import numpy as np
import pytest

from converters.errors import InputError
from edge_cv import models
from edge_cv.models import downloads, efficientnet, keras_files, weight_layouts

legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format", reason="writes files as they are published")


class Case(NamedTuple):
    """A network of keras.applications and the corresponding one of this package; image sizes in pixels."""

    name: str
    keras_name: str
    sizes: tuple[int, ...]
    options: Mapping = MappingProxyType({})


CASES = (Case("mobilenet_v1", "MobileNet", (32,), {"alpha": 0.25}),)
SLOW = (
    Case("mobilenet_v2", "MobileNetV2", (32,), {"alpha": 0.35}),
    Case("mobilenet_v3_small", "MobileNetV3Small", (64,), {"minimalistic": True}),
    Case("efficientnet_b0", "EfficientNetB0", (75,)),
    Case("mobilenet_v1", "MobileNet", (96,)),
    Case("mobilenet_v2", "MobileNetV2", (75,)),
    Case("mobilenet_v3_large", "MobileNetV3Large", (75,)),
    Case("mobilenet_v3_small", "MobileNetV3Small", (75,)),
    Case("mobilenet_v2", "MobileNetV2", (64,), {"alpha": 1.4}),
    Case("mobilenet_v3_small", "MobileNetV3Small", (64,), {"alpha": 0.75}),
    Case("mobilenet_v3_large", "MobileNetV3Large", (64,), {"alpha": 0.75}),
    Case("mobilenet_v3_large", "MobileNetV3Large", (64,), {"minimalistic": True}),
    Case("efficientnet_b0", "EfficientNetB0", (224,)),
    Case("efficientnet_b1", "EfficientNetB1", (64,)),  # the larger ones have more of the same blocks
    Case("efficientnet_b4", "EfficientNetB4", (75,)),
)


def case_id(case: Case) -> str:
    return "-".join([case.name, *(f"{key}={value}" for key, value in case.options.items())])


def reference(case: Case, size: int) -> keras.Model:
    """The network of keras.applications with random weights and statistics.

    It normalizes pixels with ImageNet's mean and deviation, as it does with the published weights.
    """
    model = getattr(keras.applications, case.keras_name)(
        weights=None, classifier_activation=None, input_shape=(size, size, 3), **case.options
    )
    random = np.random.default_rng(7)
    # Swish and the gates of squeeze-and-excitation attenuate.
    gain = 2.2 if case.keras_name.startswith("Efficient") else 2
    for layer in model.layers:
        values = layer.get_weights()
        if not values:
            continue
        if isinstance(layer, keras.layers.Normalization):
            mean, deviation = np.array(efficientnet.IMAGENET_MEAN), np.array(efficientnet.IMAGENET_STD)
            values = [mean, deviation**2, values[2]]
        elif isinstance(layer, keras.layers.BatchNormalization):
            values = [random.uniform(0.8, 1.2, value.shape) for value in values]
            values[1:3] = [random.normal(0, 0.1, value.shape) for value in values[1:3]]
        else:
            kernel = values[0]
            inputs = np.prod(kernel.shape[:2] if "Depthwise" in type(layer).__name__ else kernel.shape[:-1])
            gate = "_se_" in layer.name or "squeeze_excite" in layer.name  # a saturated gate would amplify rounding
            deviation = ((0.01 if gate else gain) / inputs) ** 0.5
            values = [random.normal(0, deviation, kernel.shape), *values[1:]]
            values[1:] = [random.normal(0, 0.1, value.shape) for value in values[1:]]
        layer.set_weights(values)
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # recomputes what the layer derives from its weights
    return model


def photos(size: int, seed: int) -> np.ndarray:
    """Four images of coloured squares. Neighbouring pixels are equal, so that no layer averages them away."""
    random = np.random.default_rng(seed)
    squares = np.repeat(np.repeat(random.integers(0, 256, (4, 7, 7, 3)), size // 7 + 1, axis=1), size // 7 + 1, axis=2)
    return squares[:, :size, :size].astype(np.float32)


def write(model: keras.Model, path: Path) -> None:
    """A file in the format of the published ones."""
    with h5py.File(path, "w") as file:
        legacy.save_weights_to_hdf5_group(file, model)


def preprocessed(case: Case, pixels: np.ndarray) -> np.ndarray:
    """The preprocessing of pixels in keras.applications' documentation."""
    module = "mobilenet" if case.keras_name == "MobileNet" else case.name.split("_b")[0].removesuffix("_small")
    module = module.removesuffix("_large")
    return getattr(keras.applications, module).preprocess_input(pixels.copy())


def logits_of(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(pixels, training=False))


@pytest.fixture
def float64():
    """Computes in double precision, so that rounding cannot explain a difference."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def relative_error(case: Case, size: int, path: Path) -> float:
    published = reference(case, size)
    write(published, path)
    model = models.build(case.name, image_size=size, **case.options)
    weight_layouts.assign_keras(model, keras_files.read_keras(path), head=True)
    pixels = photos(size, seed=2)
    expected = logits_of(published, preprocessed(case, pixels))
    seen = np.abs(expected[0] - expected[1]).max()  # the part of the logits that depends on the image
    error = np.abs(logits_of(model, pixels) - expected).max()
    assert error <= 1e-3 * seen, "the image must change the logits by more than the error"
    return float(error / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_mapped_weights_give_the_logits_of_keras_applications(case: Case, tmp_path, float64):
    for size in case.sizes:
        assert relative_error(case, size, tmp_path / "weights.h5") <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=case_id)
def test_mapped_weights_of_other_variants_give_the_logits_of_keras_applications(case: Case, tmp_path, float64):
    for size in case.sizes:
        assert relative_error(case, size, tmp_path / "weights.h5") <= 1e-5


@pytest.mark.slow
def test_weights_of_another_form_do_not_fit(tmp_path):
    small = keras.applications.MobileNetV3Small(weights=None, classes=7, input_shape=(32, 32, 3), alpha=0.75)
    write(small, tmp_path / "small.h5")
    layers = keras_files.read_keras(tmp_path / "small.h5")
    options = {"classes": 7, "image_size": 32}
    with pytest.raises(InputError, match=r"fit mobilenet_v3_large of \d+ layers with weights. Received: \d+"):
        weight_layouts.assign_keras(models.build("mobilenet_v3_large", alpha=0.25, **options), layers, head=True)
    with pytest.raises(InputError, match=r"must have the shape"):
        weight_layouts.assign_keras(models.build("mobilenet_v3_small", **options), layers, head=True)


@pytest.mark.slow
def test_normalization_must_be_that_of_imagenet_or_the_published_form_with_deviations(tmp_path):
    published = keras.applications.EfficientNetB0(weights=None, classes=7, input_shape=(32, 32, 3))
    model = models.build("efficientnet_b0", classes=7, image_size=32)
    write(published, tmp_path / "plain.h5")
    with pytest.raises(InputError, match=r"that normalizes with the mean \[0.485, 0.456, 0.406\]"):
        weight_layouts.assign_keras(model, keras_files.read_keras(tmp_path / "plain.h5"), head=True)

    normalization = next(layer for layer in published.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array(efficientnet.IMAGENET_MEAN), np.array(efficientnet.IMAGENET_STD), np.array(0)])
    write(published, tmp_path / "published.h5")
    weight_layouts.assign_keras(model, keras_files.read_keras(tmp_path / "published.h5"), head=True)
    np.testing.assert_array_equal(model.get_weights()[0], published.get_layer("stem_conv").get_weights()[0])


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + b"0" * 500, b"<html>404</html>"])
def test_file_of_another_format_is_refused(content: bytes, tmp_path):
    (tmp_path / "weights.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"weights.h5 must be a file of weights as keras.applications publishes them"):
        keras_files.read_keras(tmp_path / "weights.h5")


# --- where files are searched ----------------------------------------------------------------------------------------

V1_FILE = "mobilenet_2_5_128_tf.h5"


@pytest.fixture(scope="module")
def published_v1(tmp_path_factory) -> tuple[keras.Model, Path]:
    """A network of keras.applications and its file of weights."""
    model = reference(Case("mobilenet_v1", "MobileNet", (), {"alpha": 0.25}), 128)
    path = tmp_path_factory.mktemp("published") / V1_FILE
    write(model, path)
    return model, path


@pytest.fixture
def home(published_v1, tmp_path, monkeypatch) -> Path:
    """A KERAS_HOME whose folder of weights has one manually copied file."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGE_CV_WEIGHTS", raising=False)
    (tmp_path / "home" / "models").mkdir(parents=True)
    shutil.copy(published_v1[1], tmp_path / "home" / "models")
    return tmp_path


def test_manually_copied_file_is_used(published_v1, home: Path):
    model = models.build("mobilenet_v1", alpha=0.25, image_size=128, weights="imagenet")
    published, _ = published_v1
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").get_weights()[0], published.get_layer("conv1").get_weights()[0]
    )


def test_own_folder_comes_before_that_of_keras(home: Path, monkeypatch):
    (home / "own").mkdir()
    monkeypatch.setenv("EDGE_CV_WEIGHTS", str(home / "own"))
    assert downloads.stored(downloads.RemoteFile(V1_FILE, "")) == home / "home" / "models" / V1_FILE
    (home / "own" / V1_FILE).touch()
    assert downloads.stored(downloads.RemoteFile(V1_FILE, "")) == home / "own" / V1_FILE


def test_other_classes_load_the_backbone_and_log_a_warning(home: Path, caplog):
    with caplog.at_level(logging.WARNING):
        ten = models.build("mobilenet_v1", alpha=0.25, image_size=128, classes=10, weights="imagenet")
    full = models.build("mobilenet_v1", alpha=0.25, image_size=128, weights="imagenet")

    assert "the layer 'logits' of 10 classes starts at zeros" in caplog.text
    for weight, expected in zip(ten.get_weights()[:-2], full.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_file_with_another_digest_is_refused(home: Path):
    name = "weights_mobilenet_v3_small_224_1.0_float.h5"
    (home / "home" / "models" / name).write_bytes(b"half a file")
    with pytest.raises(InputError, match=rf"{name} must have the md5 8768d4c2e7dee89b9d02b2d03d65d862. Received: "):
        models.build("mobilenet_v3_small", weights="imagenet")


def test_without_a_network_the_error_names_the_url_and_the_folder_for_a_manual_copy(home: Path, monkeypatch, capsys):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens on this port
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError) as raised:
        models.build("mobilenet_v2", weights="imagenet")
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
    folder = home / "home" / "models"
    assert f"needs the file {name}, which is not in {folder}, and https://storage.googleapis.com/" in str(raised.value)
    assert "could not be downloaded" in str(raised.value)
    assert str(raised.value).endswith(f"Download it on another machine and copy it to {folder}")
    assert not list(folder.glob("mobilenet_v2*"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilenet_v1", {"alpha": 0.3}, r"alpha must be one of 1, 0.75, 0.5, 0.25 with weights.* Received: 0.3"),
        ("mobilenet_v2", {"alpha": 2}, r"alpha must be one of 0.35, 0.5, .*Received: 2"),
        ("mobilenet_v3_large", {"alpha": 0.75, "minimalistic": True}, r"alpha must be one of 1 .*minimalistic.*0.75"),
        ("efficientnet_b0", {"phi": 1}, r"phi must be None with weights=\"imagenet\" of efficientnet_b0. Received: 1"),
        ("efficientnet_b1", {"lite": True}, r"lite must be False with weights"),
    ],
)
def test_forms_without_published_weights_are_refused_with_the_available_ones(name: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        models.build(name, weights="imagenet", **options)


def test_weights_of_another_size_are_those_of_224():
    from edge_cv.models import mobilenet_v1, mobilenet_v2

    assert mobilenet_v1.imagenet_file("mobilenet_v1", image_size=160).name == "mobilenet_1_0_160_tf.h5"
    assert mobilenet_v2.imagenet_file("mobilenet_v2", image_size=96, alpha=1.4).name.endswith("_1.4_96.h5")
    assert mobilenet_v2.imagenet_file("mobilenet_v2", image_size=50).name.endswith("_1.0_224.h5")
