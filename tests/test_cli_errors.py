"""The command line refuses bad input in one line, with exit code 2, before it writes a file."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "2 classes. Received: 10"),
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
        (("search", "digits"), "Missing option '--over'. (edge-cv search --help)"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "none.keras", "--out"),
        ("compress", "none.keras", "--data", "none", "--out"),
        ("compile", "none.tflite", "--target", "ethos-u55-256", "--out"),
        ("debug", "a.tflite", "b.tflite", "--data", "none", "--plot"),
        ("evaluate", "none.tflite", "--data", "none", "--out"),
        ("benchmark", "none.tflite", "--out"),
        ("web", "none.tflite", "--out"),
        ("run", "none.py", "--out"),
        ("train", "none.py", "--out"),
        ("search", "none.py", "--over", "a=1,2", "--out"),
        ("sweep", "none.py", "--out"),
        ("report", "none", "--out"),
        ("data", "prepare", "none"),
        ("data", "show", "none", "--out"),
        ("models", "--measure", "--out"),
        ("models", "--plot"),
    ],
)
def test_results_that_cannot_be_written_are_refused_before_the_inputs_are_read(edge_cv, tmp_path, arguments):
    (tmp_path / "file").write_text("")
    code, out, err = edge_cv(*arguments, tmp_path / "file" / "results.png")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"must be {'in ' if 'in a folder' in err else ''}a folder. Received: the file {tmp_path / 'file'}" in err
