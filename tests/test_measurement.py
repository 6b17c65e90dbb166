"""Measurement files from untrusted devices, and the events of a runner."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.evaluation import runner
from edge_cv.evaluation.latency import Latency
from edge_cv.evaluation.measurement import Measurement, compare, outputs_of
from edge_cv.evaluation.remote.results import describe_throttled
from edge_cv.evaluation.runner_events import RunnerEvents
from edge_cv.recipe import Output
from edge_cv.report import Report, Row, save
from edge_cv.report.comparison import with_measurements
from edge_cv.report.files import load_all

HOST = "Raspberry Pi 5 Model B Rev 1.0 (4 cores)"
FIELDS = {
    "schema": 1,
    "kind": "measurement",
    "artifact": {"file": "lite0_int8.tflite", "sha256": "ab" * 32},
    "device": {"host": HOST, "system": "Debian GNU/Linux 12 (bookworm)", "throttled": "clock capped"},
    "latency": [
        {
            "host": HOST,
            "runtime": "ai-edge-litert 2.3.0 XNNPACK",
            "threads": 4,
            "p50_ms": 2.0,
            "p90_ms": 2.8,
            "p99_ms": 2.98,
            "runs": 3,
            "samples_ms": [1.0, 2.0, 3.0],
        }
    ],
    "peak_memory_bytes": 26_000_000,
    "temperature_c": [48.2, 61.0],
    "clock_mhz": [1500, 2400],
    "golden": {"sha256": "cd" * 32, "images": 2, "outputs": [[1, -128, 127], [0, 5, 3]]},
    "likeness": {"runtime": "here", "images": 2, "top1_equal": 1, "max_steps": 3, "max_abs_error": None},
    "accuracy": {"runtime": "tensorflow-lite 2.16.1 XNNPACK", "images": 50, "top1": 43, "top5": 49, "unread": 2},
}


def changed(path, value):
    fields = copy.deepcopy(FIELDS)
    place = fields
    *parents, last = path
    for name in parents:
        place = place[name]
    place[last] = value
    return fields


def test_a_saved_measurement_loads_unchanged(tmp_path):
    measurement = Measurement.from_dict(FIELDS)
    assert measurement.latency[0].p50_ms == 2.0
    assert measurement.golden.outputs.tolist() == [[1, -128, 127], [0, 5, 3]]
    assert measurement.temperature_c == (48.2, 61.0)
    path = measurement.save(tmp_path)
    assert path.name == "measurement_lite0_int8.json"
    assert Measurement.load(path) == measurement


def test_percentiles_are_computed_from_the_samples_not_read_from_the_file():
    latency = Measurement.from_dict(changed(("latency", 0, "p50_ms"), 0.001)).latency[0]
    assert (latency.p50_ms, latency.p90_ms) == (2.0, pytest.approx(2.8))


def test_figures_that_the_system_does_not_report_may_be_missing():
    fields = copy.deepcopy(FIELDS)
    for name in ("peak_memory_bytes", "temperature_c", "clock_mhz", "golden"):
        fields[name] = None
    del fields["likeness"], fields["accuracy"], fields["latency"][0]["samples_ms"]
    measurement = Measurement.from_dict(fields)
    assert (measurement.golden, measurement.accuracy) == (None, None)
    assert measurement.latency[0].p90_ms == 2.8


HOSTILE = [
    (("kind",), "report"),
    (("schema",), 2),
    (("artifact",), "lite0"),
    (("artifact", "sha256"), "AB" * 32),
    (("artifact", "sha256"), "../../etc/passwd"),
    (("artifact", "file"), 7),
    (("artifact", "file"), "x" * 301),
    (("device",), []),
    (("device", "host"), ""),
    (("device", "system"), "y" * 1000),
    (("latency",), {}),
    (("latency",), [{}] * 101),
    (("latency", 0), 1),
    (("latency", 0, "p50_ms"), "2"),
    (("latency", 0, "p50_ms"), -1),
    (("latency", 0, "p50_ms"), True),
    (("latency", 0, "p90_ms"), None),
    (("latency", 0, "threads"), 1.5),
    (("latency", 0, "threads"), 10**30),
    (("latency", 0, "runs"), 4),
    (("latency", 0, "runs"), 0),
    (("latency", 0, "samples_ms"), [1, 2, "3"]),
    (("latency", 0, "samples_ms"), [1, 2, 1e400]),
    (("latency", 0, "host"), None),
    (("latency", 0, "cpu_share"), 2),
    (("peak_memory_bytes",), -1),
    (("temperature_c",), [1]),
    (("temperature_c",), [1, 1000]),
    (("clock_mhz",), [None, None]),
    (("golden", "images"), 3),
    (("golden", "outputs"), []),
    (("golden", "outputs"), [[1, 2], [3]]),
    (("golden", "outputs"), [[1, 2, 3], [4, 5, "6"]]),
    (("golden", "outputs"), [[], []]),
    (("likeness", "top1_equal"), 3),
    (("likeness", "max_steps"), None),
    (("accuracy",), []),
    (("accuracy", "images"), 0),
    (("accuracy", "top1"), 50),
    (("accuracy", "top5"), 51),
    (("accuracy", "unread"), -1),
    (("accuracy", "runtime"), None),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE)
def test_each_field_is_checked(path, value):
    with pytest.raises(InputError, match="must") as caught:
        Measurement.from_dict(changed(path, value))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"nothing", b"{" * 100_000, b"\xff\xfe", b'{"schema": 1, "kind": "measurement", "latency": NaN}'],
)
def test_a_file_that_is_no_measurement_is_refused(tmp_path, content):
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.json: a measurement must"):
        Measurement.load(tmp_path / "m.json")


def test_control_characters_are_replaced():
    measurement = Measurement.from_dict(changed(("device", "system"), "\x1b[2Jevil\nline \x07"))
    assert measurement.device["system"] == "\N{REPLACEMENT CHARACTER}[2Jevil line \N{REPLACEMENT CHARACTER}"


def test_a_device_that_reports_only_an_error_is_an_error(tmp_path):
    path = tmp_path / "measurement.json"
    path.write_text(json.dumps({"schema": 1, "kind": "measurement", "error": "the GPU refuses\nthe model"}))
    with pytest.raises(InputError, match=r"measurement\.json: the device could not measure: the GPU refuses the model"):
        Measurement.load(path)


def test_output_match_has_equal_top1_and_the_largest_difference():
    ours, theirs = np.array([[1, 9, 3], [7, 2, 0]]), np.array([[1, 8, 3], [2, 7, 0]])
    likeness = compare(ours, theirs, "here")
    assert (likeness.images, likeness.top1_equal, likeness.max_steps, likeness.max_abs_error) == (2, 1, 5, None)
    likeness = compare(ours / 2, theirs / 2, "here")
    assert (likeness.top1_equal, likeness.max_steps, likeness.max_abs_error) == (1, None, 2.5)
    with pytest.raises(InputError, match=r"must give outputs of \(2, 3\)"):
        compare(ours, theirs[:1], "here")
    assert outputs_of([[1.5, 2]], "outputs").dtype == np.float64


MODEL = {"event": "model", "cpu": "c", "runtime": "r", "machine": "m", "system": "s", "python": "3", "cores": 4}


def take(*events, threads=(1,), runs=2):
    result = RunnerEvents(threads, runs)
    for event in events:
        result.add(event)
    return result


def test_events_out_of_order_or_range_are_refused():
    model = MODEL
    progress = {"event": "progress", "samples_ms": [1.0, 2.0]}
    done = {"event": "latency", "cpu_ms": 3.0}
    assert take(model, progress, done).latency[0].host == "c (4 cores)"
    for events in (
        [progress],
        [model, done],
        [model, progress, progress],
        [model, progress, done, progress],
        [model, {"event": "progress", "samples_ms": [-1.0]}],
        [model, {"event": "progress"}],
        [{**model, "cores": "four"}],
        [{**model, "cpu": ["c"]}],
        [model, {"event": "memory", "peak_memory_bytes": "much"}],
        [model, {"event": "sensors", "temperature_c": 4000}],
    ):
        with pytest.raises(InputError, match="must"):
            take(*events)


def test_an_interrupted_measurement_keeps_its_inferences():
    whole, part = ({"event": "progress", "samples_ms": samples} for samples in ([1.0, 2.0, 3.0], [5.0]))
    result = take(MODEL, whole, {"event": "latency", "cpu_ms": 6.0}, part, threads=(1, 2), runs=3)
    assert [(entry.threads, entry.samples_ms) for entry in result.latency] == [(1, (1.0, 2.0, 3.0)), (2, (5.0,))]


def test_sensors_are_read_if_the_system_has_them(tmp_path, monkeypatch):
    for zone, kind, value in (("0", "gpu-thermal", "90000"), ("1", "cpu-thermal", "48251"), ("2", "cpu-big", "51000")):
        folder = tmp_path / f"thermal_zone{zone}"
        folder.mkdir()
        (folder / "type").write_text(kind + "\n")
        (folder / "temp").write_text(value + "\n")
    tool = tmp_path / "vcgencmd"
    tool.write_text('#!/bin/sh\necho "throttled=0x50005"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runner, "glob", lambda pattern: [str(tmp_path / f"thermal_zone{i}") for i in range(3)])
    read = runner.sensors()
    assert (read["temperature_c"], read["throttled"]) == (51.0, 0x50005)
    expected = "under-voltage, throttled, under-voltage has occurred, throttling has occurred"
    assert describe_throttled(read["throttled"]) == expected
    assert describe_throttled(0) == "no"
    monkeypatch.setattr(runner, "glob", lambda pattern: [])
    monkeypatch.setenv("PATH", "/nowhere")
    assert runner.sensors()["temperature_c"] is None
    assert runner.sensors()["throttled"] is None


def report():
    latency = (Latency("server", "r", 1, 1.0),)
    row = Row(Output("", "tflite", "int8"), "lite0_int8.tflite", sha256="ab" * 32, latency=latency)
    rows = (Row(Output("", "tflite", "float32"), "f.tflite"), row)
    return Report({"name": "run"}, {}, violations=("int8: too slow",), rows=rows)


def test_a_measurement_is_merged_into_the_rows_of_its_file():
    merged = with_measurements(report(), [Measurement.from_dict(FIELDS)])
    found = [(e.host, e.threads, e.p50_ms) for e in merged.rows[1].latency]
    assert found == [("server", 1, 1.0), (HOST, 4, 2.0)]
    assert merged.rows[0].latency == ()
    assert merged.violations == ("int8: too slow",)
    assert merged.environment["devices"][HOST]["system"].startswith("Debian")
    (note,) = merged.notes
    assert "86.0 % of 50 labelled photos on the device are correct (95 % interval 73.8 to 93.0 %), 98.0 % among" in note
    assert "2 not readable" in note
    for words in ("the same top-1 on 1 of 2", "3 steps", "48 °C before and 61 °C after", "clock capped", "26.0 MB"):
        assert words in note


def test_a_later_measurement_replaces_an_earlier_one_of_the_same_runtime():
    again = Measurement.from_dict(FIELDS)
    other = Measurement.from_dict(changed(("latency", 0, "runtime"), "tensorflow-lite 2.16.1 GPU"))
    merged = with_measurements(report(), [again, again, other])
    assert [e.host for e in merged.rows[1].latency] == ["server", HOST, f"{HOST}, tensorflow-lite 2.16.1 GPU"]


def test_a_measurement_of_another_file_is_refused():
    with pytest.raises(InputError, match="a measurement must be of a file that the report contains"):
        with_measurements(report(), [Measurement.from_dict(changed(("artifact", "sha256"), "00" * 32))])


def test_measurements_and_runs_are_distinguished(tmp_path):
    save(report(), tmp_path / "run")
    measurement = Measurement.from_dict(FIELDS).save(tmp_path / "pi.json")
    reports, measurements = load_all([measurement, tmp_path / "run", tmp_path / "run" / "report.json"])
    assert (len(reports), len(measurements)) == (2, 1)
    assert reports[0].rows[1].sha256 == "ab" * 32
    (tmp_path / "junk.json").write_text("junk")
    with pytest.raises(InputError, match=r"junk\.json"):
        load_all([tmp_path / "junk.json"])
