"""Rockchip's compiler RKNN-Toolkit2 for the NPUs of RK3566, RK3568, RK3576 and RK3588, and its simulator.

https://pypi.org/project/rknn-toolkit2. It needs older packages than this project, so that it runs in an environment of
its own, which `environment.install` makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np

from converters.devices.compiled import Compiler, CpuOperator, Job, Result
from converters.devices.environment import Environment
from converters.errors import InputError
from converters.packages import require

SECONDS, SECONDS_PER_IMAGE = 600, 20
MEMORY_BYTES = (
    20_000_000_000  # of addresses: torch alone reserves 8 GB; 0.8 GB of memory are in use for 19 MB of weights
)
FILE_BYTES = 4_000_000_000  # the largest file that it may write
_LOG_BYTES = 8_000_000
_KIB = 1024
_FLOAT32 = 1  # in ONNX
# A row of the log's table of layers: number, kind, type, processor, shapes, cycles by cause, and the name at the end.
_LAYER = re.compile(r"^D RKNN: \[[^\]]*\] +\d+ +(\S+) +\S+ +(CPU|NPU|GPU) .* \d+/\d+/(\d+) .*?(\S+)\s*$", re.MULTILINE)
_MEMORY = re.compile(r"^D RKNN: .*Total (?:Internal|Weight) Memory Size: ([\d.]+)KB", re.MULTILINE)

ENVIRONMENT = Environment(
    name="rknn",
    package="rknn-toolkit2",
    pythons=("3.11", "3.12", "3.10"),
    steps=(
        (
            *("numpy==1.26.4", "onnx==1.18.0", "onnxruntime<1.27", "protobuf==4.25.4", "setuptools<81", "scipy<1.18"),
            *("opencv-python-headless<4.12", "fast-histogram<1", "psutil", "ruamel.yaml", "tqdm"),
        ),
        ("torch==2.4.0",),
        ("--no-deps", "rknn-toolkit2==2.5.0"),
    ),
    module="rknn.api",
    free_bytes=12_000_000_000,  # 5.5 GB stay
)


def check(path: Path, content: bytes) -> None:
    """Raise InputError unless the file is a float ONNX file with one input of a fixed shape."""
    require("compiling an ONNX file", "onnx")
    import onnx

    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf has classes of its own
        raise InputError(f"the file to compile must be an ONNX file. Received: {path}, which cannot be read") from error
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [given for given in graph.input if given.name not in weights]
    types = [given.type.tensor_type for given in inputs]
    shapes = [[side.dim_value for side in kind.shape.dim] for kind in types]
    if (
        len(inputs) != 1
        or types[0].elem_type != _FLOAT32
        or not all(side > 0 for side in shapes[0])
        or shapes[0][0] != 1
    ):
        raise InputError(
            "the file to compile must have one float32 input of a fixed shape and batch 1: edge-cv convert --onnx "
            f"writes it so. Received: {path}, with inputs {shapes}"
        )
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        raise InputError(
            f"the file to compile must be a float one: the compiler quantizes it itself. Received: {path}, an int8 file"
        )


def run(job: Job) -> Result:
    """Compile an ONNX file, and run it in the simulator if there are images; the results are written beside the file.

    Raises:
        InputError: the toolkit fails, with its own reason, takes too long, or writes only a part.
    """
    folder = job.file.parent
    compiled, log = folder / "model.rknn", folder / "log.txt"
    paths = {name: folder / file for name, file in (("outputs", "outputs.npy"), ("error", "error.txt"))}
    fields = {
        "model": str(job.file),
        "target": job.target,
        "compiled": str(compiled),
        "memory_bytes": MEMORY_BYTES,
        "file_bytes": FILE_BYTES,
        "calibration": _saved(job.calibration, folder / "calibration.npy"),
        "images": _saved(job.images, folder / "images.npy"),
        **{name: str(path) for name, path in paths.items()},
    }
    (folder / "job.json").write_text(json.dumps(fields), encoding="utf-8")
    seconds = SECONDS + SECONDS_PER_IMAGE * (0 if job.images is None else len(job.images))
    code = _execute(folder, log, seconds, job.target)
    if code:
        why = _read(paths["error"]).strip() or f"its process ends with code {code}"
        raise InputError(f"RKNN-Toolkit2 cannot compile the file for {job.target}: {' '.join(why.split())[:300]}")
    text = _read(log)
    layers = [layer for layer in _LAYER.findall(text) if layer[0] not in ("InputOperator", "OutputOperator")]
    if not compiled.is_file() or compiled.stat().st_size == 0 or not layers:
        raise InputError(
            f"RKNN-Toolkit2 must write a compiled file and a table of its layers for {job.target}. It wrote only a "
            "part of them"
        )
    memory = [float(size) for size in _MEMORY.findall(text)]
    left = [
        CpuOperator(kind, _layer(name), "the compiler gives no reason")
        for kind, place, _, name in layers
        if place == "CPU"
    ]
    return Result(
        file=compiled,
        command=("python", "rknn_runner.py", "job.json"),
        npu_operators=sum(1 for _, place, _, _ in layers if place == "NPU"),
        cpu_operators=tuple(left),
        cycles=sum(int(cycles) for _, _, cycles, _ in layers) or None,
        dram_bytes=round(sum(memory[-2:]) * _KIB) if len(memory) > 1 else None,
        outputs=_outputs(paths["outputs"]) if job.images is not None else None,
    )


def _execute(folder: Path, log: Path, seconds: int, target: str) -> int:
    """Run the job in the environment's Python; returns its exit code."""
    runner = Path(__file__).with_name("rknn_runner.py")
    command = [str(ENVIRONMENT.python), "-I", str(runner), str(folder / "job.json")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"RKNN-Toolkit2 must compile for {target} within {seconds} s. It was stopped") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _saved(images: np.ndarray | None, path: Path) -> str | None:
    if images is None:
        return None
    np.save(path, images.astype(np.float32, copy=False))
    return str(path)


def _read(path: Path) -> str:
    """The beginning of a text that the toolkit wrote; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_LOG_BYTES).decode(errors="replace")


def _outputs(path: Path) -> np.ndarray | None:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None


def _layer(name: str) -> str:
    """The name of a layer, of `Kind:name`."""
    return name.partition(":")[2] or name


COMPILER = Compiler(
    package=ENVIRONMENT.package,
    install="edge-cv compile --install rknn",
    targets=("rk3566", "rk3568", "rk3576", "rk3588"),
    reads=".onnx",
    writes=".rknn",
    quantizes=True,
    version=ENVIRONMENT.version,
    check=check,
    run=run,
)
