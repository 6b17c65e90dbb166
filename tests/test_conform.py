"""One file on every runtime at hand, run for real: differences, flipped classes and the operator that differs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from converters import to_onnx
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.packages import package_versions
from converters.tflite.graph import Graph
from edge_cv import data
from edge_cv.evaluation import browser, executors
from edge_cv.evaluation.executors import EXECUTORS, ExecutorProcess
from edge_cv.pipeline.conform import conform, steps_between, with_all_outputs

with_micro = pytest.mark.skipif(not package_versions(["tflite-micro"]), reason="tflite-micro is not installed")

INSTALLED = [e for e in EXECUTORS if e.suffix == ".tflite" and e.found is None and e.version]
ARM64, BROWSER = "LiteRT on arm64, emulated", "LiteRT.js in Chromium"


@pytest.fixture(scope="module", autouse=True)
def _packages_only():
    """Without the runtimes that take seconds to start, which tests of their own run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", tuple(e for e in EXECUTORS if e.found is None))
        yield


@pytest.fixture(scope="module")
def found(small_files, photos):
    return conform(small_files["int8"], str(photos), limit=6)


def _integers(photos, limit: int = 6) -> np.ndarray:
    samples = data.open_samples(str(photos)).take(limit)
    pixels = np.stack([image for image, _ in samples.pixels(Preprocessing(32))])
    return (pixels.astype(np.int16) - 128).astype(np.int8)


def _with_reference_kernels(content: bytes, inputs: np.ndarray, tensor: int | None = None) -> np.ndarray:
    """The outputs, or another tensor's values, by the reference kernels in this process."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    wanted = interpreter.get_output_details()[0]["index"] if tensor is None else tensor
    rows = []
    for image in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(wanted).reshape(-1))
    return np.stack(rows)


def test_every_installed_runtime_runs_the_file(found):
    names = [executor.name for executor in INSTALLED]
    assert [result.executor for result in found.results] == names
    assert found.reference == names[0]
    assert found.images == 6
    assert all(result.error is None and result.ms_per_image > 0 for result in found.results)
    assert "LiteRT on a board" in found.not_run


def test_differences_are_those_of_the_outputs(found, small_files, photos):
    from ai_edge_litert.interpreter import Interpreter

    content, inputs = small_files["int8"].read_bytes(), _integers(photos)
    reference = _with_reference_kernels(content, inputs).astype(int)
    usual = []
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for image in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        usual.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    difference = np.abs(reference - np.array(usual, int))
    (result,) = (result for result in found.results if result.executor == "LiteRT reference kernels")
    assert result.max_steps == difference.max()
    assert result.differing == pytest.approx((difference > 0).mean())
    assert result.flipped == (reference.argmax(1) != np.array(usual).argmax(1)).sum()
    assert result.flipped_ci95[0] <= result.flipped / 6 <= result.flipped_ci95[1]


@with_micro
def test_microcontrollers_compute_what_the_reference_kernels_do(found):
    one, other = (r for r in found.results if r.executor in ("LiteRT reference kernels", "TFLite Micro"))
    figures = ("max_steps", "differing", "flipped", "operator", "layer")
    assert [getattr(one, name) for name in figures] == [getattr(other, name) for name in figures]


@pytest.mark.parametrize("executor", INSTALLED, ids=lambda executor: executor.name)
def test_the_outputs_inside_a_file_are_those_of_its_operators_in_order(executor, small_files, photos):
    content, inputs = small_files["int8"].read_bytes(), _integers(photos, 1)
    with ExecutorProcess(executor) as process:
        inside, whole = process.run(with_all_outputs(content), inputs)[0], process.run(content, inputs)[0]
    np.testing.assert_array_equal(inside[-1], whole[0])
    for operator, values in zip(Graph(content).operators(), inside, strict=True):
        expected = _with_reference_kernels(content, inputs, operator.outputs[0])
        assert np.abs(values.astype(int) - expected).max() <= 3  # of steps: kernels round in their own ways


@pytest.mark.slow
def test_the_first_operator_that_differs_is_named(found, small_files, photos):
    content, inputs = small_files["int8"].read_bytes(), _integers(photos)
    for result in found.results:
        assert (result.operator is not None) == (result.max_steps >= 1)
        if result.operator is None:
            continue
        executor = next(e for e in EXECUTORS if e.name == result.executor)
        with ExecutorProcess(EXECUTORS[0]) as usual, ExecutorProcess(executor) as other:
            (whole,), (there,) = usual.run(content, inputs)[0], other.run(content, inputs)[0]
            image = np.abs(whole.astype(int) - there).max(axis=1).argmax()
            pair = [p.run(with_all_outputs(content), inputs[image : image + 1])[0] for p in (usual, other)]
        differing = [not np.array_equal(one, two) for one, two in zip(*pair, strict=True)]
        operator = list(Graph(content).operators())[differing.index(True)]
        assert (result.operator, result.layer) == (operator.name, Graph(content).name(operator.outputs[0]))


@pytest.mark.slow
def test_float_files_agree_within_a_step(small_files, photos):
    results = conform(small_files["float32"], str(photos), limit=3).results
    assert all(result.error is None and result.flipped == 0 and result.max_steps < 1 for result in results)


@pytest.mark.slow
def test_an_onnx_file_runs_with_and_without_optimizations(small_model, photos, tmp_path):
    path = to_onnx(small_model, "float32", preprocessing=Preprocessing(32)).save(tmp_path / "small.onnx")
    found = conform(path, str(photos), limit=3)
    assert [result.executor for result in found.results] == ["ONNX Runtime", "ONNX Runtime without graph optimizations"]
    assert all(result.flipped == 0 and result.operator is None for result in found.results)
    assert found.not_run == {}


def test_steps_of_floats_are_parts_of_the_largest_and_nan_equals_nan():
    expected = np.array([[65536.0, 0.0, np.nan]], np.float32)
    outputs = np.array([[65533.0, 0.0, np.nan]], np.float32)
    assert steps_between(expected, outputs).tolist() == [[3.0, 0.0, 0.0]]
    assert steps_between(expected, np.full_like(expected, np.nan)).tolist() == [[np.inf, np.inf, 0.0]]
    assert steps_between(np.int8([[-128]]), np.int8([[127]])).tolist() == [[255.0]]
    with pytest.raises(InputError, match="the same outputs"):
        steps_between(expected, outputs[:, :2])


def test_a_runtime_that_hangs_is_stopped(small_files, photos, monkeypatch):
    monkeypatch.setattr(executors, "SECONDS", 0)
    with ExecutorProcess(EXECUTORS[0]) as process, pytest.raises(InputError, match="takes longer than 0 s"):
        process.run(small_files["int8"].read_bytes(), _integers(photos))


@with_micro
def test_a_runtime_that_refuses_or_crashes_is_a_result(photos):
    micro = next(executor for executor in EXECUTORS if executor.name == "TFLite Micro")
    with ExecutorProcess(micro) as process, pytest.raises(InputError):
        process.run(b"no model", _integers(photos))


@pytest.mark.slow
def test_a_missing_runtime_is_named_with_how_to_install_it(small_files, photos, monkeypatch):
    monkeypatch.setattr(
        executors, "package_versions", lambda names: {} if names == ["tflite-micro"] else package_versions(names)
    )
    found = conform(small_files["int8"], str(photos), limit=1)
    assert found.not_run["TFLite Micro"] == "pip install 'edge-cv[micro]'"
    assert "TFLite Micro" not in [result.executor for result in found.results]


def test_the_command_prints_a_table_or_json(edge_cv, small_files, photos):
    command = ("conform", small_files["int8"], "--data", photos, "--limit", 2)
    code, out, _ = edge_cv(*command, "--json")
    assert code == 0
    value = json.loads(out)
    assert value["images"] == 2
    assert {"executor", "max_steps", "differing", "flipped", "flipped_ci95", "operator", "ms_per_image"} <= set(
        value["results"][0]
    )
    code, out, _ = edge_cv(*command)
    assert code == 0
    assert "0 of 2" in out
    assert "not run: LiteRT on a board" in out


@pytest.mark.parametrize("name", ["missing.tflite", "model.keras", "junk.tflite"])
def test_what_cannot_be_run_is_refused_in_one_line(edge_cv, photos, tmp_path, name):
    if name != "missing.tflite":
        (tmp_path / name).write_bytes(b"junk")
    code, out, err = edge_cv("conform", tmp_path / name, "--data", photos)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "float32"])
def test_a_file_runs_in_chromium_as_here(small_files, photos, monkeypatch, scheme):
    if browser.version() is None:
        pytest.skip(f"there is no LiteRT.js ({browser.INSTALL})")
    monkeypatch.setattr(executors, "EXECUTORS", EXECUTORS)
    content = small_files[scheme].read_bytes()
    inputs = _integers(photos) if scheme == "int8" else _integers(photos).astype(np.float32) + 128
    litertjs = next(executor for executor in EXECUTORS if executor.name == BROWSER)
    with ExecutorProcess(litertjs) as there, ExecutorProcess(EXECUTORS[0]) as here:
        (outputs,), seconds = there.run(content, inputs)
        (expected,), _ = here.run(content, inputs)
        assert seconds > 0
        assert outputs.dtype == expected.dtype
        step = 1 if scheme == "int8" else np.abs(expected).max() / 2**16
        assert np.abs(outputs.astype(float) - expected).max() <= step
        assert outputs.std(axis=0).max() > 0
        with pytest.raises(InputError):
            there.run(b"no model", inputs)


def test_runtimes_outside_of_packages_are_named_with_how_to_install_them(small_files, photos, monkeypatch, tmp_path):
    absent = [dataclasses.replace(e, found=lambda: None) for e in EXECUTORS if e.found is not None]
    monkeypatch.setattr(executors, "EXECUTORS", (EXECUTORS[0], *absent))
    found = conform(small_files["int8"], str(photos), limit=1)
    assert "edge-cv conform --install arm64" in found.not_run[ARM64]
    assert found.not_run[BROWSER] == "apt-get install chromium npm"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [e.version for e in EXECUTORS if e.found is not None] == [None, None]
    (tmp_path / "chromium").symlink_to("/bin/true")
    browser._fetched.cache_clear()
    assert browser.version() is None  # without npm and the network it did not run, and nothing is wrong with the file
    browser._fetched.cache_clear()


def test_an_emulation_that_cannot_be_made_is_refused_in_one_line(edge_cv, small_files, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        code, out, err = edge_cv("conform", "--install", "arm64")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "apt-get install qemu-user-static debootstrap" in err
    (tmp_path / "debootstrap").write_text("#!/bin/sh\necho E: no archive >&2\nexit 1\n")
    (tmp_path / "debootstrap").chmod(0o755)
    for tool in ("qemu-aarch64-static", "dpkg"):
        (tmp_path / tool).symlink_to("/bin/true")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        code, out, err = edge_cv("conform", "--install", "arm64")
    assert (code, out) == (2, "")
    assert err.endswith("debootstrap says: E: no archive\n")
    assert not (tmp_path / "edge-cv" / "arm64").exists()
    for arguments in (("--install", "arm65"), ("--install", "arm64", small_files["int8"]), (), (small_files["int8"],)):
        code, out, err = edge_cv("conform", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
