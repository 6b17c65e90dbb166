"""The steps of a run, from a recipe to a report, at the smallest size that shows what they do."""

from __future__ import annotations

import dataclasses
import json

import pytest

from converters.errors import InputError
from edge_cv.evaluation import executors
from edge_cv.evaluation.latency import Latency
from edge_cv.evaluation.predictions import Predictions
from edge_cv.pipeline import run
from edge_cv.pipeline.rows import broken_limits
from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Output, Recipe
from edge_cv.report import Row, load

RECIPE = Recipe(
    name="trial",
    model=Model("mobilenet_v1", alpha=0.25, image_size=32),
    data=Data(images=8, calibration_images=16),
    schemes=("float32", "int8"),
    onnx=("int8",),
    measure=Measure(threads=(1,), runs=5, warmup=1),
    analysis=Analysis(corruptions=1, grad_cam=3, conform=2),
)
ROW_KEYS = {
    *("scheme", "file", "size_bytes", "gzip_bytes", "parameters", "macs", "images", "top1", "top5", "top1_ci95"),
    *("agreement", "sqnr_db", "latency", "peak_memory_bytes"),
}
LATENCY_KEYS = {"host", "runtime", "threads", "p50_ms", "p90_ms", "p99_ms", "runs"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:  # without Chromium and an emulation, which take seconds to start
        patch.setattr(executors, "EXECUTORS", tuple(one for one in executors.EXECUTORS if one.found is None))
        run(RECIPE, folder)
    return folder


def test_a_run_writes_the_model_its_files_and_a_sidecar_for_each(folder):
    names = {path.name for path in folder.iterdir()}
    for scheme, suffix in (*((s, "tflite") for s in RECIPE.schemes), *((f"onnx_{s}", "onnx") for s in RECIPE.onnx)):
        assert {f"mobilenet_v1_{scheme}.{suffix}", f"mobilenet_v1_{scheme}.json"} <= names
    assert {"model.keras", "model.json", "report.json", "report.html"} <= names
    assert not [name for name in names if name.startswith(".")]


def test_report_json_has_the_documented_form(folder):
    report = json.loads((folder / "report.json").read_text())
    assert {"recipe", "environment", "violations", "rows"} <= set(report)
    assert [row["scheme"] for row in report["rows"]] == [*RECIPE.schemes, "onnx_int8"]
    for row in report["rows"]:
        assert set(row) >= ROW_KEYS
        assert set(row["latency"][0]) >= LATENCY_KEYS
        assert row["size_bytes"] == (folder / row["file"]).stat().st_size
        assert row["parameters"] == 470_072
        assert row["images"] == 8
    assert report["environment"]["cpu"] in report["rows"][0]["latency"][0]["host"]


def test_quantized_rows_are_smaller_and_agree(folder):
    rows = {row.scheme: row for row in load(folder).rows}
    assert rows["int8"].size_bytes < 0.4 * rows["float32"].size_bytes
    assert rows["float32"].agreement == 1.0
    assert rows["int8"].sqnr_db > 10
    assert rows["onnx_int8"].sqnr_db > 10
    assert len(rows["int8"].layers) > 20


def test_the_int8_file_is_compared_with_other_runtimes(folder):
    (row,) = (row for row in load(folder).rows if row.conformance is not None)
    assert (row.scheme, row.conformance.file, row.conformance.images) == ("int8", row.file, 2)
    assert [result.executor for result in row.conformance.results][:2] == [
        "LiteRT XNNPACK",
        "LiteRT kernels without XNNPACK",
    ]
    assert row.conformance.results[0].max_steps == 0
    assert ">Comparison of runtimes</h2>" in (folder / "report.html").read_text()


def test_the_report_analyzes_the_predictions(folder):
    report = load(folder)
    for row in report.rows:
        assert sum(row.classes.images) == row.confidence.images == 8
        assert row.confidence.accuracy == row.top1
        assert row.mistakes.wrong == round(8 * (1 - row.top1))
        assert (row.robustness is not None) == (row.scheme in ("float32", "int8"))
    misses = min(2, report.rows[0].mistakes.wrong)
    wrong = [photo.label != photo.answer for photo in report.explained]
    assert wrong == sorted(wrong, reverse=True)
    assert sum(wrong) == misses
    predictions = Predictions.load(folder / "predictions.npz")
    assert predictions.names == tuple(row.scheme for row in report.rows)
    assert (predictions.labels == predictions.top1("float32")[0]).mean() == report.rows[0].top1


@pytest.mark.slow
def test_real_weights_on_real_photos_keep_their_predictions(tmp_path):
    model = Model("efficientnet_lite0", weights="imagenet", image_size=128)
    recipe = dataclasses.replace(RECIPE, model=model, schemes=("float32", "int8"), onnx=())
    recipe = dataclasses.replace(recipe, analysis=Analysis(grad_cam=3))
    report = run(recipe, tmp_path)
    rows = {row.scheme: row for row in report.rows}
    assert rows["int8"].size_bytes < 0.3 * rows["float32"].size_bytes
    assert rows["int8"].sqnr_db > 10
    assert rows["int8"].agreement >= 0.75
    assert rows["float32"].parameters == 4_652_008
    assert rows["float32"].top1 >= 0.5
    assert len(report.explained) == 3


def test_another_grouping_runs_no_model_again(folder, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in (folder / "stages").iterdir() if p.name != "findings.json"}
    table = tmp_path / "light.csv"
    names = [file.name for file in Predictions.load(folder / "predictions.npz").files]
    table.write_text("file,light\n" + "".join(f"{n},{('day', 'night')[i % 2]}\n" for i, n in enumerate(names)))
    grouped = dataclasses.replace(RECIPE.analysis, by=("light",), metadata=str(table))
    report = run(dataclasses.replace(RECIPE, analysis=grouped), folder)
    for row in report.rows:
        (grouping,) = row.groups
        assert [(group.name, group.images) for group in grouping.groups] == [("day", 4), ("night", 4)]
        assert sum(group.accuracy for group in grouping.groups) / 2 == row.top1
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "By light" in (folder / "report.html").read_text()
    run(RECIPE, folder)


def test_a_second_run_repeats_no_step_and_reports_the_same(folder):
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in ("report.json", "report.html")
    }
    report = run(RECIPE, folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert report.rows == load(folder).rows


@pytest.mark.slow
def test_a_run_that_lost_a_file_writes_only_that_one_again(folder):
    kept = folder / "mobilenet_v1_float32.tflite"
    before = kept.stat().st_mtime_ns
    lost = folder / "mobilenet_v1_int8.tflite"
    lost.unlink()
    run(RECIPE, folder)
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before


def test_a_broken_limit_is_named_in_the_report(folder):
    limited = dataclasses.replace(RECIPE, limits=(Limits("int8", max_size_bytes=1000, min_agreement=0.1),))
    report = run(limited, folder)
    assert len(report.violations) == 1
    assert report.violations[0].startswith("int8: size in bytes must be at most 1,000. Measured: ")


def test_limits_by_closed_form():
    def row(scheme, size, p50, top1, agreement):
        latency = (Latency("h", "r", 1, p50),)
        return Row(
            Output("", "tflite", scheme),
            "f",
            size_bytes=size,
            top1=top1,
            agreement=agreement,
            latency=latency,
            images=10,
        )

    rows = (row("float32", 100, 10.0, 0.9, 1.0), row("int8", 30, 6.0, 0.8, 0.9))
    kept = Limits("int8", 30, 0.3, 6.0, 0.6, 0.9, 0.11)
    assert broken_limits([kept], rows) == ()
    for name, value in (
        ("max_size_bytes", 29),
        ("max_size_ratio", 0.29),
        ("max_p50_ms", 5.9),
        ("max_latency_ratio", 0.59),
        ("min_agreement", 0.91),
        ("max_top1_drop", 0.09),
        ("min_sqnr_db", 1.0),
    ):
        assert len(broken_limits([dataclasses.replace(kept, **{name: value})], rows)) == 1, name


@pytest.mark.parametrize(
    "changed",
    [
        {"model": Model("efficientnet_lite9")},
        {"schemes": ("float32", "int9")},
        {"data": Data(measure="nosuchfolder")},
        {"analysis": Analysis(by=("light",), metadata="nosuch.csv")},
        {"analysis": Analysis(by=("light",))},
        {"model": Model("efficientnet_lite3", weights="imagenet", image_size=32)},
    ],
)
def test_missing_inputs_are_reported_before_anything_is_written(tmp_path, changed):
    with pytest.raises(InputError):
        run(dataclasses.replace(RECIPE, **changed), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run(RECIPE, tmp_path / "file" / "out")


def test_calibration_photos_that_are_test_photos_or_duplicates_are_named(tmp_path):
    """The sample's photos calibrated on themselves, one of them twice."""
    from converters import Preprocessing
    from edge_cv import data
    from edge_cv.pipeline.inputs import CalibrationImages
    from edge_cv.pipeline.steps import Job, duplicates
    from edge_cv.progress import silent
    from edge_cv.stages import Steps

    source = data.open_samples("sample").take(6)
    twice = source.select([0, 1, 2, 0])
    calibration = CalibrationImages(twice, Preprocessing(64), silent)
    found = duplicates(Job(RECIPE, Steps(tmp_path), silent), calibration, source.take(2))
    names = [path.name for path in source.paths()]
    assert found["other calibration photos"] == [names[0]]
    assert found["photos that are measured"] == [names[0], names[0]]
