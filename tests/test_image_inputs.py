"""Models of every image input become files of one image: grey, rectangular, free or fixed sizes, whole pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converters import InputError, Preprocessing, to_onnx, to_tflite, verify
from converters.sources import open_source, parse_input_size
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict
from tests.source_refusal import refused

CLASSES = 4


def _network(shape: tuple[int, ...], *, dtype: str = "float32", batch: int | None = None, outputs: int = 1) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input(batch_shape=(batch, *shape), dtype=dtype)
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Reshape((*shape, 1))(x) if len(shape) == 2 else x
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x) if batch is None else layers.Flatten()(x)
    if outputs == 1:
        return keras.Model(image, layers.Dense(CLASSES)(x))
    return keras.Model(image, {"kind": layers.Dense(CLASSES, name="a")(x), "age": layers.Dense(2, name="b")(x)})


def _outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """What a Keras model computes, without tracing a function for it."""
    return np.asarray(model(images, training=False))


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, one of its inputs, what the caller says beside it, and how it is asked for its own outputs."""

    network: Callable[[], Any]
    shape: tuple[int, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    expected: Callable[[Any, np.ndarray], np.ndarray] = lambda model, images: _outputs(model, images)


CASES = {
    "grey": Case(lambda: _network((20, 20, 1)), (20, 20, 1)),
    "grey without channels": Case(lambda: _network((20, 20)), (20, 20)),
    "rectangle": Case(lambda: _network((16, 28, 3)), (16, 28, 3)),
    "any size": Case(lambda: _network((None, None, 3)), (16, 28, 3), {"input_size": "16x28"}),
    "batch of 8": Case(lambda: _network((20, 20, 3), batch=8), (20, 20, 3)),
    "uint8": Case(lambda: _network((20, 20, 3), dtype="uint8"), (20, 20, 3)),
    "two outputs": Case(
        lambda: _network((20, 20, 3), outputs=2),
        (20, 20, 3),
        {"output": "kind"},
        lambda model, images: np.asarray(model(images, training=False)["kind"]),
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def made(case):
    """The network, 8 images and its outputs."""
    model = case.network()
    images = np.random.default_rng(0).integers(0, 256, (8, *case.shape)).astype(np.float32)
    return model, images, case.expected(model, images)


@pytest.fixture(scope="module")
def files(made, tmp_path_factory):
    """The folder of the network's SavedModel and float TFLite file by another converter."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("forms")
    made[0].export(folder / "saved", verbose=False)
    (folder / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
    return folder


def _nhwc(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 4 else images[..., None]


@pytest.mark.parametrize(
    "form", ["keras", *(pytest.param(f, marks=pytest.mark.slow) for f in ("saved", "model.tflite"))]
)
def test_every_form_of_the_model_becomes_whole_int8_and_keeps_its_outputs(case, made, form, request):
    model, images, expected = made
    source = open_source(model if form == "keras" else request.getfixturevalue("files") / form, **case.options)
    assert source.input_shape == _nhwc(images).shape[1:]
    float32 = to_tflite(source, "float32", calibration=images)
    assert np.abs(predict(float32.content, _nhwc(images)) - expected).max() < 1e-4
    int8 = to_tflite(source, "int8", calibration=images)
    assert int8.record.input.shape == (1, *source.input_shape)
    integer, operators = int8.record.operators
    assert integer == operators
    assert not {o.name for o in Graph(int8.content).operators()} & {"CAST", "SHAPE", "PACK", "STRIDED_SLICE"}
    assert int8.parity.sqnr_db > 25


def test_onnx_takes_the_same_image_and_verify_finds_the_size_itself(case, made):
    model, images, _ = made
    conversion = to_onnx(model, calibration=images, **case.options)
    assert conversion.parity.sqnr_db > 80
    output = {name: value for name, value in case.options.items() if name == "output"}
    assert verify(model, conversion, images, **output).top1_agreement == 1.0


def test_a_keras_model_that_reshapes_to_its_fixed_batch_is_converted_for_one_image():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input(batch_shape=(8, 20, 20, 1))
    x = keras.layers.Conv2D(4, 3, strides=2)(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(CLASSES)(keras.ops.reshape(x, (8, -1))))
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 1)).astype(np.float32)
    float32 = to_tflite(model, "float32", calibration=images)
    assert np.abs(predict(float32.content, images) - _outputs(model, images)).max() < 1e-4
    assert to_tflite(model, "int8", calibration=images).record.input.shape == (1, 20, 20, 1)


def test_whole_pixels_that_a_layer_resizes_are_those_of_the_models_own_predict():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(keras.layers.Resizing(12, 12)(image))
    model = keras.Model(image, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x)))
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 30, 3)).astype(np.uint8)
    conversion = to_tflite(model, "int8", calibration=images, input_size=(20, 30))
    assert conversion.record.operators[0] == conversion.record.operators[1]
    assert conversion.pixel_offset == -128
    float32 = to_tflite(model, "float32", calibration=images, input_size=(20, 30))
    assert np.abs(predict(float32.content, images) - model.predict(images, verbose=0)).max() < 1e-3


def test_the_advice_for_two_inputs_can_be_followed():
    import keras

    photo, other = keras.Input((20, 20, 3)), keras.Input((4,))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(photo))
    model = keras.Model([photo, other], keras.layers.Dense(3)(keras.layers.Concatenate()([x, other])))
    refused(model, "image = keras.Input")
    image = keras.Input((20, 20, 3), batch_size=1)
    constant = np.ones((1, 4), np.float32)
    single = keras.Model(image, model([image, keras.ops.convert_to_tensor(constant)]))
    assert to_tflite(single, "float32").parity.sqnr_db > 60


def test_a_grey_file_of_another_converter_is_evaluated_without_an_axis_of_channels(tmp_path):
    import tensorflow as tf
    from PIL import Image

    from edge_cv import data
    from edge_cv.evaluation import evaluate

    model = _network((20, 20))
    file = tmp_path / "grey.tflite"
    file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20), np.uint8)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    samples = data.open_samples(str(tmp_path / "photos"), classes=())
    evaluation = evaluate({"it": file}, samples, Preprocessing(20, channels=1), workers=1)
    expected = _outputs(model, pixels.astype(np.float32)).argmax(1)
    assert [prediction.top5["it"][0][0] for prediction in evaluation.predictions] == expected.tolist()


def test_two_sizes_of_a_model_of_any_size_are_two_conversions():
    model = _network((None, None, 3))
    small, large = (to_tflite(model, "float32", input_size=size) for size in (12, (20, 14)))
    assert small.record.input.shape == (1, 12, 12, 3)
    assert large.record.input.shape == (1, 20, 14, 3)


@pytest.mark.parametrize(
    ("given", "size"), [(224, (224, 224)), ("224", (224, 224)), ("160x120", (160, 120)), ((160, 120), (160, 120))]
)
def test_an_input_size_is_one_number_or_height_and_width(given, size):
    assert parse_input_size(given) == size


@pytest.mark.parametrize("given", ["", "x", "160x", "0", "-1x5", "1x2x3", 0, (3,) * 3, "9000", 1.5j])
def test_other_input_sizes_are_refused(given):
    with pytest.raises(InputError, match="one number, or HEIGHTxWIDTH"):
        parse_input_size(given)


def test_an_input_size_must_be_the_models_own_where_that_is_fixed():
    with pytest.raises(InputError, match=r"the model's own, 16x28\. Received: 16x29"):
        to_tflite(_network((16, 28, 3)), "float32", input_size="16x29")
    with pytest.raises(InputError, match="Did you mean 'kind'"):
        to_tflite(_network((16, 28, 3), outputs=2), "float32", output="kinds")
    refused(_network((None, None, 1)), "--input-size 224")


def test_grey_files_declare_one_channel_in_both_kinds_of_metadata(pixels):
    images = pixels[..., :1]
    grey = Preprocessing(32, channels=1)
    conversion = to_tflite(_network((32, 32, 1)), "int8", calibration=images, preprocessing=grey)
    assert conversion.record.input.description.startswith("grey")
    assert len(conversion.record.input.mean) == len(conversion.record.input.std) == 1
    assert conversion.record.preprocessing.shape == (32, 32, 1)
    assert conversion.pixel_offset == -128
    with pytest.raises(InputError, match=r"channels must be the model's, 1 .*Received: 3"):
        to_tflite(_network((32, 32, 1)), "float32", preprocessing=Preprocessing(32))
