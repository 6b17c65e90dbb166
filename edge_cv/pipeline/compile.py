"""Compile a file for an NPU, with photos for compilers that quantize and simulate: `edge-cv compile`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.files import temporary_folder
from edge_cv.pipeline.inputs import CalibrationImages, samples_key
from edge_cv.progress import Progress, silent
from edge_cv.recipe import TargetDevice
from edge_cv.stages import Steps

if TYPE_CHECKING:
    import numpy as np

    from converters.devices.compiled import Compiled
    from edge_cv.data import Samples
    from edge_cv.deploy.package import Package

SIMULATED_PHOTOS = 100  # of a run, in a vendor's simulator, which takes 0.2 s for each


def compile_model(
    path: Path,
    target: str,
    out: Path,
    *,
    calibration: str | None = None,
    data: str | None = None,
    limit: int = 100,
    declaration: Declaration = NOTHING,
    progress: Progress = silent,
) -> Compiled:
    """Compile a file for an NPU by its vendor's compiler.

    Args:
        path: the file. A model that `edge-cv convert` reads is converted to ONNX first where the compiler reads ONNX.
        target: the NPU.
        out: folder for the compiled file.
        calibration: photos, by name or folder, on which the compiler quantizes a float file to int8.
        data: photos for the vendor's simulator.
        limit: largest number of photos of each.
        declaration: what the caller says about a file that does not declare it.
        progress: shows what is being done.

    Raises:
        InputError: as `converters.devices.compilers.compile_file`, or the photos cannot be opened.
    """
    from converters.devices.compilers import TARGETS, check_target, installed_compiler
    from edge_cv.data import open_samples

    check_target(target)
    compiler = TARGETS[target]
    if not path.exists():
        raise InputError(f"the file to compile must exist. Received: {path}")
    photos = [None if name is None else open_samples(name).take(limit) for name in (calibration, data)]
    if compiler.reads != ".onnx" or path.suffix == ".onnx":
        return compile_on_photos(path, target, out, *photos, declaration=declaration, progress=progress)
    installed_compiler(target)  # before the conversion
    with temporary_folder() as folder:
        file = _to_onnx(path, Path(folder), progress)
        return compile_on_photos(file, target, out, *photos, declaration=declaration, progress=progress)


def compile_on_photos(
    path: Path,
    target: str,
    out: Path,
    calibration: Samples | None,
    photos: Samples | None,
    *,
    declaration: Declaration = NOTHING,
    progress: Progress = silent,
) -> Compiled:
    """As `compile_model`, for a file that the compiler reads, and open photos."""
    from converters.devices.compilers import compile_file

    calibration_inputs, inputs = (_inputs(path, samples, declaration, progress) for samples in (calibration, photos))
    simulating = "" if inputs is None else f" and simulating it on {len(inputs)} photos"
    with progress(f"compiling {path.name} for {target}{simulating}"):
        return compile_file(path, target, out, calibration=calibration_inputs, images=inputs)


def _inputs(path: Path, photos: Samples | None, declaration: Declaration, progress: Progress) -> np.ndarray | None:
    """The inputs of all photos `(n, height, width, channels)`, as the file takes them."""
    from edge_cv.pipeline.conform import model_inputs, opened

    if photos is None:
        return None
    model, metadata = opened(path, path.read_bytes(), declaration)
    with progress(f"decoding {len(photos)} photos"):
        return model_inputs(path, model, metadata, photos)


def _to_onnx(path: Path, folder: Path, progress: Progress) -> Path:
    """A model as a float ONNX file with its record."""
    from edge_cv.pipeline.convert import ConversionRequest, convert_model

    (converted,) = convert_model(ConversionRequest(str(path), [], onnx=["float32"]), folder, progress=progress)
    return converted.path


def simulated_package(
    steps: Steps,
    device: TargetDevice,
    path: Path,
    sha256: str,
    calibration: CalibrationImages,
    test: Samples,
    progress: Progress = silent,
) -> Package | None:
    """The package of a run's file whose compiler quantizes and simulates, in a cached step; None for other compilers.

    Args:
        steps: of the run.
        device: the recipe's device.
        path, sha256: the device's file.
        calibration: on which the compiler quantizes, if the device says so.
        test: photos for the simulator, of which it takes the first `SIMULATED_PHOTOS`.
        progress: shows what is being done.

    Raises:
        InputError: as `converters.devices.compilers.compile_file`.
    """
    from converters.devices.compilers import installed_compiler
    from converters.strict_json import typed
    from edge_cv.deploy.package import Package, package

    if device.compiler is None:
        return None
    compiler, version = installed_compiler(device.compiler)
    if not compiler.quantizes:
        return None
    test = test.take(SIMULATED_PHOTOS)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.report.plain_json import plain_json

        images = _inputs(path, test, NOTHING, progress)
        given = calibration.images.astype("float32") if device.quantize else None
        with progress(f"packaging {path.name} for {device.name}, simulated on {len(test)} photos"):
            made = package(device, path, steps.folder, calibration=given, images=images)
        return plain_json(made), [steps.folder / name for name in made.files]

    key = [sha256, dataclasses.asdict(device), samples_key(test), calibration.key if device.quantize else None, version]
    return typed(Package, steps.cached("package", key, work)[0], "the package")
