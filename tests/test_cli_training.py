"""The commands that train: train, search and compress, and an interrupted run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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


@pytest.mark.slow
def test_probe_makes_a_model_without_training_and_says_how_good_it_is(edge_cv, tmp_path):
    """On photos of two colours, which every feature separates."""
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            pixels[..., channel] += 190
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    code, out, err = edge_cv(
        *("train", "efficientnet_lite0", "--weights", "imagenet", "--data", tmp_path / "photos", "--probe"),
        *("--set", "model.image_size=32", "--out", tmp_path / "run"),
    )
    assert (code, out) == (0, ""), err
    assert "The model is a linear probe on frozen features: top-1 " in err
    record = json.loads((tmp_path / "run" / "model.json").read_text())
    assert record["labels"] == ["blue", "red"]
    assert (record["history"], record["probe"]["fine_tuned"]) == ([], None)
    assert record["probe"]["top1"] >= 0.75


def test_probe_needs_a_recipe_that_trains(edge_cv, tmp_path):
    code, _, err = edge_cv("run", "demo", "--probe", "--out", tmp_path / "run")
    assert code == 2
    assert "--probe needs a recipe with a part fit. Received: demo" in err


@pytest.mark.slow
def test_an_interrupted_run_resumes(tmp_path):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(
        "from edge_cv.recipe import Analysis, Data, Measure, Model, Recipe\n"
        "model = Model('alexnet', image_size=64, alpha=0.125)\n"
        "data = Data(measure='digits', calibrate=None, calibration_images=16, images=16)\n"
        "measure, analysis = Measure(threads=(1,), runs=3, warmup=1), Analysis(grad_cam=0)\n"
        "RECIPE = Recipe('tiny', model, data, measure=measure, analysis=analysis, schemes=('float32', 'int8'))\n"
    )
    command = [sys.executable, "-m", "edge_cv.cli", "run", str(recipe), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    wanted = tmp_path / "run" / "stages" / "convert_float32.json"
    deadline = time.monotonic() + 600
    while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]
    kept = wanted.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert wanted.stat().st_mtime_ns == kept


TINY = ("model.alpha=0.125", "model.image_size=64", "model.preprocessing={'resize_to':None}", "fit.learning_rate=0.001")


TINY_SETTINGS = [part for setting in TINY for part in ("--set", setting)]


@pytest.mark.slow
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
    again = ("train", out_dir / "model.keras", "--data", "digits", "--quick", "--json", "--out", tmp_path / "again")
    code, out, err = edge_cv(*again)
    assert code == 0, err
    assert [entry["phase"] for entry in json.loads(out)] == [1, 2]  # a model file is fine-tuned: the head, then all
    sidecar = json.loads((tmp_path / "made" / "model_float32.json").read_text())
    assert sidecar["labels"] == list("0123456789")
    assert sidecar["preprocessing"]["resize_to"] is None


@pytest.mark.slow
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
