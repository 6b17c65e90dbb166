"""Arm's compiler, run for real: what runs on the NPU, what stays on the CPU, and a compiler that fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converters import to_tflite
from converters.devices import vela
from converters.devices.compilers import compile_file
from converters.errors import InputError
from converters.packages import package_versions
from converters.tflite.graph import Graph

U55 = "ethos-u55-256"
with_vela = pytest.mark.skipif(not package_versions(["ethos-u-vela"]), reason="ethos-u-vela is not installed")


@with_vela
@pytest.mark.parametrize(
    "target", [U55, *(pytest.param(name, marks=pytest.mark.slow) for name in ("ethos-u65-512", "ethos-u85-128"))]
)
def test_an_int8_file_of_convolutions_runs_on_the_npu_whole(small_files, tmp_path, target):
    made = compile_file(small_files["int8"], target, tmp_path)
    assert made.cpu_operators == ()
    assert made.npu_operators == len(list(Graph(small_files["int8"].read_bytes()).operators()))
    assert made.file == tmp_path / f"small_int8_{target}.tflite"
    assert [operator.name for operator in Graph(made.file.read_bytes()).operators()] == ["CUSTOM"]
    assert b"ethos-u" in made.file.read_bytes()
    assert made.cycles > 0
    assert made.milliseconds == pytest.approx(made.cycles / (made.clock_mhz * 1000))
    assert made.sram_bytes > 0
    assert made.compiler.startswith("ethos-u-vela ")


@pytest.mark.slow
@with_vela
def test_a_larger_npu_needs_fewer_cycles(small_files, tmp_path):
    cycles = [compile_file(small_files["int8"], f"ethos-u55-{macs}", tmp_path).cycles for macs in (32, 256)]
    assert cycles[1] < cycles[0]


@pytest.mark.slow
@with_vela
def test_operators_that_stay_on_the_cpu_are_named_with_the_compilers_reason(pixels, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 127.5, -1)(x))
    x = layers.Conv2D(8, 3, strides=2)(layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    path = to_tflite(model, "int8", calibration=pixels).save(tmp_path / "normalized.tflite")
    made = compile_file(path, U55, tmp_path)
    assert {operator.kind for operator in made.cpu_operators} == {"MEAN"}
    assert all("depth" in operator.reason for operator in made.cpu_operators)
    assert made.npu_operators + len(made.cpu_operators) == len(list(Graph(path.read_bytes()).operators()))


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (None, "ethos-u55-265", r"unknown target of a compiler.*Did you mean 'ethos-u\d+-256'"),
        (None, U55, r"must be an integer one: edge-cv convert --scheme int8"),
        (b"junk", U55, "TFLite"),
    ],
    ids=["unknown target", "float file", "no TFLite file"],
)
def test_what_cannot_be_compiled_is_refused_in_one_line(edge_cv, small_files, tmp_path, content, target, message):
    path = tmp_path / "model.tflite"
    path.write_bytes(small_files["float32"].read_bytes() if content is None else content)
    code, out, err = edge_cv("compile", path, "--target", target, "--out", tmp_path / "npu")
    assert (code, out, err.count("\n")) == (2, "", 1)
    with pytest.raises(InputError, match=message):
        compile_file(path, target, tmp_path / "npu")
    assert not (tmp_path / "npu").exists()


FAILURES = {
    "crashes": ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
    "fails": ("raise SystemExit('Error: no such operator')", "Error: no such operator"),
    "hangs": ("import time; time.sleep(600)", "must compile for ethos-u55-256 within"),
    "writes nothing": ("", "wrote only a part"),
    "writes half": (
        "import os, sys; out = sys.argv[-1]; os.makedirs(out); open(out + '/model_vela.tflite', 'w').write('TFL')",
        "wrote only a part",
    ),
}


@with_vela
@pytest.mark.parametrize("way", FAILURES)
def test_a_compiler_that_fails_leaves_nothing_behind(small_files, tmp_path, monkeypatch, way):
    program, message = FAILURES[way]
    package = tmp_path / "python" / "ethosu" / "vela"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    monkeypatch.setattr(vela, "TIMEOUT_SECONDS", 1 if way == "hangs" else 60)
    with pytest.raises(InputError, match=message):
        compile_file(small_files["int8"], U55, tmp_path / "npu")
    assert not (tmp_path / "npu").exists()


def test_a_missing_compiler_is_named_with_how_to_install_it(small_files, tmp_path, monkeypatch):
    monkeypatch.setattr(vela, "package_versions", lambda names: {})
    with pytest.raises(InputError, match=r"needs the package ethos-u-vela: pip install 'edge-cv\[ethos-u\]'"):
        compile_file(small_files["int8"], U55, tmp_path)


@with_vela
def test_the_command_prints_a_table_or_json(edge_cv, small_files, tmp_path):
    command = ("compile", small_files["int8"], "--target", U55, "--target", "ethos-u85-256", "--out", tmp_path)
    code, out, _ = edge_cv(*command, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["target"] for row in rows] == [U55, "ethos-u85-256"]
    for row in rows:
        assert {"cycles", "clock_mhz", "npu_operators", "sram_bytes", "flash_bytes"} <= set(row)
        assert row["cpu_operators"] == []
        assert Path(row["file"]).is_file()
    code, out, _ = edge_cv("compile", small_files["int8"], "--target", U55, "--out", tmp_path)
    assert code == 0
    assert "estimated by ethos-u-vela" in out


def test_the_targets_are_all_sizes_of_arms_three_npus():
    sizes = {"u55": (32, 64, 128, 256), "u65": (256, 512), "u85": (128, 256, 512, 1024, 2048)}
    assert set(vela.COMPILER.targets) == {f"ethos-{npu}-{macs}" for npu, all_macs in sizes.items() for macs in all_macs}


@pytest.mark.slow
@with_vela
@pytest.mark.parametrize(
    ("name", "size", "alpha"),
    [("mobilenet_v1", 96, 0.25), ("mobilenet_v2", 96, 0.35), ("efficientnet_lite0", 64, None)],
)
def test_the_zoos_networks_for_npus_compile_with_no_operator_on_the_cpu(name, size, alpha, tmp_path):
    import keras

    from edge_cv import models

    keras.utils.set_random_seed(0)
    model = models.build(name, classes=10, image_size=size, **({} if alpha is None else {"alpha": alpha}))
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    path = to_tflite(model, "int8", calibration=images).save(tmp_path / f"{name}.tflite")
    assert compile_file(path, U55, tmp_path).cpu_operators == ()
