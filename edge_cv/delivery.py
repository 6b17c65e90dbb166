"""What a run makes for its target device: the rules that its file was held to, and the forms it is wanted in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.files import write_atomic
from edge_cv.recipe import Device, Recipe

MICRO = "micro"


@dataclass(frozen=True)
class Finding:
    """What of a file a device runs slowly or elsewhere, as `converters.targets.Finding` has it."""

    level: str
    what: str
    remedy: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """What a file needs of a microcontroller, as `converters.micro.Memory` has it."""

    activations_bytes: int
    records_bytes: int
    flash_bytes: int
    widest: str

    @property
    def arena_bytes(self) -> int:
        """What `tensor_arena` must have at least."""
        return self.activations_bytes + self.records_bytes


@dataclass(frozen=True)
class Delivery:
    """One device's file.

    Attributes:
        name, processor, runtime, scheme, target: of the recipe's `Device`.
        findings: the target's rules that the file breaks without being refused.
        memory: on a microcontroller; else None.
        files: what else was made of the file, by their names in the run's folder.
    """

    name: str
    processor: str
    runtime: str
    scheme: str
    target: str | None = None
    findings: tuple[Finding, ...] = ()
    memory: Memory | None = None
    files: tuple[str, ...] = ()


def check_deliverable(recipe: Recipe) -> None:
    """Raise InputError for what could not be delivered in the end, before the first stage of the run."""
    device = recipe.device
    if device is None or device.delivery != "web":
        return
    from edge_cv.web import litertjs
    from edge_cv.web.export import TYPES

    integer = device.scheme.endswith(("int8", "int16x8", "mixed")) and not device.scheme.endswith("dynamic_int8")
    if integer and recipe.io not in TYPES:
        raise InputError(
            f"a recipe with a page of {device.scheme} must have io float32 or uint8. Received: {recipe.io}"
        )
    litertjs.fetch()


def made_with(device: Device) -> Any:
    """What else a delivery depends on, beside the device's file."""
    if device.delivery != "web":
        return None
    from edge_cv.web import litertjs, sources

    return [sources(), litertjs.VERSION]


def deliver(device: Device, path: Path, folder: Path) -> tuple[Delivery, list[Path]]:
    """Hold a device's file to its rules, and make of it what else the recipe wants.

    Args:
        device: of the recipe.
        path: the file of the device's row.
        folder: the run's, where everything goes.

    Returns:
        What was found, and the files that were written.
    """
    from converters import micro, targets

    content = path.read_bytes()
    findings, memory = (), None
    if path.suffix == ".tflite":
        if device.target is not None:
            findings = tuple(Finding(**asdict(found)) for found in targets.check(content, device.target))
        if device.target == MICRO:
            memory = Memory(**asdict(micro.memory(content)))
    files, shown = ([], 0) if device.delivery is None else _FORMS[device.delivery](path, folder)
    named = (device.name, device.processor, device.runtime, device.scheme, device.target)
    names = tuple(file.relative_to(folder).as_posix() for file in files[:shown])
    return Delivery(*named, findings, memory, names), files


def _c_array(path: Path, folder: Path) -> tuple[list[Path], int]:
    """The file as a C array, beside it; the files, and how many of them a reader wants to know of."""
    from converters.micro import c_array

    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    written = []
    for text, suffix in zip(c_array(path.read_bytes(), name), (".h", ".cc"), strict=True):
        written.append(folder / f"{name}{suffix}")
        write_atomic(written[-1], text)
    return written, 2


def _web(path: Path, folder: Path) -> tuple[list[Path], int]:
    """The page for the browser, in `web/`; its files, of which index.html is the first."""
    from edge_cv.web import export

    return export(path, folder / "web"), 1


_FORMS: dict[str, Callable[[Path, Path], tuple[list[Path], int]]] = {"c_array": _c_array, "web": _web}
