"""The package for a recipe's target device: its file, checked against the device's rules, and further forms of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.devices.compiled import Estimate
from converters.devices.diagnostics import Diagnostic, Memory
from converters.errors import InputError
from converters.files import write_together
from edge_cv.recipe import Recipe, TargetDevice

if TYPE_CHECKING:
    import numpy as np

MICRO = "micro"


@dataclass(frozen=True)
class Package:
    """What a run made for its target device.

    Attributes:
        name, processor, runtime, scheme, target: as in the recipe's `TargetDevice`.
        findings: the target's rules that the file breaks without being refused.
        memory: the memory that a microcontroller needs; None for other devices.
        estimate: what the compiler of the recipe's NPU expects; None for other devices.
        files: further files made from the device's file, as paths from the run's folder.
    """

    name: str
    processor: str
    runtime: str
    scheme: str
    target: str | None = None
    findings: tuple[Diagnostic, ...] = ()
    memory: Memory | None = None
    files: tuple[str, ...] = ()
    estimate: Estimate | None = None


def check_package(recipe: Recipe) -> None:
    """Raise InputError for a package that could not be made at the end, before the first step of the run."""
    device = recipe.device
    if device is None:
        return
    if device.compiler is not None:
        from converters.devices.compilers import installed_compiler

        installed_compiler(device.compiler)
    if device.package == "android":
        from edge_cv.deploy.android import check_app

        check_app()
    elif device.package == "web":
        _check_page(recipe, device)


def _check_page(recipe: Recipe, device: TargetDevice) -> None:
    from converters.schemes import parse
    from edge_cv.deploy.web import litertjs
    from edge_cv.deploy.web.export import TYPES

    (output,) = (output for output in recipe.outputs() if output.name == device.scheme)
    if parse(output.scheme).integer and recipe.io not in TYPES:
        raise InputError(
            f"a recipe with a page of {device.scheme} must have io float32 or uint8. Received: {recipe.io}"
        )
    litertjs.fetch()


def package(
    device: TargetDevice,
    path: Path,
    folder: Path,
    *,
    calibration: np.ndarray | None = None,
    images: np.ndarray | None = None,
) -> Package:
    """Check a device's file against its rules, and make the form of it that the recipe asks for.

    Args:
        device: the recipe's device.
        path: the file of the device's row.
        folder: the run's folder, where all files are written except those of the Android app.
        calibration, images: for the device's compiler, as `converters.devices.compilers.compile_file` takes them.

    Raises:
        InputError: the form cannot be made or written.
    """
    from converters.devices import micro, targets
    from converters.devices.compilers import compile_file

    content = path.read_bytes()
    findings: tuple[Diagnostic, ...] = ()
    memory: Memory | None = None
    if path.suffix == ".tflite":
        if device.target is not None:
            findings = tuple(targets.check(content, device.target))
        if device.target == MICRO:
            memory = micro.memory(content)
    photos = {"calibration": calibration, "images": images}
    compiled = None if device.compiler is None else compile_file(path, device.compiler, folder, **photos)
    deployed = path if compiled is None else compiled.file
    files = [] if compiled is None else [compiled.file]
    files += [] if device.package is None else _FORMS[device.package](deployed, folder)
    names = tuple(os.path.relpath(file, folder) for file in files)
    fields = (device.name, device.processor, device.runtime, device.scheme, device.target)
    estimate = None if compiled is None else compiled.at(device.clock_mhz)
    return Package(*fields, findings, memory, names, estimate)


def _c_array(path: Path, folder: Path) -> list[Path]:
    """The file as a C array, and the program around it."""
    from converters.devices.micro_program import program

    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    written = {folder / file: text for file, text in program(path, name).items()}
    write_together(written)
    return list(written)


def _web(path: Path, folder: Path) -> list[Path]:
    """The page for the browser, in `web/`."""
    from edge_cv.deploy.web import export

    return export(path, folder / "web")[:1]


def _android(path: Path, folder: Path) -> list[Path]:
    """A copy among the Android app's models."""
    from edge_cv.deploy.android import install

    return install([path])


_FORMS: dict[str, Callable[[Path, Path], list[Path]]] = {"c_array": _c_array, "web": _web, "android": _android}
