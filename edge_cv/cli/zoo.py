"""Commands on the architectures and target devices: models, choose and devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from converters.errors import InputError
from edge_cv.cli.exits import BAD_INPUT, fail, say
from edge_cv.cli.options import Json, file_to_write, folder_to_write, quantity
from edge_cv.cli.tables import print_json, print_rows

if TYPE_CHECKING:
    from edge_cv.models.measured import MeasuredTable
    from edge_cv.pipeline.choose import Candidate

commands = typer.Typer(rich_markup_mode=None)

MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SHOWN = 8  # rows of `choose`

Table = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A table of `edge-cv models --measure`. Default: the one of this package."),
]


@commands.command(epilog="Example: edge-cv models --plot models.png")
def models(
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot top-1 against measured latency to a .png, .svg or .pdf file.",
            callback=file_to_write,
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the architectures on this machine: minutes for each.")
    ] = False,
    out: Annotated[Path, typer.Option(help="With --measure: folder for the files and models.json.")] = Path(
        "runs/models"
    ),
    name: Annotated[
        list[str] | None, typer.Option(help="With --measure: only this architecture; can be repeated.")
    ] = None,
    table: Table = None,
    as_json: Json = False,
) -> int:
    """List the architectures: published accuracy, measured int8 size and latency, and sources of weights.

    --measure converts each one with random weights to float32 and int8 and measures both with one thread; the same
    command resumes.
    """
    from edge_cv import models as zoo

    if measure:
        from edge_cv.pipeline.measure_models import TABLE, measure_models
        from edge_cv.progress import shown

        folder_to_write(out)
        measured = measure_models(name or zoo.names(), out, progress=shown)
        say(f"table: {out / TABLE}", error=True)
    elif name:
        raise InputError(f"--name is for --measure only. Received: {', '.join(name)}")
    else:
        measured = _table(table)
    if plot is not None:
        from edge_cv.report.zoo_plot import draw

        draw(measured, plot)
    costs = {row.name: row for row in measured.models}
    rows = [zoo.describe(each) for each in (name or zoo.names())]
    for row in rows:
        cost = costs.get(row["name"])
        row["int8_bytes"] = cost.int8.size_bytes if cost else row["int8_bytes"]
        row["int8_ms"] = cost.int8.p50_ms if cost else None
        row["float32_ms"] = cost.float32.p50_ms if cost else None
    print_rows(rows, as_json)
    if not as_json:
        say(_conditions(measured), error=True)
    return 0


@commands.command(epilog="Example: edge-cv choose --max-latency 10ms --max-size 4MB --target cpu")
def choose(
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Largest median latency of the int8 file, one thread: 10ms.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(metavar="SIZE", help="Largest int8 file: 4MB, 512KiB.")] = None,
    target: Annotated[
        str, typer.Option(help="Must run every operator: cpu, nnapi, edgetpu, ethos_u or micro.")
    ] = "cpu",
    table: Table = None,
    as_json: Json = False,
) -> int:
    """Choose the architecture with the highest published top-1 within a budget, and print the next command.

    Latencies are those of one machine, which is named: measure your own with `edge-cv models --measure`. Top-1 is that
    of the float model on ImageNet. The exit code is 2 if no architecture is within the budget.
    """
    from edge_cv.pipeline.choose import Budget, candidates, within

    latency = None if max_latency is None else quantity("--max-latency", max_latency, MILLISECONDS)
    size = None if max_size is None else quantity("--max-size", max_size, BYTES)
    if latency is not None and target != "cpu":
        raise InputError(
            f"--max-latency is measured for the target cpu only; measure on the device with edge-cv benchmark. "
            f"Received: --target {target}"
        )
    measured = _table(table)
    found = candidates(measured, Budget(target, latency, size))
    fitting = within(found)
    if not fitting:
        nearest = f"The nearest is {_costs(found[0])}" if found else f"None runs whole on {target}"
        return fail(f"no architecture is within the budget. {nearest}; {_conditions(measured)}", BAD_INPUT)
    best = fitting[0]
    if as_json:
        conditions = {"host": measured.host, "runtime": measured.runtime, "date": measured.date}
        print_json({"candidates": [_row(one) for one in fitting], "next": best.next_command, "measured": conditions})
        return 0
    print_rows([_row(one) for one in fitting[:SHOWN]], as_json)
    say(f"best: {_costs(best)}")
    say(f"next: {best.next_command}")
    say(_conditions(measured), error=True)
    return 0


@commands.command(epilog="Example: edge-cv devices")
def devices(as_json: Json = False) -> int:
    """List the target devices for which there is a recipe, for `edge-cv run`."""
    from edge_cv import recipe as recipes

    rows = [
        {
            "device": recipe.device.name,
            "processor": recipe.device.processor,
            "runtime": recipe.device.runtime,
            "model": recipe.model.name,
            "scheme": recipe.device.scheme,
            "rules": recipe.device.target,
            "recipe": str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.stem,
        }
        for path, recipe in recipes.device_recipes()
        if recipe.device is not None
    ]
    print_rows(rows, as_json)
    return 0


def _table(path: Path | None) -> MeasuredTable:
    from edge_cv.models.measured import PACKAGED, load

    return load(path or PACKAGED)


def _conditions(table: MeasuredTable) -> str:
    return f"measured on {table.host} with {table.runtime}, one thread, {table.date[:10]}"


def _costs(one: Candidate) -> str:
    cost = one.measured.int8
    return f"{one.measured.name}: top-1 {one.top1:.1%}, {cost.p50_ms:.3g} ms, {cost.size_bytes / 1e6:.3g} MB"


def _row(one: Candidate) -> dict[str, Any]:
    return {
        "model": one.measured.name,
        "image_size": one.measured.image_size,
        "top1": one.top1,
        "int8_ms": one.measured.int8.p50_ms,
        "int8_bytes": one.measured.int8.size_bytes,
        "arena_bytes": one.measured.int8.arena_bytes,
        "peak_memory_bytes": one.measured.int8.peak_memory_bytes,
        "weights": one.weights,
    }
