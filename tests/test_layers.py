"""Layer by layer: figures against closed forms, and faults that were put in by hand and must be found."""

from __future__ import annotations

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.parity import LayerError
from converters.tflite.graph import Graph
from converters.tflite.layers import first_departing, layer_errors, worst


@pytest.fixture(scope="module")
def pair(small_model, small_conversion):
    return to_tflite(small_model, "float32"), small_conversion


def test_worst_is_lowest_first():
    errors = tuple(LayerError(str(i), db) for i, db in enumerate((30.0, 10.0, 20.0)))
    assert [e.layer for e in worst(errors, 2)] == ["1", "2"]
    assert first_departing(errors, 25).layer == "1"
    assert first_departing(errors, 5) is None


def test_layer_errors_are_those_of_the_activations_and_weights(pair, pixels):
    wide, narrow = pair
    errors = layer_errors(wide.content, narrow.content, pixels, pixel_offset=narrow.pixel_offset)
    assert errors[-1].layer == "logits"
    assert len(errors) >= 5
    assert all(10 < e.sqnr_db < 60 for e in errors)
    weighted = [e for e in errors if e.operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert weighted
    assert all(25 < e.weights_sqnr_db < 60 for e in weighted)  # int8 weights, rounded to answer well
    assert all(e.weights_sqnr_db is None for e in errors if e not in weighted)
    assert all(0 <= e.saturated < 0.01 and 0 <= e.unused < 0.5 for e in errors)


def test_a_model_does_not_differ_from_itself(pair, pixels):
    wide, _ = pair
    errors = layer_errors(wide.content, wide.content, pixels)
    assert all(e.sqnr_db == 150 and e.saturated is None and e.unused is None for e in errors)


def test_equalized_channels_are_compared_as_the_float_model_has_them(small_model, pixels):
    """With and without equalization a layer's error is about the same; unmapped it would be wrong by tens of dB."""
    wide = to_tflite(small_model, "float32").content
    found = []
    for equalization in (True, False):
        narrow = to_tflite(small_model, Int8(equalization=equalization), calibration=pixels)
        found.append(layer_errors(wide, narrow.content, pixels, pixel_offset=narrow.pixel_offset))
    for with_it, without in zip(*found, strict=True):
        assert with_it.layer == without.layer
        assert with_it.sqnr_db > without.sqnr_db - 4


def test_a_range_that_is_too_narrow_and_one_that_is_too_wide_are_seen(pair, pixels):
    wide, narrow = pair
    before = {e.layer: e for e in layer_errors(wide.content, narrow.content, pixels, pixel_offset=narrow.pixel_offset)}
    graph = Graph(narrow.content)
    operator = next(op for op in graph.operators() if op.name == "ADD")
    name = graph.name(operator.outputs[0])
    for factor in (0.25, 8.0):
        graph = Graph(narrow.content)
        quantization = graph.tensors[operator.outputs[0]].quantization
        quantization.scale = quantization.scale * np.float32(factor)
        errors = {
            e.layer: e for e in layer_errors(wide.content, graph.to_bytes(), pixels, pixel_offset=narrow.pixel_offset)
        }
        assert errors[name].sqnr_db < before[name].sqnr_db - 5
        if factor < 1:
            assert errors[name].saturated > 0.05
        else:
            assert errors[name].unused > 0.7


def test_the_first_layer_that_departs_is_the_one_that_was_spoilt(pair, pixels):
    wide, narrow = pair
    graph = Graph(narrow.content)
    convolutions = [op for op in graph.operators() if op.name == "CONV_2D"]
    spoilt = convolutions[1]
    graph.set_constant(spoilt.inputs[1], -graph.constant(spoilt.inputs[1]))
    errors = layer_errors(wide.content, graph.to_bytes(), pixels, pixel_offset=narrow.pixel_offset)
    found = first_departing(errors)
    assert found.layer == graph.name(spoilt.outputs[0])
    assert found.weights_sqnr_db == pytest.approx(-6, abs=0.5)  # an error of twice the weights
