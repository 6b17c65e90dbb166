"""The command line: version and help, and the commands that convert, measure and check: stdout and exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

COMMANDS = (
    "run",
    "train",
    "search",
    "sweep",
    "report",
    "convert",
    "compress",
    "debug",
    "check",
    "compile",
    "web",
    "devices",
    "models",
    "evaluate",
    "benchmark",
    "conform",
    "data show",
    "data prepare",
    "data check",
)


def convert_command(keras_file: Path, photos: Path, folder: Path) -> list[str]:
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\n")
    command = ["convert", keras_file, "--scheme", "float32", "--scheme", "int8", "--calibration", photos]
    return list(map(str, [*command, "--labels", labels, "--out", folder, "--json"]))


@pytest.fixture(scope="module")
def converted(keras_file, photos, tmp_path_factory):
    """The folder of its float32 and int8 files, and what the command that converted them printed: stdout, stderr."""
    from edge_cv.cli import app

    folder, out, err = tmp_path_factory.mktemp("converted"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["edge-cv", *convert_command(keras_file, photos, folder)])
        with pytest.raises(SystemExit) as stopped:
            app.main()
    assert stopped.value.code == 0, err.getvalue()
    return folder, out.getvalue(), err.getvalue()


def test_calibration_on_none_takes_sample_photos_and_says_so(edge_cv, keras_file, tmp_path):
    command = ["convert", keras_file, "--scheme", "int8", "--calibration", "none", "--out", tmp_path, "--json"]
    code, out, err = edge_cv(*map(str, command))
    assert code == 0, err
    (row,) = json.loads(out)
    assert row["scheme"] == "int8"
    assert row["images"] == 68
    assert "calibrated on sample photos" in err
    code, _, err = edge_cv(*map(str, [*command[:5], "nothing"]))
    assert code == 2
    assert "calibration must be a folder that exists, or none. Received: nothing" in err


def test_the_version_is_printed(edge_cv):
    code, out, _ = edge_cv("--version")
    assert code == 0
    assert re.fullmatch(r"edge-cv \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(edge_cv, command):
    code, out, _ = edge_cv(*command.split(), "--help")
    assert code == 0
    assert f"Example: edge-cv {command}" in " ".join(out.split())


def test_models_lists_every_architecture(edge_cv):
    from edge_cv import models

    code, out, _ = edge_cv("models", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == list(models.names())
    assert next(row for row in rows if row["name"] == "efficientnet_lite0")["parameters"] == 4_652_008


def test_convert_writes_checked_files_with_a_sidecar_each(converted):
    rows = json.loads(converted[1])
    assert [row["scheme"] for row in rows] == ["float32", "int8"]
    for row in rows:
        path = Path(row["file"])
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["size_bytes"] == path.stat().st_size == row["size_bytes"]
        assert sidecar["labels"] == ["one", "two"]
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt") == b"one\ntwo\n"
    assert rows[1]["sqnr_db"] > 15


def assert_only_progress(err: str) -> None:
    steps = ("loading ", "decoding calibration photos", "converting to ", "the model does not declare how photos")
    assert all(line.startswith(steps) for line in err.splitlines()), err


def test_stderr_has_only_progress(converted):
    assert_only_progress(converted[2])


@pytest.mark.slow  # imports TensorFlow again
def test_stderr_of_a_process_has_only_progress(keras_file, photos, tmp_path):
    command = [sys.executable, "-m", "edge_cv.cli", *convert_command(keras_file, photos, tmp_path), "--onnx"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_only_progress(done.stderr)
    assert [row["scheme"] for row in json.loads(done.stdout)] == ["float32", "int8", "float32"]


def test_evaluate_and_benchmark_measure_what_convert_made(edge_cv, converted, photos):
    folder = converted[0]
    code, out, _ = edge_cv(
        "evaluate", folder / "mine_float32.tflite", folder / "mine_int8.tflite", "--data", photos, "--json"
    )
    rows = json.loads(out)
    assert code == 0
    assert [row["images"] for row in rows] == [12, 12]
    assert rows[0]["agreement"] == 1.0
    assert rows[1]["sqnr_db"] > 15
    code, out, _ = edge_cv("benchmark", folder / "mine_int8.tflite", "--threads", "1,2", "--runs", "5", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["threads"] for row in rows] == [1, 2]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)


@pytest.mark.slow
def test_evaluate_reports_groups_and_corruptions_and_writes_a_report(edge_cv, converted, photos, tmp_path):
    from edge_cv.report import load

    table = tmp_path / "light.csv"
    names = sorted(f"{file.parent.name}/{file.name}" for file in photos.rglob("*.png"))
    table.write_text("file,light\n" + "".join(f"{name},{('day', 'night')[n % 2]}\n" for n, name in enumerate(names)))
    files = [converted[0] / f"mine_{scheme}.tflite" for scheme in ("float32", "int8")]
    command = ["evaluate", *files, "--data", photos, "--by", "light", "--metadata", table, "--workers", 1]
    code, out, err = edge_cv(*command, "--corruptions", "1", "--out", tmp_path / "report")
    assert code == 0
    assert "no significant gap" in out or "significant gap for" in out
    assert "severity 5" in out
    assert f"report: {tmp_path / 'report' / 'report.html'}" in err
    report = load(tmp_path / "report")
    assert [row.name for row in report.rows] == ["float32", "int8"]
    rows = json.loads(edge_cv(*command, "--json")[1])
    for row, reported in zip(rows, report.rows, strict=True):
        assert row["ece"] == reported.confidence.ece
        assert row["balanced_accuracy"] == reported.classes.balanced_accuracy
        assert [group["images"] for group in row["groups"][0]["groups"]] == [6, 6]
        assert reported.robustness.images == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "sex", "--metadata", "m.csv"), "unknown column of .*'sex'"),
        (("--metadata", "m.csv"), "--by must name the columns"),
        (("--by", "sex"), "labels.csv must be a readable CSV file"),
        (("--corruptions", "-1"), "--corruptions must be"),
    ],
)
def test_evaluate_refuses_bad_options_before_it_reads_a_photo(
    edge_cv, converted, photos, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.csv").write_bytes(b"file,age\none/0.png,3\n")
    code, out, err = edge_cv("evaluate", converted[0] / "mine_int8.tflite", "--data", photos, *options)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert "evaluating" not in err
    assert len(err.splitlines()) == 1


def test_a_table_in_a_pipe_keeps_every_figure(edge_cv, converted):
    code, out, _ = edge_cv("benchmark", converted[0] / "mine_int8.tflite", "--runs", "5")
    assert code == 0
    assert "p50_ms" in out
    assert "…" not in out


@pytest.fixture(scope="module")
def files(converted):
    """The float32 and the int8 file."""
    return tuple(converted[0] / f"mine_{scheme}.tflite" for scheme in ("float32", "int8"))


def test_debug_prints_the_worst_layers_and_draws_all(edge_cv, files, photos, tmp_path):
    picture = tmp_path / "layers.svg"
    code, out, err = edge_cv("debug", *files, "--data", photos, "--plot", picture, "--worst", 2, "--below", 10)
    assert code == 0, err
    lines = out.strip().splitlines()
    assert lines[0].split() == ["layer", "sqnr_db", "operator", "weights_sqnr_db", "saturated", "unused"]
    assert len(lines) == 4
    assert lines[-1] == "first layer below 10 dB: none"
    assert "<svg" in picture.read_text()
    code, out, _ = edge_cv("debug", *files, "--data", photos, "--plot", picture, "--json", "--below", 149)
    layers = json.loads(out)
    assert code == 0
    assert layers[0]["operator"] == "CONV_2D"
    assert layers[-1]["layer"] == "logits"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: "missing.tflite"}, "must be a file that exists"),
        ({4: "layers.bmp"}, "NAME.png"),
        ({4: "nowhere/layers.png"}, "folder must exist"),
        ({1: "model.onnx"}, "two .tflite files"),
    ],
)
def test_debug_refuses_bad_input_in_one_line(edge_cv, files, photos, tmp_path, change, message):
    arguments = [files[0], files[1], "--data", photos, tmp_path / "layers.png"]
    for place, value in change.items():
        arguments[place] = tmp_path / value
    code, out, err = edge_cv("debug", *arguments[:4], "--plot", arguments[4])
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_check_prints_the_remedy_and_exits_1_if_a_target_refuses(edge_cv, files):
    code, out, _ = edge_cv("check", files[1], "--target", "edgetpu", "--target", "tflite-2.3")
    assert (code, out) == (0, f"{files[1]}: nothing found against edgetpu, tflite-2.3\n")
    code, out, _ = edge_cv("check", files[1], "--target", "mediapipe", "--json")
    assert code == 1
    assert {row["level"] for row in json.loads(out)} == {"error"}
    assert all('io="uint8"' in row["remedy"] for row in json.loads(out))
    code, out, _ = edge_cv("check", files[1], "--target", "micro")
    assert code == 0
    assert f"micro: {files[1].stat().st_size:,} bytes of flash, an arena of " in out
    code, out, err = edge_cv("check", files[1], "--target", "edgetp")
    assert (code, out) == (2, "")
    assert "Did you mean 'edgetpu'?" in err


def test_the_exit_code_is_1_if_mixed_misses_its_sqnr(edge_cv, keras_file, photos, tmp_path):
    code, out, err = edge_cv(
        "convert", keras_file, "--scheme", "mixed", "--min-sqnr", 149, "--calibration", photos, "--out", tmp_path
    )
    assert code == 1
    assert "mixed must have 149 dB" in err
    assert (tmp_path / f"{keras_file.stem}_mixed.tflite").is_file()
    assert "mixed" in out


def test_convert_for_a_target_and_to_int8_onnx_of_an_opset(edge_cv, keras_file, photos, tmp_path):
    import onnx

    code, out, err = edge_cv(
        "convert", keras_file, "--scheme", "int8", "--target", "mediapipe", "--onnx-int8", "--opset", 13,
        "--calibration", photos, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert [row["scheme"] for row in json.loads(out)] == ["int8", "int8"]
    record = json.loads((tmp_path / f"{keras_file.stem}_int8.json").read_text())
    assert record["input"]["dtype"] == "uint8"
    made = onnx.load(tmp_path / f"{keras_file.stem}_onnx_int8.onnx")
    assert [o.version for o in made.opset_import if o.domain == ""] == [13]


def test_convert_makes_int8_where_no_scheme_is_named_and_onnx_alone_where_that_is_asked(
    edge_cv, keras_file, photos, tmp_path
):
    code, out, err = edge_cv("convert", keras_file, "--calibration", photos, "--out", tmp_path / "a", "--json")
    assert code == 0, err
    assert [row["scheme"] for row in json.loads(out)] == ["int8"]
    code, out, err = edge_cv("convert", keras_file, "--onnx", "--out", tmp_path / "b", "--json")
    assert code == 0, err
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".onnx", ".json"}
    assert "I0000" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--onnx", "--opset", 12], "opset must be a whole number in 13.."),
        (["--onnx-int8", "--opset", 99, "--calibration", "none"], "Received: 99"),
        (["--opset", 17], "request a float32 or an int8 ONNX file. Received: opset 17 without one"),
    ],
)
def test_convert_refuses_a_bad_opset_in_one_line_before_it_converts(edge_cv, keras_file, tmp_path, options, message):
    code, out, err = edge_cv("convert", keras_file, "--scheme", "float32", "--out", tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
