"""Options that several commands share, and the values made from them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from converters.errors import InputError

if TYPE_CHECKING:
    from converters.declared import Declaration
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.recipe import ChannelPrune, Prune, Qat, Recipe, WeightClustering

StageT = TypeVar("StageT", bound="ChannelPrune | Prune | WeightClustering | Qat")

RECIPE_HELP = "A recipe's name, such as demo, or a Python file that ends in RECIPE = Recipe(...)."
IMAGES_HELP = "Labelled images: a folder, .tar, .csv or shards, or `digits`."

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quick = Annotated[bool, typer.Option("--quick", help="Use few photos and few runs, to test the whole chain.")]
Device = Annotated[str, typer.Option(help="Where the files run: host, ssh://user@host or adb[:serial].")]
Runtime = Annotated[
    str,
    typer.Option(help="LiteRT's way to run .tflite files on this machine: interpreter or compiled (CompiledModel)."),
]
Unsafe = Annotated[bool, typer.Option("--unsafe", help="Run the Python code of the file's Lambda layers.")]
Import = Annotated[
    list[Path] | None,
    typer.Option("--import", metavar="FILE.py", help="Run this Python file, which defines the model's own layers."),
]
Split = Annotated[str | None, typer.Option(help="Use only this split of the source.")]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; `local` starts one on this machine."),
]
Resize = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="How a photo gets the input's size, if the model does not declare it: stretch, crop_then_resize or "
        "resize_then_crop.",
    ),
]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Input size of a model of any size: 224, or 160x120 (height x width)."),
]
Output = Annotated[
    str | None, typer.Option(metavar="NAME", help="The output of the classes, for a model with several outputs.")
]
Mean = Annotated[
    str | None, typer.Option(help="The model's input is (pixel - mean) / std; one number or one for each channel.")
]
Std = Annotated[str | None, typer.Option(help="See --mean. Default: 1.")]
Channels = Annotated[
    str | None,
    typer.Option(help="The model's channels, if the file does not declare them: rgb, bgr or grey. Default: rgb."),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names, if the file does not declare them: text, CSV, JSON or YAML."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of the recipe; can be repeated."),
]
Probe = Annotated[
    bool,
    typer.Option("--probe", help="Only fit a linear probe on the pretrained features: a usable model in a minute."),
]
Augment = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=VALUE", help="Replace a field of the recipe part Augment; can be repeated."),
]


def customized(
    recipe: Recipe, data: str | None, quick: bool, settings: list[str] | None, probe: bool = False
) -> Recipe:
    """The recipe with other data, then in its quick form, then with fields replaced."""
    recipe = recipe if data is None else recipe.with_data(data)
    recipe = recipe.quick() if quick else recipe
    if probe and recipe.fit is None:
        raise InputError(f"--probe needs a recipe with a part fit. Received: {recipe.name}")
    return recipe.with_settings([*(settings or ()), *(["fit.probe=only"] if probe else [])])


def folder_to_write(path: Path | None) -> Path | None:
    """Callback of options that name a folder of results: it can be written, which is checked before any work."""
    return _to_write(path, is_folder=True)


def file_to_write(path: Path | None) -> Path | None:
    """Callback of options that name a file of results: it can be written, which is checked before any work."""
    return _to_write(path, is_folder=False)


def measurement_to_write(path: Path | None) -> Path | None:
    """As `file_to_write`; a folder gets a file with the model's name."""
    return _to_write(path, is_folder=path is not None and path.is_dir())


def _to_write(path: Path | None, *, is_folder: bool) -> Path | None:
    from converters.files import check_writable

    if path is not None:
        check_writable(path, is_folder=is_folder)
    return path


def run_folder(out: Path | None, name: str, quick: bool) -> Path:
    """The folder of `--out`, which its callback has checked, or runs/NAME or runs/NAME_quick, which can be written."""
    if out is not None:
        return out
    folder = Path("runs") / (f"{name}_quick" if quick else name)
    folder_to_write(folder)
    return folder


def remote_device(address: str) -> Ssh | Adb | None:
    """The device of `--device`; None for this machine."""
    from edge_cv.evaluation.remote import Host, parse

    device = parse(address)
    return None if isinstance(device, Host) else device


def ray_cluster(address: str | None) -> AbstractContextManager[Any]:
    """A connection to the cluster of `--ray`; None without it."""
    if address is None:
        return contextlib.nullcontext()
    from edge_cv.parallel.ray_cluster import connected

    return connected(address)


def preprocessing_fields(resize: str | None, mean: str | None, std: str | None) -> dict[str, Any]:
    """The fields of `Preprocessing` that `--resize`, `--mean` and `--std` replace."""
    fields: dict[str, Any] = {} if resize is None else {"rule": resize}
    for name, text in (("mean", mean), ("std", std)):
        if text is None:
            continue
        try:
            numbers = tuple(float(number) for number in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            raise InputError(f"--{name} must be one number, or three with commas. Received: {text!r}")
        fields[name] = numbers
    if "std" in fields and 0 < max(fields["std"]) < 1:
        raise InputError(
            "--mean and --std are for pixels 0..255: multiply those for 0..1 by 255, such as --mean "
            f"123.675,116.28,103.53 --std 58.395,57.12,57.375. Received: --std {std}"
        )
    return fields


def import_files(paths: list[Path] | None) -> None:
    """Run the Python files of `--import`."""
    for path in paths or ():
        from converters.sources import import_layers

        import_layers(path)


def declaration_of(
    resize: str | None, mean: str | None, std: str | None, channels: str | None, labels: Path | None
) -> Declaration:
    """What `--resize`, `--mean`, `--std`, `--channels` and `--labels` say about a file."""
    from converters.declared import Declaration

    names = label_file(labels)
    return Declaration(preprocessing_fields(resize, mean, std), channels, None if names is None else tuple(names))


def fine_tuned(part: StageT, epochs: int | None, steps: int | None, learning_rate: float | None) -> StageT:
    """A stage of compression with `--epochs`, `--steps` and `--learning-rate`, where they are given."""
    from edge_cv.recipe import Qat, WeightClustering

    if learning_rate is not None:
        learning_rate *= 0.1 if isinstance(part, Qat | WeightClustering) else 1.0
    given: dict[str, Any] = {"epochs": epochs, "steps": steps, "learning_rate": learning_rate}
    fields = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(part, fine_tuning=dataclasses.replace(part.fine_tuning, **fields))


def label_file(path: Path | None) -> list[str] | None:
    """The class names in the file of `--labels`."""
    from edge_cv.data.label_files import read_label_file

    return None if path is None else read_label_file(path)


def quantity(option: str, text: str, units: Mapping[str, float]) -> float:
    """A positive number with one of the units, such as `10ms` or `4 MB`, in the unit whose factor is 1."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]+)\s*", text)
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if match is None or match[2].lower() not in factors or float(match[1]) <= 0:
        raise InputError(f"{option} must be a number above 0 with a unit: {', '.join(units)}. Received: {text!r}")
    return float(match[1]) * factors[match[2].lower()]


def thread_counts(text: str) -> tuple[int, ...]:
    """The numbers of `--threads`."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--threads must be whole numbers with commas, such as 1,2. Received: {text!r}") from None
