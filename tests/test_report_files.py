"""report.json: its keys, and the files that are refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from report_examples import FLOAT32, INT8, example, tflite

from converters.errors import InputError
from edge_cv.evaluation.latency import Latency
from edge_cv.recipe import Output
from edge_cv.report import Report, Row, load, merge, save
from edge_cv.report.files import from_dict, to_dict


def test_report_json_has_the_keys_of_the_contract_and_loads_equal(tmp_path):
    report = example(photos=3)
    save(report, tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text())
    assert fields["schema"] == 1
    assert {"recipe", "environment", "violations", "rows"} <= set(fields)
    contract = ["scheme", "file", "size_bytes", "gzip_bytes", "parameters", "macs", "images", "top1", "top5",
                "top1_ci95", "agreement", "sqnr_db", "latency", "peak_memory_bytes"]  # fmt: skip
    assert list(fields["rows"][0])[: len(contract)] == contract
    assert {"host", "runtime", "threads", "p50_ms", "p90_ms", "p99_ms", "runs"} <= set(fields["rows"][0]["latency"][0])
    assert load(tmp_path) == report
    assert load(tmp_path / "report.json") == report


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_report_is_written_with_its_page_or_not_at_all(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        save(example(photos=0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_thumbnails_come_back_from_json():
    report = example(photos=1, jpeg=b"\xff\xd8\xff\x00jpeg\xff\xd9")
    fields = json.loads(json.dumps(to_dict(report)))
    assert from_dict(fields).photos[0].thumbnail_jpeg == b"\xff\xd8\xff\x00jpeg\xff\xd9"


def test_infinities_and_paths_become_null_and_text(tmp_path):
    row = Row(FLOAT32, "a.tflite", size_bytes=np.int64(7), sqnr_db=math.inf, top1=np.float32(0.5), images=2)
    save(Report({"path": Path("x"), "bad": float("nan")}, {"n": np.float64(1.5)}, rows=(row,)), tmp_path)
    fields = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert fields["recipe"] == {"path": "x", "bad": None}
    assert fields["rows"][0]["sqnr_db"] is None
    assert (fields["rows"][0]["size_bytes"], fields["rows"][0]["top1"]) == (7, 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b"[1, 2]", "object with a list of rows"),
        (b'{"name": "package.json"}', "object with a list of rows"),
        (b'{"schema": 2, "rows": []}', "schema must be 1"),
        (b'{"rows": [3]}', "a row must be an object"),
        (b'{"rows": [{"file": "a"}]}', "a row must have scheme"),
        (b'{"rows": [{"scheme": 4, "file": "a"}]}', "scheme must be text"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1": "high"}]}', "top1 must be a number"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1": 1.5}]}', "from 0 to 1"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "size_bytes": -1}]}', "size_bytes"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "size_bytes": 1e300}]}', "size_bytes"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "size_bytes": 1' + b"0" * 400 + b"}]}", "401 digits"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "top1_ci95": [1]}]}', "two numbers"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "latency": [{"host": "h"}]}]}', "p50_ms"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "latency": 3}]}', "latency must be a list"),
        (b'{"rows": [{"scheme": "int8", "file": "a", "layers": [{}]}]}', "a layer must be"),
        (b'{"rows": [], "photos": [{"name": "a", "thumbnail_jpeg": "%%"}]}', "base64"),
        (b'{"rows": [], "photos": [{"name": "a", "top5": {"int8": [["cat"]]}}]}', "a name and a probability"),
        (b'{"rows": [], "recipe": 3}', "recipe must be an object"),
        (b'{"rows": [], "notes": "one"}', "notes must be a list"),
    ],
)
def test_load_refuses_other_files_with_a_message_of_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_load_refuses_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file", "output"),
    [
        ("int8", "a.tflite", INT8),
        ("onnx_float32", "a.onnx", Output("", "onnx", "float32")),
        ("channel_pruned_int8", "a.tflite", tflite("int8", "channel_pruned")),
        ("pruned_onnx_float32", "a.ONNX", Output("pruned", "onnx", "float32")),
    ],
)
def test_rows_of_older_reports_have_their_identity_in_their_name(name, file, output):
    (row,) = from_dict({"rows": [{"scheme": name, "file": file}]}).rows
    assert (row.output, row.label, row.scheme) == (output, "", name)


@pytest.mark.parametrize(
    "row",
    [
        Row(Output("pruned", "onnx", "float32"), "a.onnx"),
        Row(INT8, "a.tflite", label="my_model"),
        Row(Output("", "onnx", "my_model"), "my_model.onnx", label="my_model"),
    ],
)
def test_report_json_holds_the_identity_of_a_row(row):
    fields = to_dict(Report({}, {}, rows=(row,)))
    assert fields["rows"][0]["scheme"] == row.scheme
    assert (fields["rows"][0]["stage"], fields["rows"][0]["format"]) == (row.output.stage, row.output.format)
    assert from_dict(fields).rows == (row,)


def test_a_row_of_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="format must be tflite or onnx"):
        from_dict({"rows": [{"scheme": "int8", "file": "a", "stage": "", "format": "pb"}]})


def test_load_ignores_unknown_keys(tmp_path):
    row = {"scheme": "int8", "file": "a.tflite", "thermal": 3, "latency": [{"host": "phone", "p50_ms": 2, "clock": 1}]}
    (tmp_path / "report.json").write_text(json.dumps({"rows": [row], "app": "1.0"}))
    loaded = load(tmp_path).rows[0]
    assert loaded.latency == (Latency("phone", "unknown runtime", 1, 2.0),)


def test_a_merged_report_comes_back_from_json():
    merged = merge([example(), example()])
    assert from_dict(json.loads(json.dumps(to_dict(merged)))) == merged


def test_previous_methods_of_a_report_name_the_function_to_use(tmp_path):
    report = Report(
        recipe={"name": "mine"}, environment={}, rows=(Row(Output("", "tflite", "int8"), "mine_int8.tflite"),)
    )
    with pytest.warns(DeprecationWarning, match=r"use edge_cv\.report\.save"):
        report.save(tmp_path)
    with pytest.warns(DeprecationWarning, match=r"use edge_cv\.report\.load"):
        assert Report.load(tmp_path) == report


@pytest.mark.parametrize("name", ["rows", "photos"])
def test_too_many_entries_are_refused_before_any_is_read(name):
    fields = {"schema": 1, "rows": [], name: ["no entry"] * 20_000}
    with pytest.raises(InputError, match=f"a report's {name} must have at most 1.* Received: 20,000"):
        from_dict(fields)
