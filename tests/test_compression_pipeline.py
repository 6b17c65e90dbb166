"""Recipes that compress: each stage has rows, no step is repeated, impossible parts are refused before training."""

from __future__ import annotations

import dataclasses

import pytest

from converters import read_metadata
from converters.errors import InputError
from edge_cv.pipeline import run
from edge_cv.recipe import (
    Analysis,
    ChannelPrune,
    Data,
    FineTuning,
    Fit,
    Limits,
    Measure,
    Model,
    Prune,
    Qat,
    Recipe,
    WeightClustering,
)
from edge_cv.report import load

SHORT = FineTuning(steps=8, learning_rate=1e-3)
RECIPE = Recipe(
    name="smaller",
    # few layers, which compile fast
    model=Model("alexnet", image_size=63, alpha=0.125, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None, calibration_images=16, images=40),
    fit=Fit(epochs=1, images=128, batch_size=32, learning_rate=0.001),
    prune=Prune(0.75, allocation="uniform", fine_tuning=SHORT),
    qat=Qat(weight_values=31, fine_tuning=SHORT),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1,), runs=5, warmup=1),
    analysis=Analysis(grad_cam=0),
    limits=(Limits("qat_int8", max_size_bytes=1),),
)


@pytest.mark.slow
def test_each_stage_has_rows_and_a_second_run_does_only_what_has_changed(tmp_path):
    report = run(RECIPE, tmp_path)
    rows = {row.scheme: row for row in report.rows}
    assert (
        list(rows)
        == ["float32", "int8", "pruned_float32", "pruned_int8", "qat_int8"]
        == [o.name for o in RECIPE.outputs()]
    )
    assert rows["int8"].sparsity is None
    for name in ("pruned_float32", "pruned_int8", "qat_int8"):
        assert rows[name].total_sparsity == pytest.approx(0.75, abs=0.02)
        assert min(rows[name].sparsity.values()) > 0.7
        assert rows[name].macs == rows["int8"].macs
        assert rows[name].images == 40
    assert rows["qat_int8"].gzip_bytes < rows["pruned_int8"].gzip_bytes < rows["int8"].gzip_bytes
    assert report.violations[0].startswith("qat_int8: size in bytes must be at most 1.")
    pruning, _ = report.fine_tuning
    assert [stage.stage for stage in report.fine_tuning] == ["pruned", "qat"]
    assert pruning.epochs[-1].sparsity == pytest.approx(rows["pruned_int8"].total_sparsity)
    assert load(tmp_path).fine_tuning == report.fine_tuning
    assert load(tmp_path).rows == report.rows
    assert ">Compression</h2>" in (tmp_path / "report.html").read_text()

    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.keras")}
    assert set(times) == {"model.keras", "pruned.keras", "qat.keras"}
    assert run(RECIPE, tmp_path).rows == report.rows
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.keras")} == times
    without = run(dataclasses.replace(RECIPE, qat=None, limits=()), tmp_path)
    assert [row.scheme for row in without.rows] == ["float32", "int8", "pruned_float32", "pruned_int8"]
    assert (tmp_path / "pruned.keras").stat().st_mtime_ns == times["pruned.keras"]

    run(dataclasses.replace(RECIPE, io="uint8", limits=()), tmp_path)  # the same models with uint8 input
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.keras")} == times
    for scheme, dtype in (("float32", "float32"), ("int8", "uint8"), ("pruned_int8", "uint8"), ("qat_int8", "uint8")):
        record = read_metadata(tmp_path / f"alexnet_{scheme}.tflite")
        assert (record["input"]["dtype"], record["output"]["dtype"]) == (dtype, dtype)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"cluster": WeightClustering(300)}, "at most 255 together with qat"),
        ({"prune": Prune(0.05), "cluster": WeightClustering(16)}, "above 0.1 together with cluster"),
        ({"prune": None}, "scheme in Limits"),
    ],
)
def test_a_recipe_refuses_parts_that_contradict_each_other(parts, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RECIPE, limits=(Limits("pruned_int8"),), **parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        pytest.param({"prune": Prune(exclude=("absent*",))}, "exclude must name", marks=pytest.mark.slow),
        ({"channel_prune": ChannelPrune(0.001)}, "no further"),
    ],
)
def test_stages_that_the_model_cannot_have_are_refused_before_training(tmp_path, parts, message):
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(RECIPE, **parts), tmp_path)
    assert not (tmp_path / "training").exists()
