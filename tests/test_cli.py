"""The command line: results on stdout, errors in one line, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_cv.cli import app as cli

ROOT = Path(__file__).parents[1]
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
    "web",
    "devices",
    "models",
    "evaluate",
    "benchmark",
    "data show",
    "data prepare",
    "data check",
)


@pytest.fixture
def edge_cv(monkeypatch, capsys):
    """A function that runs a command in this process and returns its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge-cv", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve photos in two class folders."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        place = folder / ("one", "two")[index % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """A third-party classifier of two classes with a Rescaling layer."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    path = tmp_path_factory.mktemp("model") / "mine.keras"
    keras.Model(image, layers.Dense(2)(x), name="mine").save(path)
    return path


@pytest.fixture(scope="module")
def converted(keras_file, photos, tmp_path_factory):
    """The folder of its float32 and int8 files, and the finished process that converted them."""
    folder = tmp_path_factory.mktemp("converted")
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\n")
    command = [sys.executable, "-m", "edge_cv.cli", "convert", keras_file, "--scheme", "float32", "--scheme", "int8"]
    command += ["--calibration", photos, "--labels", labels, "--out", folder, "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_version_is_printed(edge_cv):
    code, out, _ = edge_cv("--version")
    assert code == 0
    assert re.fullmatch(r"edge-cv \d+\.\d+\.\d+\S*\n", out)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(edge_cv, command):
    code, out, _ = edge_cv(*command.split(), "--help")
    assert code == 0
    assert f"Example: edge-cv {command}" in " ".join(out.split())


@pytest.mark.slow
def test_compress_evaluates_each_stage_and_resumes(edge_cv, digits_model, tmp_path):
    digits_model.save(tmp_path / "own.keras")
    command = ["compress", tmp_path / "own.keras", "--data", "digits", "--resize", "stretch", "--out", tmp_path / "out"]
    command += ["--sparsity", 0.5, "--qat", "--epochs", 1, "--batch-size", 64, "--json"]
    code, out, err = edge_cv(*command)
    assert code == 0, err
    rows = {row["model"]: row for row in json.loads(out)}
    assert list(rows) == ["dense_float32", "dense_int8", "pruned_int8", "qat_int8"]
    for row in rows.values():
        assert Path(row["file"]).stat().st_size == row["size_bytes"]
        assert row["images"] == 360
    assert rows["dense_float32"]["sparsity"] == 0
    assert rows["qat_int8"]["sparsity"] == pytest.approx(0.5, abs=0.03)
    assert rows["qat_int8"]["gzip_bytes"] < rows["dense_int8"]["gzip_bytes"]
    assert rows["qat_int8"]["top1"] > rows["dense_float32"]["top1"] - 0.05 > 0.5
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.keras")}
    assert {path.stem for path in trained} == {"pruned", "qat"}
    again = {row["model"]: row for row in json.loads(edge_cv(*command)[1])}
    assert {name: row["top1"] for name, row in again.items()} == {name: row["top1"] for name, row in rows.items()}
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at least one of --channels"),
        (("--sparsity", 1.0), "under 1"),
        (("--clusters", 2), "at least 3"),
        (("--clusters", 300, "--qat"), "at most 255"),
        (("--sparsity", 0.5), "2 classes. Received: 10"),
        (("--sparsity", 0.5, "--augment", "speed=3"), "speed"),
    ],
)
def test_compress_refuses_bad_input_before_it_trains(edge_cv, keras_file, tmp_path, arguments, message):
    code, out, err = edge_cv("compress", keras_file, "--data", "digits", "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_models_lists_every_architecture(edge_cv):
    from edge_cv import models

    code, out, _ = edge_cv("models", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == list(models.names())
    assert next(row for row in rows if row["name"] == "efficientnet_lite0")["parameters"] == 4_652_008


def test_convert_writes_checked_files_with_a_sidecar_each(converted):
    _, done = converted
    rows = json.loads(done.stdout)
    assert [row["scheme"] for row in rows] == ["float32", "int8"]
    for row in rows:
        path = Path(row["file"])
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["size_bytes"] == path.stat().st_size == row["size_bytes"]
        assert sidecar["labels"] == ["one", "two"]
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt") == b"one\ntwo\n"
    assert rows[1]["sqnr_db"] > 15


def test_stderr_has_only_progress(converted):
    lines = converted[1].stderr.splitlines()
    remark = "the model does not declare how photos"
    assert all(line.endswith(" s)") or line.startswith(remark) for line in lines), lines


def test_evaluate_and_benchmark_measure_what_convert_made(edge_cv, converted, photos):
    folder, _ = converted
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
    junk(tmp_path, "m.csv", b"file,age\none/0.png,3\n")
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


def junk(tmp_path, name, content=b"junk\n"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


BAD = {
    "a missing model": lambda t, p, k: ["convert", t / "none.keras", "--scheme", "float32"],
    "an unknown model name": lambda t, p, k: ["convert", "efficientnet_lite9", "--scheme", "float32"],
    "a junk .keras": lambda t, p, k: ["convert", junk(t, "x.keras"), "--scheme", "float32"],
    "an empty .keras": lambda t, p, k: ["convert", junk(t, "x.keras", b""), "--scheme", "float32"],
    "a truncated .keras": lambda t, p, k: ["convert", junk(t, "x.keras", k.read_bytes()[:5000]), "--scheme", "float32"],
    "a file of another kind": lambda t, p, k: ["convert", junk(t, "x.h5"), "--scheme", "float32"],
    "an unknown scheme": lambda t, p, k: ["convert", k, "--scheme", "int9"],
    "int8 without photos": lambda t, p, k: ["convert", k, "--scheme", "int8"],
    "a missing calibration folder": lambda t, p, k: [
        "convert",
        k,
        "--scheme",
        "int8",
        "--calibration",
        t / "no",
    ],
    "a calibration folder without images": lambda t, p, k: ["convert", k, "--scheme", "int8", "--calibration", t],
    "labels that are too few": lambda t, p, k: [
        *("convert", k, "--scheme", "int8", "--calibration", p, "--labels", junk(t, "l.txt", b"one\n"))
    ],
    "a rule that does not exist": lambda t, p, k: [
        "convert",
        k,
        "--scheme",
        "int8",
        "--calibration",
        p,
        "--resize",
        "squeeze",
    ],
    "a mean that is not a number": lambda t, p, k: [
        "convert",
        k,
        "--scheme",
        "int8",
        "--calibration",
        p,
        "--mean",
        "grey",
    ],
    "an io that does not exist": lambda t, p, k: ["convert", k, "--scheme", "int8", "--calibration", p, "--io", "int4"],
    "an output folder that is a file": lambda t, p, k: [
        "convert",
        k,
        "--scheme",
        "float32",
        "--out",
        junk(t, "f") / "x",
    ],
    "a junk .tflite": lambda t, p, k: ["evaluate", junk(t, "x.tflite"), "--data", p],
    "a missing .tflite": lambda t, p, k: ["evaluate", t / "none.tflite", "--data", p],
    "a junk .tflite to time": lambda t, p, k: ["benchmark", junk(t, "x.tflite")],
    "no threads": lambda t, p, k: ["benchmark", junk(t, "x.tflite"), "--threads", "0"],
    "threads that are not numbers": lambda t, p, k: ["benchmark", junk(t, "x.tflite"), "--threads", "many"],
    "a missing recipe": lambda t, p, k: ["run", t / "none.py"],
    "an unknown recipe name": lambda t, p, k: ["run", "dem"],
    "a recipe file without a recipe": lambda t, p, k: ["run", junk(t, "r.py", b"RECIPE = 3\n")],
    "a recipe that cannot be imported": lambda t, p, k: ["run", junk(t, "r.py", b"import nosuch\n")],
    "a setting that does not exist": lambda t, p, k: ["run", "demo", "--set", "measure.rans=3"],
    "a data folder without images": lambda t, p, k: ["run", ROOT / "recipes/demo.py", "--data", t, "--out", t / "out"],
    "a folder without a report": lambda t, p, k: ["report", t],
    "an unknown command": lambda t, p, k: ["nosuchcommand"],
    "an unknown option": lambda t, p, k: ["models", "--colour"],
    "a missing argument": lambda t, p, k: ["convert"],
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_exit_code_2(edge_cv, tmp_path, photos, keras_file, what):
    arguments = BAD[what](tmp_path, photos, keras_file)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = edge_cv(*arguments)
    lines = [
        line for line in err.splitlines() if not line.endswith(" s)") and not line.startswith("the model does not")
    ]
    assert code == 2
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("edge-cv: ")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


def test_the_nearest_name_is_suggested(edge_cv, keras_file):
    assert "Did you mean 'int8'?" in edge_cv("convert", keras_file, "--scheme", "int9")[2]
    assert "Did you mean 'efficientnet_lite0'?" in edge_cv("convert", "eficientnet_lite0", "--scheme", "float32")[2]


def test_a_lambda_layer_runs_only_with_unsafe(edge_cv, tmp_path, monkeypatch):
    import keras

    image = keras.Input((32, 32, 3))
    marker = tmp_path / "ran"
    monkeypatch.setenv("EDGE_CV_TEST_MARKER", str(marker))
    x = keras.layers.Lambda(lambda x: (open(__import__("os").environ["EDGE_CV_TEST_MARKER"], "w").close(), x)[1])(image)
    x = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    marker.unlink()
    arguments = ("convert", tmp_path / "lambda.keras", "--scheme", "float32", "--out", tmp_path)
    code, _, err = edge_cv(*arguments)
    assert code == 2
    assert "Lambda" in err
    assert not marker.exists()
    assert edge_cv(*arguments, "--unsafe")[0] == 0
    assert marker.exists()


@pytest.mark.slow
def test_an_interrupted_run_resumes(tmp_path):
    command = [
        sys.executable,
        "-m",
        "edge_cv.cli",
        "run",
        str(ROOT / "recipes/demo.py"),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--quick", "--set", "model.image_size=64", "--set", "onnx=()"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    wanted = tmp_path / "run" / "stages" / "convert_float32.json"
    for _ in range(1200):
        if wanted.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]
    kept = wanted.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert wanted.stat().st_mtime_ns == kept


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


def test_convert_for_a_target_and_to_int8_onnx(edge_cv, keras_file, photos, tmp_path):
    code, out, err = edge_cv(
        "convert", keras_file, "--scheme", "int8", "--target", "mediapipe", "--onnx-int8", "--calibration", photos,
        "--out", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert [row["scheme"] for row in json.loads(out)] == ["int8", "int8"]
    record = json.loads((tmp_path / f"{keras_file.stem}_int8.json").read_text())
    assert record["input"]["dtype"] == "uint8"
    assert (tmp_path / f"{keras_file.stem}_onnx_int8.onnx").is_file()


TINY = ("model.alpha=0.125", "model.image_size=64", "model.preprocessing={'resize_to':None}", "fit.learning_rate=0.001")
TINY_SETTINGS = [part for setting in TINY for part in ("--set", setting)]


def test_train_writes_a_model_and_its_history_and_convert_reads_it(edge_cv, tmp_path):
    out_dir = tmp_path / "run"
    command = ("train", "alexnet", "--data", "digits", "--quick", *TINY_SETTINGS, "--out", out_dir)
    code, out, err = edge_cv(*command, "--json")
    assert code == 0, err
    (entry,) = json.loads(out)
    assert entry["epoch"] == 1
    assert 0 <= entry["validation_score"] <= 1
    assert f"model: {out_dir / 'model.keras'}" in edge_cv(*command)[2]  # nothing is trained again
    (training,) = (out_dir / "training").iterdir()
    assert {"checkpoint.npz", "history.csv", "tensorboard"} <= {path.name for path in training.iterdir()}
    code, out, err = edge_cv(
        "convert", out_dir / "model.keras", "--scheme", "float32", "--out", tmp_path / "made", "--json"
    )
    assert code == 0, err
    sidecar = json.loads((tmp_path / "made" / "model_float32.json").read_text())
    assert sidecar["labels"] == list("0123456789")
    assert sidecar["preprocessing"]["resize_to"] is None


def test_search_prints_the_best_trial_first_and_its_command(edge_cv, tmp_path):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(
        "from edge_cv.recipe import Data, Fit, Model, Recipe\n"
        "fit = Fit(epochs=1, images=64, batch_size=32, learning_rate=0.001, warmup_epochs=0)\n"
        "model = Model('alexnet', image_size=64, alpha=0.125)\n"
        "RECIPE = Recipe('tiny', model, Data(measure='digits', calibrate=None), fit=fit)\n"
    )
    command = ("search", recipe, "--over", "fit.optimizer=sgd,rmsprop", "--trials", "2", "--out", tmp_path / "search")
    code, out, err = edge_cv(*command, "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert len(rows) == 2
    assert rows[0]["score"] >= rows[1]["score"]
    assert f"best: edge-cv run {recipe} --set fit.optimizer={rows[0]['fit.optimizer']}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "alexnet"), "--data must name the photos to train on. Received: alexnet without --data"),
        (("train", "alexnett", "--data", "digits"), "unknown model: 'alexnett'. Did you mean 'alexnet'"),
        (("train", "alexnet", "--data", "nowhere"), "data must be a folder or file of images"),
        (("train", "alexnet", "--data", "digits", "--set", "fit.epoch=1"), "field of Fit"),
        (("train", "alexnet", "--data", "digits", "--set", "fit.optimizer=adam"), "unknown Fit.optimizer"),
        (("train", str(ROOT / "recipes/digits.py"), "--weights", "imagenet"), "--weights is for a model's name"),
        (("train", "demo"), "the recipe demo must have a part fit. Received: none"),
        (("train", "nowhere.py"), "the recipe must be a file that exists"),
        (("search", str(ROOT / "recipes/demo.py"), "--over", "fit.epochs=1,2"), "must have a part fit"),
        (("search", "digits", "--over", "fit.epochs"), "a field to search must be FIELD=SPACE"),
        (("search", str(ROOT / "recipes/digits.py"), "--over", "fit.epochs=2..1"), "a range must be LEAST..MOST"),
        (("search", "digits"), "Missing option"),
        (("sweep", "demo", "digit"), "Did you mean 'digits'"),
    ],
)
def test_bad_input_of_a_training_is_refused_in_one_line(edge_cv, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = edge_cv(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
