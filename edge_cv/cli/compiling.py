"""The command `compile`: files for NPUs by their vendors' compilers, and the installation of those."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from converters.errors import InputError, unknown
from edge_cv.cli.exits import say
from edge_cv.cli.options import (
    Channels,
    Json,
    Labels,
    Mean,
    Resize,
    Std,
    declaration_of,
    folder_to_write,
)
from edge_cv.cli.tables import compiled_row, print_json, print_rows

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    "compile",
    epilog="Targets: ethos-u55-32 to ethos-u55-256, ethos-u65-256, ethos-u65-512, ethos-u85-128 to ethos-u85-2048; "
    "rk3566, rk3568, rk3576, rk3588. Example: edge-cv compile model_int8.tflite --target ethos-u55-256 --out npu",
)
def compile_artifact(
    artifact: Annotated[
        Path | None,
        typer.Argument(help="An int8 .tflite file for Ethos-U; a float .onnx, .keras or .tflite file for Rockchip."),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="The NPU, such as ethos-u55-256 or rk3588; can be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the compiled files.", callback=folder_to_write)] = Path("."),
    data: Annotated[
        str | None, typer.Option(metavar="PHOTOS", help="Also run the vendor's simulator on photos (Rockchip).")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(metavar="PHOTOS", help="Quantize a float file to int8 on photos (Rockchip).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of photos of each folder.")] = 100,
    install: Annotated[
        str | None, typer.Option(metavar="COMPILER", help="Install a compiler in an environment of its own: rknn.")
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
    as_json: Json = False,
) -> int:
    """Compile a file for an NPU by its vendor's compiler: what runs there, in how many cycles and how much memory.

    Cycles and milliseconds are the compiler's estimates, for the clock and the memories that it names. With --data, the
    simulator's outputs are compared with the file's own: top-1 agreement and SQNR.
    """
    from edge_cv.pipeline.compile import compile_model
    from edge_cv.progress import shown

    if install is not None:
        if artifact is not None or target:
            raise InputError("--install must be alone: it compiles nothing. Received: it with a file or a target")
        return _install(install)
    if artifact is None or not target:
        received = "neither" if artifact is None else f"{artifact} without --target"
        raise InputError(f"a file and --target must be given, or --install. Received: {received}")
    declaration = declaration_of(resize, mean, std, channels, labels)
    options: dict[str, Any] = {"calibration": calibration, "data": data, "limit": limit, "declaration": declaration}
    made = [compile_model(artifact, name, out, **options, progress=shown) for name in target]
    if as_json:
        print_json(
            [{**dataclasses.asdict(one), "file": str(one.file), "milliseconds": one.milliseconds} for one in made]
        )
        return 0
    print_rows([compiled_row(one) for one in made], as_json)
    for one in made:
        say(f"{one.target}: estimated by {one.compiler}{one.memory_system and f' for {one.memory_system}'}")
        for operator in one.cpu_operators:
            say(f"{one.target}: {operator.kind} {operator.layer} stays on the CPU: {operator.reason}")
    return 0


def _install(name: str) -> int:
    from converters.devices.environment import install
    from converters.devices.rknn import ENVIRONMENT
    from edge_cv.progress import shown

    if name != ENVIRONMENT.name:
        raise unknown("compiler to install", name, [ENVIRONMENT.name])
    with shown(f"installing {ENVIRONMENT.package} in {ENVIRONMENT.folder}") as update:
        folder = install(ENVIRONMENT, update)
    say(f"{ENVIRONMENT.package} {ENVIRONMENT.version()}: {folder}")
    return 0
