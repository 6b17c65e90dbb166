"""The recipes for target devices: each runs, and its file keeps the rules of its device."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from converters.devices import targets
from converters.devices.compilers import TARGETS
from converters.errors import InputError
from edge_cv import recipe as recipes
from edge_cv.deploy.package import check_package, package
from edge_cv.evaluation.latency import Latency
from edge_cv.pipeline import run
from edge_cv.pipeline.rows import broken_limits, with_device_latency
from edge_cv.recipe import Limits, Model, Output, Recipe, TargetDevice
from edge_cv.report import Report, Row
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.page import to_html

INT8 = Output("", "tflite", "int8")

ROOT = Path(__file__).parents[1]
FOR_DEVICES = recipes.device_recipes()


def test_every_target_has_a_recipe_that_names_its_sources():
    wanted = "android_gpu coral_edgetpu cortex_m7 ethos_u55 ethos_u65_imx93 jetson pixel"
    wanted += " raspberry_pi_5 raspberry_pi_zero_2 rk3588 x86_server"
    assert {path.stem for path, _ in FOR_DEVICES} >= set(wanted.split())
    for path, recipe in FOR_DEVICES:
        text = path.read_text()
        assert any(word in text for word in ("The processor: ", "The browser: ")), path
        assert "The model: " in text, path
        assert "https://" in text, path
        assert f"edge-cv run {path.stem} " in text
        assert recipe.limits, path


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder with a run's folder for each model, so that its recipes share the steps that they have in common."""
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe for _, recipe in FOR_DEVICES], ids=lambda recipe: recipe.name)
def test_a_device_recipe_runs_in_its_quick_form(recipe, shared):
    """On images of 96 pixels, whose networks have the operators of the full size."""
    recipe = recipe.quick().with_settings(["analysis.grad_cam=0", "model.image_size=96"])
    folder = shared / f"{recipe.model.name}_{recipe.model.image_size}"
    if recipe.device.package == "web" and shutil.which("npm") is None:
        pytest.skip("npm, from which LiteRT.js is downloaded, is not installed")
    if recipe.device.compiler is not None and TARGETS[recipe.device.compiler].version() is None:
        pytest.skip(f"a compiler is not installed ({TARGETS[recipe.device.compiler].install})")
    run(recipe, folder)
    report = json.loads((folder / "report.json").read_text())
    (row,) = (row for row in report["rows"] if row["scheme"] == recipe.device.scheme)
    assert row["latency"]
    assert (folder / row["file"]).stat().st_size == row["size_bytes"]
    assert report["delivery"]["name"] == recipe.device.name
    assert recipe.device.name in (folder / "report.html").read_text().replace("&#39;", "'")
    for name in report["delivery"]["files"]:
        assert (folder / name).stat().st_size > 0
    if recipe.device.target in targets.names():
        content = (folder / row["file"]).read_bytes()
        assert all(found.level != targets.ERROR for found in targets.check(content, recipe.device.target))
    if recipe.device.target == "micro":
        memory = report["delivery"]["memory"]
        assert row["arena_bytes"] == memory["activations_bytes"] + memory["records_bytes"] < 250_000
        assert {Path(name).suffix for name in report["delivery"]["files"]} == {".h", ".cc", ".c"}


def test_devices_lists_every_recipe_for_a_device(edge_cv, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, err = edge_cv("devices", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["recipe"] for row in rows] == [str(path.relative_to(ROOT)) for path, _ in FOR_DEVICES]
    assert "Raspberry Pi 5" in edge_cv("devices")[1]


def test_a_tensorrt_file_has_no_zero_points(tmp_path):
    import onnx

    from converters import to_onnx

    model, images = _small_model()

    def zero_points(target: str | None) -> list[int]:
        graph = onnx.load_from_string(to_onnx(model, "int8", calibration=images, target=target).content).graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        used = {node.input[2] for node in graph.node if "Linear" in node.op_type and len(node.input) > 2}
        return [int(v) for name in used for v in values[name].reshape(-1)]

    assert set(zero_points("tensorrt")) == {0}
    assert set(zero_points(None)) - {0}
    with pytest.raises(InputError, match="ONNX target"):
        to_onnx(model, "int8", calibration=images, target="edgetpu")


def test_a_limit_on_the_arena_is_reported_when_broken_or_not_measured():
    limits = Limits("int8", max_arena_bytes=1000)
    assert broken_limits([limits], [Row(INT8, "a.tflite", arena_bytes=1001)]) == (
        "int8: arena in bytes must be at most 1,000. Measured: 1,001",
    )
    assert broken_limits([limits], [Row(INT8, "a.tflite", arena_bytes=1000)]) == ()
    assert "was not measured" in broken_limits([limits], [Row(INT8, "a.tflite")])[0]


def test_a_device_for_a_missing_row_or_with_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="scheme in TargetDevice"):
        Recipe("r", Model("mobilenet_v1"), schemes=("float32",), device=TargetDevice("d", "p", "r"))
    with pytest.raises(InputError, match=r"TargetDevice\.package"):
        TargetDevice("d", "p", "r", package="floppy")


def test_a_package_is_read_back_from_report_json(small_int8, tmp_path):
    path = tmp_path / "model int8.tflite"
    path.write_bytes(small_int8)
    device = TargetDevice("a board", "a core", "a runtime", target="micro", package="c_array")
    found = package(device, path, tmp_path)
    sources = ("model_settings.h", "model_ops.h", "preprocess.h", "preprocess.c", "main.cc")
    assert found.files == ("model_int8.h", "model_int8.cc", *sources)
    assert (tmp_path / "model_int8.h").is_file()
    report = Report({"name": "r"}, {}, rows=(Row(INT8, path.name),), delivery=found)
    assert from_dict(json.loads(json.dumps(to_dict(report)))).delivery == found
    html = to_html(report)
    assert "a board" in html
    assert f"{found.memory.arena_bytes:,} bytes" in html
    with pytest.raises(InputError, match="delivery"):
        from_dict(to_dict(report) | {"delivery": {"name": 3}})
    edgetpu = package(dataclasses.replace(device, target="edgetpu", package=None), path, tmp_path)
    assert edgetpu.memory is None
    assert edgetpu.files == ()


def _small_model() -> tuple[Any, Any]:
    """A network of random weights, and images that it takes."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(x))
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    return model, np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def small_int8() -> bytes:
    from converters import Preprocessing, to_tflite

    model, images = _small_model()
    return to_tflite(model, "int8", calibration=images, preprocessing=Preprocessing(16)).content


def test_the_android_app_gets_the_file_and_its_sidecar_and_a_quick_run_leaves_it_alone(
    small_int8, tmp_path, monkeypatch
):
    from edge_cv.deploy import android

    path = tmp_path / "run" / "small_int8.tflite"
    path.parent.mkdir()
    path.write_bytes(small_int8)
    path.with_suffix(".json").write_text("{}")
    device = TargetDevice("a phone", "arm64", "LiteRT", package="android")
    recipe = Recipe("r", Model("mobilenet_v1"), device=device)
    monkeypatch.setattr(android, "APP", tmp_path / "app")
    with pytest.raises(InputError, match="needs a checkout"):
        check_package(recipe)
    assets = tmp_path / "app" / android.ASSETS
    assets.mkdir(parents=True)
    check_package(recipe)
    assert package(device, path, path.parent).files == (f"../app/{android.ASSETS}/small_int8.tflite",)
    assert {file.name for file in assets.iterdir()} == {"small_int8.tflite", "small_int8.json"}
    assert (assets / "small_int8.tflite").read_bytes() == small_int8
    assert recipe.quick().device.package is None


def test_limits_on_latency_apply_to_the_device_that_measured():
    from edge_cv.evaluation.measurement import Measurement

    def row(scheme: str, milliseconds: float, sha256: str) -> Row:
        here = Latency("here", "r", 1, milliseconds)
        return Row(Output("", "tflite", scheme), f"{scheme}.tflite", sha256=sha256, latency=(here,))

    rows = (row("float32", 10.0, "0" * 64), row("int8", 4.0, "1" * 64))
    there = Latency("a board", "r", 1, 50.0, 51.0, 52.0, 3, (50.0, 50.0, 50.0))
    limits = Limits("int8", max_p50_ms=20.0)
    assert broken_limits([limits], rows) == ()
    on_board = with_device_latency(rows, [Measurement("int8.tflite", "1" * 64, {"host": "a board"}, (there,))])
    assert broken_limits([limits], on_board) == (
        "int8: median latency in ms at one thread must be at most 20. Measured: 50",
    )
    assert on_board[0] == rows[0]
