"""Rockchip's compiler: the real one where its environment was made, and programs in its place that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters import Preprocessing, to_onnx
from converters.devices import rknn
from converters.devices.compilers import compile_file
from converters.errors import InputError

TARGET = "rk3588"
with_rknn = pytest.mark.skipif(
    rknn.ENVIRONMENT.version() is None, reason=f"rknn-toolkit2 is not installed ({rknn.COMPILER.install})"
)

# A compiler of the same interface: it writes a file, prints the table of layers, and answers zeros.
WORKS = """
from pathlib import Path
import numpy as np
class RKNN:
    def __init__(self, verbose): pass
    def config(self, target_platform): return 0
    def load_onnx(self, model): return 0
    def build(self, do_quantization, dataset):
        row = "D RKNN: [12:00:00.000] %s FLOAT16 %s (1,32,32,3),(8,3,3,3) (1,8,16,16) 5/%d/%d 12 %s"
        print(row % ("0    InputOperator", "CPU", 0, 0, "InputOperator:pixels"))
        print(row % ("1    ConvClip     ", "NPU", 700, 700, "Conv:stem"))
        print(row % ("2    Sinh", "CPU", 0, 0, "Sinh:odd"))
        print("D RKNN: [12:00:00.000] Total Internal Memory Size: 2KB")
        print("D RKNN: [12:00:00.000] Total Weight Memory Size: 1.5KB")
        self.lines = dataset and Path(dataset).read_text().splitlines()
        return 0
    def export_rknn(self, path): Path(path).write_bytes(b"RKNN"); return 0
    def init_runtime(self): return 0
    def inference(self, inputs, data_format): return [np.zeros((1, 10), np.float32)]
"""
FAILURES = {
    "crashes": ("config", "import os; os.kill(os.getpid(), 11)", "its process ends with code -11"),
    "fails": (
        "build",
        "raise ValueError('\\x1b[31mTraceback\\nNo lowering found for: odd\\x1b[0m')",
        "No lowering found",
    ),
    "returns an error": ("load_onnx", "return -1", "load_onnx returned -1"),
    "hangs": ("build", "import time; time.sleep(600)", "must compile for rk3588 within"),
    "writes nothing": ("export_rknn", "return 0", "wrote only a part"),
    "takes all memory": ("build", "import numpy; numpy.ones(10**10)", "cannot compile the file for rk3588"),
    "fills the disk": ("build", "open('big', 'wb').write(bytes(2 * 10**7))", "cannot compile the file for rk3588"),
}


@pytest.fixture(scope="module")
def small_onnx(small_model, tmp_path_factory) -> Path:
    conversion = to_onnx(small_model, "float32", preprocessing=Preprocessing(32))
    return conversion.save(tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture(scope="module")
def images(pixels) -> np.ndarray:
    return pixels.astype(np.float32)


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A function that puts an environment with a given `rknn.api` into the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(program: str) -> None:
        folder = rknn.ENVIRONMENT.folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/python3.*/site-packages")
        package = site / "rknn"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "api.py").write_text(program)
        (site / "rknn_toolkit2-9.9.9.dist-info").mkdir()
        (site / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))

    return made


def test_what_the_compiler_says_is_read_from_its_log(toolkit, small_onnx, images, tmp_path, edge_cv):
    toolkit(WORKS)
    made = compile_file(small_onnx, TARGET, tmp_path / "npu", images=images[:3])
    assert made.file == tmp_path / "npu" / "small_rk3588.rknn"
    assert made.file.read_bytes() == b"RKNN"
    assert made.compiler == "rknn-toolkit2 9.9.9"
    assert (made.npu_operators, [(one.kind, one.layer) for one in made.cpu_operators]) == (1, [("Sinh", "odd")])
    assert (made.cycles, made.dram_bytes) == (700, 3584)
    assert (made.clock_mhz, made.milliseconds, made.sram_bytes, made.flash_bytes) == (None, None, None, None)
    assert (made.simulation.images, made.simulation.sqnr_db) == (3, pytest.approx(0.0))  # zeros: all of it is noise
    quantized = compile_file(small_onnx, TARGET, tmp_path / "npu", calibration=images[:4])
    assert quantized.file.name == "small_rk3588_int8.rknn"
    assert quantized.simulation is None
    code, out, _ = edge_cv("compile", small_onnx, "--target", TARGET, "--out", tmp_path / "npu", "--json")
    assert code == 0
    (row,) = json.loads(out)
    keys = {"target", "cycles", "clock_mhz", "npu_operators", "cpu_operators", "sram_bytes", "flash_bytes"}
    assert keys <= set(row)
    assert row["clock_mhz"] is None
    code, out, _ = edge_cv("compile", small_onnx, "--target", TARGET, "--out", tmp_path / "npu")
    assert code == 0
    assert "rk3588: Sinh odd stays on the CPU: the compiler gives no reason" in out


@pytest.mark.parametrize("way", FAILURES)
def test_a_compiler_that_fails_leaves_nothing_behind(toolkit, small_onnx, tmp_path, monkeypatch, edge_cv, way):
    method, body, message = FAILURES[way]
    arguments = {"config": "target_platform", "load_onnx": "model", "build": "do_quantization, dataset"}
    toolkit(f"{WORKS}\nclass RKNN(RKNN):\n    def {method}(self, {arguments.get(method, 'path')}): {body}\n")
    monkeypatch.setattr(rknn, "SECONDS", 1 if way == "hangs" else 60)
    monkeypatch.setattr(rknn, "MEMORY_BYTES", 2 * 10**10)
    monkeypatch.setattr(rknn, "FILE_BYTES", 10**7)
    with pytest.raises(InputError, match=message):
        compile_file(small_onnx, TARGET, tmp_path / "npu")
    code, out, err = edge_cv("compile", small_onnx, "--target", TARGET, "--out", tmp_path / "npu")
    assert (code, out) == (2, "")
    assert err.startswith("edge-cv: RKNN-Toolkit2 ")
    assert err.count("\n") == 1
    assert not (tmp_path / "npu").exists()


@pytest.mark.parametrize("answer", ["np.zeros((1, 9), np.float32)", "np.full((1, 10), np.nan)"])
def test_a_simulator_whose_outputs_cannot_be_compared_is_refused(toolkit, small_onnx, images, tmp_path, answer):
    toolkit(WORKS.replace("np.zeros((1, 10), np.float32)", answer))
    with pytest.raises(InputError, match="the simulator must have finite outputs"):
        compile_file(small_onnx, TARGET, tmp_path / "npu", images=images[:2])
    assert not (tmp_path / "npu").exists()


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(small_onnx, tmp_path, monkeypatch, edge_cv):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code, out, err = edge_cv("compile", small_onnx, "--target", TARGET, "--out", tmp_path / "npu")
    assert (code, out) == (2, "")
    assert err == "edge-cv: compiling for rk3588 needs the package rknn-toolkit2: edge-cv compile --install rknn\n"
    assert not (tmp_path / "npu").exists()


def test_files_that_the_compiler_does_not_read_are_refused(small_files, small_onnx, images, tmp_path, edge_cv):
    import onnx

    junk, free, quantized = (tmp_path / f"{name}.onnx" for name in ("junk", "free", "quantized"))
    junk.write_bytes(b"junk")
    graph = onnx.load(small_onnx)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(graph, free)
    graph = onnx.load(small_onnx)
    graph.graph.node[0].op_type = "QuantizeLinear"
    onnx.save(graph, quantized)
    for path, message in (
        (junk, "must be an ONNX file"),
        (free, "one float32 input of a fixed shape and batch 1"),
        (quantized, "must be a float one"),
        (small_files["int8"], r"for rk3588 must be a \.onnx file"),
        (tmp_path / "missing.onnx", r"for rk3588 must be a \.onnx file that exists"),
    ):
        with pytest.raises(InputError, match=message):
            compile_file(path, TARGET, tmp_path / "npu")
    with pytest.raises(InputError, match="Did you mean 'rk3588'"):
        compile_file(small_onnx, "rk3589", tmp_path / "npu")
    with pytest.raises(InputError, match="photos are for compilers that quantize or simulate"):
        compile_file(small_files["int8"], "ethos-u55-64", tmp_path / "npu", images=images)
    for arguments in (("--install", "rkn"), ("--install", "rknn", "--target", TARGET), (), (small_onnx,)):
        code, out, err = edge_cv("compile", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "npu").exists()


@pytest.mark.slow
@with_rknn
def test_the_real_simulator_agrees_in_float16_and_in_int8(small_onnx, images, tmp_path):
    made = compile_file(small_onnx, TARGET, tmp_path, images=images[:8])
    assert made.simulation.top1_agreement == 1
    assert made.simulation.sqnr_db > 40
    assert made.cycles > 0
    assert made.dram_bytes > 0
    assert {operator.kind for operator in made.cpu_operators} <= {"Reshape"}
    quantized = compile_file(small_onnx, TARGET, tmp_path, calibration=images[8:], images=images[:8])
    assert 15 < quantized.simulation.sqnr_db < made.simulation.sqnr_db
    assert quantized.file.read_bytes() != made.file.read_bytes()


@pytest.mark.slow
@with_rknn
@pytest.mark.parametrize("target", [name for name in rknn.COMPILER.targets if name != TARGET])
def test_the_real_compiler_compiles_for_every_chip(small_onnx, tmp_path, target):
    assert compile_file(small_onnx, target, tmp_path).npu_operators > 0


@pytest.mark.slow
@with_rknn
def test_a_keras_file_is_converted_first(small_model, photos, tmp_path, edge_cv):
    small_model.save(tmp_path / "small.keras")
    code, out, err = edge_cv(
        *("compile", tmp_path / "small.keras", "--target", TARGET, "--out", tmp_path, "--data", photos, "--limit", 4),
        *("--resize", "stretch", "--json"),
    )
    assert code == 0, err
    (row,) = json.loads(out)
    assert row["simulation"]["images"] == 4
    assert row["simulation"]["top1_agreement"] == 1
    assert Path(row["file"]).name == "small_onnx_float32_rk3588.rknn"
