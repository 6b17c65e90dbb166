"""A recipe whose model is a file: Keras in both formats, a float TFLite file and a SavedModel folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv import pipeline
from edge_cv.recipe import Analysis, Data, FineTuning, Fit, Measure, Model, Prune, Recipe

FILES = ("digits.keras", "digits.tflite", "digits.h5", "digits_saved")
RECIPE = Recipe(
    name="own",
    model=Model("digits.keras"),
    data=Data(measure="digits", calibrate=None, calibration_images=16, images=100),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1,), runs=3, warmup=1),
    analysis=Analysis(grad_cam=1),
)


def writer(model, folder: Path):
    """Writes a network in the format of a name, and returns its path."""
    from converters import to_tflite

    def path_of(name: str) -> Path:
        path = folder / name
        if name == "digits_saved":
            model.export(path, verbose=False)
        elif name == "digits.tflite":
            path.write_bytes(to_tflite(model, "float32").content)
        elif name != "missing.keras":
            model.save(path)
        return path

    return functools.cache(path_of)


@pytest.fixture(scope="module")
def path_of(digits_model, tmp_path_factory):
    return writer(digits_model, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def untrained(digits_network, tmp_path_factory):
    return writer(digits_network, tmp_path_factory.mktemp("untrained"))


def recipe_of(path: Path, **fields) -> Recipe:
    return dataclasses.replace(RECIPE, model=Model(str(path), preprocessing={"rule": "stretch"}), **fields)


@pytest.fixture(scope="module")
def run_of(path_of, tmp_path_factory):
    """Runs the recipe with a model file, once for each name; returns the report and the folder."""
    folder = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda name: (pipeline.run(recipe_of(path_of(name)), folder / name), folder / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_run_converts_evaluates_and_measures_a_model_file(run_of, name):
    report, folder = run_of(name)
    rows = {row.scheme: row for row in report.rows}
    assert list(rows) == ["float32", "int8"]
    stem = name.partition(".")[0]
    assert [row.file for row in report.rows] == [f"{stem}_float32.tflite", f"{stem}_int8.tflite"]
    assert rows["float32"].top1 == run_of("digits.keras")[0].rows[0].top1 > 0.6
    assert rows["int8"].agreement > 0.9
    assert rows["int8"].latency
    assert rows["int8"].images == 100
    sidecar = json.loads((folder / f"{stem}_int8.json").read_text())
    assert sidecar["labels"] == list("0123456789")
    assert sidecar["preprocessing"]["rule"] == "stretch"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_only_a_keras_model_has_parameters_and_grad_cam_maps(run_of, name):
    report, _ = run_of(name)
    is_keras = name in ("digits.keras", "digits.h5")
    assert bool(report.explained) == is_keras
    assert (report.rows[0].parameters is not None) == is_keras
    assert any("not a Keras model" in note for note in report.notes) != is_keras


@pytest.mark.slow
def test_a_second_run_does_not_load_the_file_again(run_of, path_of, monkeypatch):
    from edge_cv.pipeline.file_model import FileModel

    report, folder = run_of("digits.keras")
    monkeypatch.setattr(FileModel, "_read", lambda self: pytest.fail("the file was read again"))
    assert pipeline.run(recipe_of(path_of("digits.keras")), folder).rows == report.rows


@pytest.mark.slow
def test_a_keras_file_is_fine_tuned_and_compressed(path_of, tmp_path):
    once = FineTuning(epochs=1, learning_rate=1e-3)
    fit = Fit(epochs=1, images=64, batch_size=32, learning_rate=1e-4, warmup_epochs=0)
    recipe = recipe_of(
        path_of("digits.keras"), fit=fit, prune=Prune(0.5, fine_tuning=once), analysis=Analysis(grad_cam=0)
    )
    report = pipeline.run(recipe, tmp_path)
    rows = {row.scheme: row for row in report.rows}
    assert list(rows) == ["float32", "int8", "pruned_float32", "pruned_int8"]
    assert rows["float32"].top1 > 0.6
    assert rows["pruned_int8"].total_sparsity == pytest.approx(0.5, abs=0.03)
    assert len(report.training) == 1
    assert (tmp_path / "model.keras").is_file()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("digits.tflite", {"fit": Fit()}, r"to train or compress, a model file must be a .keras or .h5 file"),
        ("digits.tflite", {"prune": Prune()}, r"to train or compress, a model file must be a .keras or .h5 file"),
        ("missing.keras", {}, r"the model must be a file that exists"),
        ("digits.keras", {"data": Data(measure="sample")}, r"classes"),
    ],
)
def test_what_cannot_be_done_with_a_file_is_refused_before_any_work(untrained, tmp_path, name, fields, message):
    with pytest.raises(InputError, match=message):
        pipeline.run(recipe_of(untrained(name), **fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sidecar_of_a_model_file_names_its_classes(untrained, tmp_path):
    from edge_cv.pipeline.file_model import labels_of

    path = tmp_path / "digits.keras"
    shutil.copy(untrained("digits.keras"), path)
    assert labels_of(path) is None
    path.with_suffix(".json").write_text(json.dumps({"labels": ["a", "b"]}))
    assert labels_of(path) == ["a", "b"]
