"""The record of a converted file: written, read back equal, and refused where a field has a value of another kind."""

from __future__ import annotations

import json

import pytest

from converters import InputError, Preprocessing, Record, read_record, to_onnx, to_tflite


@pytest.fixture(scope="module")
def conversion(small_model, pixels):
    labels = [f"class {i}" for i in range(10)]
    return to_tflite(small_model, "int8", calibration=pixels, labels=labels, preprocessing=Preprocessing(32))


def test_a_record_survives_json(conversion):
    text = json.dumps(conversion.record.to_json(), allow_nan=False)
    assert Record.from_json(json.loads(text), "a record") == conversion.record
    assert conversion.metadata == conversion.record.to_json()


def test_the_record_of_a_saved_file_is_the_conversions(conversion, small_model, pixels, tmp_path):
    path = conversion.save(tmp_path / "m.tflite")
    assert read_record(path) == conversion.record  # from inside the file
    onnx = to_onnx(small_model, calibration=pixels)
    path = onnx.save(tmp_path / "o.onnx")
    record = read_record(path)  # from the sidecar, which also describes the file
    assert record is not None
    assert (record.file, record.size_bytes, record.parity) == ("o.onnx", onnx.size_bytes, onnx.parity)


def test_fields_may_be_absent():
    record = Record.from_json({"preprocessing": {"image_size": 32}, "unknown": 3, "labels": None}, "a record")
    assert record.preprocessing == Preprocessing(32)
    assert (record.labels, record.input.pixel_offset, record.output.values) == (None, None, "logits")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ([], "must be an object"),
        ({"name": 3}, "name"),
        ({"labels": "cat"}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"preprocessing": {"image_size": -1}}, "image_size"),
        ({"preprocessing": {"size": 1}}, "preprocessing"),
        ({"input": {"pixel_offset": "-128"}}, "input.pixel_offset"),
        ({"input": {"pixel_offset": True}}, "input.pixel_offset"),
        ({"input": {"scale": float("nan")}}, "input.scale"),
        ({"input": {"mean": [None]}}, "input.mean"),
        ({"output": 3}, "output"),
        ({"operators": {"integer": 3}}, "operators must have total"),
        ({"parity": {"worst_layers": [3]}}, "worst_layers"),
        ({"input": {"shape": [1, -1]}}, "shape"),
        ({"input": {"shape": [1] * 9}}, "shape"),
        ({"input": {"mean": [1, 2]}}, "mean"),
        ({"input": {"pixel_offset": 10**6}}, "pixel_offset"),
        ({"output": {"zero_point": 10**10}}, "zero_point"),
        ({"output": {"values": "scores"}}, "'scores'"),
        ({"output": {"activation": "tanh"}}, "'tanh'"),
        ({"preprocessing": {"image_size": 10**8}}, "at most 8,192"),
        ({"preprocessing": {"image_size": 8, "resize_to": 10**8}}, "at most 8,192"),
        ({"preprocessing": {"image_size": 8, "mean": 1e308}}, "mean"),
        ({"preprocessing": [1]}, "preprocessing"),
        ({"macs": -1}, "0 or more"),
        ({"versions": {"python": 3}}, "versions.python"),
    ],
)
def test_a_field_of_another_kind_is_named(fields, field):
    with pytest.raises(InputError, match=field) as error:
        Record.from_json(fields, "m.tflite")
    assert str(error.value).startswith("m.tflite: ")
