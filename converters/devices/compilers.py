"""The vendors' own compilers: what becomes of a file on an NPU, before one owns the device.

Each compiler is a `Compiler` value in a file of its own; `compile_file` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.devices import rknn, vela
from converters.devices.compiled import Compiled, Compiler, Job, Result, Simulation
from converters.errors import InputError, unknown
from converters.files import temporary_folder, write_atomic
from converters.parity import compare
from converters.tflite.runtime import predict_onnx

COMPILERS: tuple[Compiler, ...] = (vela.COMPILER, rknn.COMPILER)
TARGETS: Mapping[str, Compiler] = {target: compiler for compiler in COMPILERS for target in compiler.targets}


def compile_file(
    path: str | Path,
    target: str,
    out: str | Path,
    *,
    calibration: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> Compiled:
    """Compile a file for an NPU, and read what the compiler says of it.

    Args:
        path: an integer .tflite file for Ethos-U, a float .onnx file for Rockchip's NPUs.
        target: a key of `TARGETS`, such as `ethos-u55-256` or `rk3588`.
        out: folder for the compiled file, `<name>_<target>` with the compiler's suffix.
        calibration: float32 images `(n, height, width, channels)` as the file takes them, on which the compiler
            quantizes a float file to int8; the compiled file's name then ends in `_int8`.
        images: images of the same form for the vendor's simulator, whose outputs are compared with the file's.

    Raises:
        InputError: the target is unknown, the file is not one that its compiler reads, the compiler is not installed,
            fails or takes too long, or it has no use for images. Nothing is written then.
    """
    path = Path(path)
    check_target(target)
    compiler = TARGETS[target]
    if path.suffix != compiler.reads or not path.is_file():
        raise InputError(
            f"the file to compile for {target} must be a {compiler.reads} file that exists. Received: {path}"
        )
    if not compiler.quantizes and not (calibration is None and images is None):
        raise InputError(
            f"photos are for compilers that quantize or simulate. Received: photos for {target}, whose compiler "
            f"{compiler.package} does neither"
        )
    content = path.read_bytes()
    compiler.check(path, content)
    _, version = installed_compiler(target)
    with temporary_folder() as folder:
        source = Path(folder) / f"model{compiler.reads}"  # the compiler need not take every name of a file
        source.write_bytes(content)
        result = compiler.run(Job(source, target, calibration, images))
        simulation = None if images is None else _simulation(content, images, result)
        compiled = result.file.read_bytes()
    quantized = "" if calibration is None else "_int8"
    return Compiled(
        target=target,
        file=write_atomic(Path(out) / f"{path.stem}_{target}{quantized}{compiler.writes}", compiled),
        compiler=f"{compiler.package} {version}",
        command=result.command,
        simulation=simulation,
        **result.figures(),
    )


def _simulation(content: bytes, images: np.ndarray, result: Result) -> Simulation:
    """The simulator's outputs compared with those of the .onnx file in ONNX Runtime."""
    expected = predict_onnx(content, images)
    outputs = result.outputs
    if outputs is None or outputs.shape != expected.shape or not np.isfinite(outputs).all():
        received = (
            "none" if outputs is None else f"outputs {outputs.shape} with {np.isfinite(outputs).mean():.0%} finite"
        )
        raise InputError(f"the simulator must have finite outputs {expected.shape}. Received: {received}")
    found = compare(expected, outputs)
    return Simulation(len(images), found.top1_agreement, found.sqnr_db)


def check_target(target: str) -> None:
    """Raise InputError unless a compiler compiles for the target."""
    if target not in TARGETS:
        raise unknown("target of a compiler", target, TARGETS)


def installed_compiler(target: str) -> tuple[Compiler, str]:
    """The compiler of a known target and its version; InputError if it is not installed."""
    compiler = TARGETS[target]
    version = compiler.version()
    if version is None:
        raise InputError(f"compiling for {target} needs the package {compiler.package}: {compiler.install}")
    return compiler, version
