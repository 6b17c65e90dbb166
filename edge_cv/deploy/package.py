"""What a run makes for its target device: the rules that its file was held to, and the forms it is wanted in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.devices.diagnostics import Diagnostic, Memory
from converters.errors import InputError
from converters.files import write_together
from edge_cv.recipe import Recipe, TargetDevice

MICRO = "micro"


@dataclass(frozen=True)
class Delivery:
    """One device's file.

    Attributes:
        name, processor, runtime, scheme, target: of the recipe's `TargetDevice`.
        findings: the target's rules that the file breaks without being refused.
        memory: on a microcontroller; else None.
        files: what else was made of the file, as paths from the run's folder.
    """

    name: str
    processor: str
    runtime: str
    scheme: str
    target: str | None = None
    findings: tuple[Diagnostic, ...] = ()
    memory: Memory | None = None
    files: tuple[str, ...] = ()


def check_deliverable(recipe: Recipe) -> None:
    """Raise InputError for what could not be delivered in the end, before the first stage of the run."""
    device = recipe.device
    if device is None:
        return
    if device.package == "android":
        from edge_cv.deploy.android import check_app

        check_app()
    elif device.package == "web":
        _check_page(recipe.io, device.scheme)


def _check_page(io: str, scheme: str) -> None:
    from edge_cv.deploy.web import litertjs
    from edge_cv.deploy.web.export import TYPES

    integer = scheme.endswith(("int8", "int16x8", "mixed")) and not scheme.endswith("dynamic_int8")
    if integer and io not in TYPES:
        raise InputError(f"a recipe with a page of {scheme} must have io float32 or uint8. Received: {io}")
    litertjs.fetch()


def deliver(device: TargetDevice, path: Path, folder: Path) -> Delivery:
    """Hold a device's file to its rules, and make of it what else the recipe wants.

    Args:
        device: of the recipe.
        path: the file of the device's row.
        folder: the run's, where everything goes but what the Android app gets.

    Raises:
        InputError: it cannot be made, or not be written.
    """
    from converters.devices import micro, targets

    content = path.read_bytes()
    findings, memory = (), None
    if path.suffix == ".tflite":
        if device.target is not None:
            findings = targets.check(content, device.target)
        if device.target == MICRO:
            memory = micro.memory(content)
    files = () if device.package is None else _FORMS[device.package](path, folder)
    names = tuple(os.path.relpath(file, folder) for file in files)
    named = (device.name, device.processor, device.runtime, device.scheme, device.target)
    return Delivery(*named, findings, memory, names)


def _c_array(path: Path, folder: Path) -> list[Path]:
    """The file as a C array."""
    from converters.devices.micro import c_array

    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    header, source = c_array(path.read_bytes(), name)
    written = {folder / f"{name}.h": header, folder / f"{name}.cc": source}
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
