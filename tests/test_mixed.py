"""Mixed precision: wide layers compute as the float model's, a layer that was spoilt is found, budgets hold."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError, Int8, Mixed, to_tflite
from converters.float_model import convert_float
from converters.parity import sqnr_db
from converters.quantization.mixed import alone, search, widened
from converters.quantization.normalization import strip_normalization
from converters.sources import open_source
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict


@pytest.fixture(scope="module")
def files(small_model, pixels):
    normalized = strip_normalization(convert_float(open_source(small_model)), None)
    inputs = normalized.normalize(pixels)
    int8, float_content = Int8(correction="none").files(normalized, inputs)
    return float_content, int8, inputs


def _layers(content: bytes) -> list[str]:
    graph = Graph(content)
    return [graph.name(op.outputs[0]) for op in graph.operators()]


def test_all_layers_wide_predict_as_the_float_model(files):
    float_content, int8, inputs = files
    wide = widened(float_content, int8, _layers(float_content))
    assert sqnr_db(predict(float_content, inputs), predict(wide, inputs)) > sqnr_db(
        predict(float_content, inputs), predict(int8, inputs)
    )
    assert "CONV_2D" in {op.name for op in Graph(wide).operators()}
    floats = [op for op in Graph(wide).operators() if op.name == "CONV_2D"]
    assert all(Graph(wide).dtype(op.inputs[0]) == np.float32 for op in floats)


@pytest.mark.parametrize("kind", ["float32", "int16"])
def test_each_single_layer_can_be_wide(files, kind):
    float_content, int8, inputs = files
    before = sqnr_db(predict(float_content, inputs), predict(int8, inputs))
    for name in _layers(float_content):
        content = widened(float_content, int8, [name], kind=kind)
        assert sqnr_db(predict(float_content, inputs), predict(content, inputs)) > before - 1.5, name


def test_int16_leaves_the_error_of_weights_alone(files):
    float_content, int8, inputs = files
    wanted = predict(float_content, inputs)
    content = widened(float_content, int8, _layers(float_content), kind="int16")
    graph = Graph(content)
    assert {"int16"} == {str(graph.dtype(op.inputs[0])) for op in graph.operators() if op.name == "CONV_2D"}
    assert sqnr_db(wanted, predict(content, inputs)) > sqnr_db(wanted, predict(int8, inputs)) + 1


def test_the_layer_that_was_spoilt_is_ranked_first_and_widened(files):
    float_content, int8, inputs = files
    graph = Graph(int8)
    spoilt = [op for op in graph.operators() if op.name == "CONV_2D"][1]
    weights = graph.constant(spoilt.inputs[1])
    graph.set_constant(spoilt.inputs[1], (weights // 16 * 16).astype(np.int8))  # 4 bits are left
    name, content = graph.name(spoilt.outputs[0]), graph.to_bytes()
    errors = alone(float_content, content, inputs)
    assert min(errors, key=errors.get) == name
    good = sqnr_db(predict(float_content, inputs), predict(int8, inputs))
    found = search(float_content, content, inputs, lambda point: point.sqnr_db > good - 1)
    assert found.met
    assert found.wide == (name,)
    assert [point.wide_layers for point in found.curve] == [0, 1]


def test_an_unreachable_budget_returns_the_best_and_says_so(small_model, pixels):
    made = to_tflite(small_model, Mixed(sqnr_db=149.0), calibration=pixels)
    record = made.metadata["mixed"]
    assert record["budget_met"] is False
    assert len(record["curve"]) > 2
    assert max(p["sqnr_db"] for p in record["curve"]) == next(
        p["sqnr_db"] for p in record["curve"] if p["wide_layers"] == len(record["wide_layers"])
    )


def test_an_easy_budget_keeps_every_layer_int8(small_model, pixels):
    made = to_tflite(small_model, Mixed(sqnr_db=10.0), calibration=pixels)
    assert made.metadata["mixed"]["budget_met"]
    assert made.metadata["mixed"]["wide_layers"] == []
    assert made.metadata["operators"]["integer"] == made.metadata["operators"]["total"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sqnr_db": None}, "must have a budget"),
        ({"agreement": 99.0}, r"share in 0..1. Received: 99"),
        ({"wide": "int32"}, "float32, int16"),
        ({"sqnr_db": float("nan")}, "number of decibels"),
    ],
)
def test_bad_budgets_are_rejected(fields, message):
    with pytest.raises(InputError, match=message):
        Mixed(**fields)


def test_too_few_images_to_measure_on_are_rejected(small_model, pixels):
    with pytest.raises(InputError, match=r"at least 8 images .* Received: 7"):
        to_tflite(small_model, "mixed", calibration=pixels[:7])


@pytest.mark.parametrize("kind", ["float32", "int16"])
@pytest.mark.parametrize("activation", ["swish", "hard_swish"])
def test_a_wide_layer_keeps_its_activation_wide(activation: str, kind: str, pixels: np.ndarray):
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, activation=activation, name="first")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.Conv2D(8, 3, activation=activation, name="second")(x)
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    normalized = strip_normalization(convert_float(open_source(model)), None)
    inputs = normalized.normalize(pixels)
    int8, float_content = Int8(correction="none").files(normalized, inputs)
    layer = next(op for op in Graph(float_content).operators() if op.name == "CONV_2D")
    graph = Graph(widened(float_content, int8, [Graph(float_content).name(layer.outputs[0])], kind=kind))
    (product, *others) = [op for op in graph.operators() if op.name in ("MUL", "HARD_SWISH")]
    assert all(graph.dtype(tensor) == np.float32 for tensor in (*product.inputs, *product.outputs))
    assert all(graph.dtype(op.outputs[0]) == np.int8 for op in others)
    errors = alone(float_content, int8, inputs)
    assert not {graph.name(product.outputs[0])} & set(errors)
    wanted = predict(float_content, inputs)
    wide = predict(graph.to_bytes(), inputs)
    assert sqnr_db(wanted, wide) > sqnr_db(wanted, predict(int8, inputs)) - 1
