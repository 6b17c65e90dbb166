"""Commands that run recipes: run, train, search, sweep and report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.errors import InputError
from edge_cv.cli.exits import BAD_INPUT, BROKEN, fail, say
from edge_cv.cli.options import (
    RECIPE_HELP,
    Device,
    Json,
    Probe,
    Quick,
    Ray,
    Settings,
    customized,
    folder_to_write,
    ray_cluster,
    remote_device,
    run_folder,
)
from edge_cv.cli.tables import print_json, print_report, print_rows

commands = typer.Typer(rich_markup_mode=None)

RunFolder = Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/NAME.", callback=folder_to_write)]
TrialData = Annotated[str | None, typer.Option(help="Labelled photos that replace the recipe's.")]


@commands.command(epilog="Example: edge-cv run demo --data photos --set measure.runs=20")
def run(
    recipe: Annotated[str, typer.Argument(help=RECIPE_HELP)],
    out: RunFolder = None,
    data: Annotated[str | None, typer.Option(help="Folder of labelled photos to measure and calibrate on.")] = None,
    quick: Quick = False,
    probe: Probe = False,
    settings: Settings = None,
    device: Device = "host",
    as_json: Json = False,
) -> int:
    """Run a recipe: build, convert, verify, measure, report. A second run repeats only the steps that changed.

    With --device, the TFLite files are also measured on that device.
    """
    from edge_cv import recipe as recipes
    from edge_cv.pipeline import run as run_recipe
    from edge_cv.progress import shown

    remote = remote_device(device)
    chosen = customized(recipes.load(recipe), data, quick, settings, probe)
    folder = run_folder(out, chosen.name, quick)
    report = run_recipe(chosen, folder, device=remote, progress=shown)
    print_report(report, as_json)
    say(f"report: {folder / 'report.html'}", error=True)
    return BROKEN if report.violations else 0


@commands.command(epilog="Example: edge-cv train efficientnet_lite0 --weights imagenet --data photos --out runs/mine")
def train(
    model: Annotated[
        str, typer.Argument(help="A name listed by `edge-cv models`, a model file, or a recipe with a part fit.")
    ],
    data: Annotated[str | None, typer.Option(help="Labelled photos: folder, .tar, .csv, shards, or `digits`.")] = None,
    out: RunFolder = None,
    weights: Annotated[
        str | None,
        typer.Option(help="`imagenet`, or a .keras or .weights.h5 file of edge-cv. Default: random weights."),
    ] = None,
    quick: Quick = False,
    probe: Probe = False,
    settings: Settings = None,
    as_json: Json = False,
) -> int:
    """Train or fine-tune a model. Writes model.keras, checkpoints, history.csv and TensorBoard logs.

    An interrupted training resumes. With --weights, a linear probe is fitted, then the head is trained, then all
    layers at a lower rate. The result is compared with the probe on test photos.
    `edge-cv run` with the same recipe and folder converts and measures the trained model.
    """
    from converters.strict_json import typed
    from edge_cv import models
    from edge_cv import recipe as recipes
    from edge_cv.pipeline import train as train_recipe
    from edge_cv.progress import shown
    from edge_cv.report.sentences import beside_probe
    from edge_cv.report.values import ProbeResult

    if model.endswith(".py") or (model in recipes.shipped() and model not in models.names()):
        if weights is not None:
            raise InputError(
                f"--weights is for a model's name; a recipe names its own. Received: --weights {weights} with {model}"
            )
        chosen = customized(recipes.load(model), data, quick, settings, probe)
    elif data is None:
        raise InputError(f"--data must name the photos to train on. Received: {model} without --data")
    else:
        part = recipes.Model(model, weights=weights)
        fit = recipes.fine_tuning() if weights is not None or part.is_file else recipes.Fit()
        source = recipes.Data(measure=data, calibrate=None)
        chosen = recipes.Recipe(part.short_name, part, source, fit=fit)
        chosen = customized(chosen, None, quick, settings, probe)
    trained = train_recipe(chosen, run_folder(out, chosen.name, quick), progress=shown)
    if as_json:
        print_json(trained.history)
    elif trained.history:
        print_rows(trained.history[-10:], as_json)
    for sentence in beside_probe(typed(ProbeResult | None, trained.probe, "the linear probe")):
        say(sentence, error=True)
    say(f"model: {trained.path}", error=True)
    return 0


@commands.command(
    epilog="A range is LEAST..MOST, on a logarithmic scale with log: before it; choices are separated by commas. "
    "Example: edge-cv search digits --over fit.learning_rate=log:0.01..0.3 --over fit.optimizer=sgd,rmsprop"
)
def search(
    recipe: Annotated[str, typer.Argument(help="A recipe with a part fit: its name or its file.")],
    over: Annotated[
        list[str], typer.Option(metavar="FIELD=SPACE", help="A field and its search space; can be repeated.")
    ],
    trials: Annotated[int, typer.Option(help="Number of trials, including those of an earlier search in OUT.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="The search's folder. Default: runs/NAME_search.", callback=folder_to_write)
    ] = None,
    data: TrialData = None,
    settings: Settings = None,
    as_json: Json = False,
) -> int:
    """Search fields of a recipe for the best validation score, with Optuna. Weak trials are stopped early."""
    from edge_cv import recipe as recipes
    from edge_cv.pipeline.search import search as search_fields
    from edge_cv.progress import shown

    chosen = customized(recipes.load(recipe), data, False, settings)
    folder = run_folder(out, f"{chosen.name}_search", False)
    found = search_fields(chosen, over, folder, trials=trials, progress=shown)
    print_rows([{"trial": t.number, "score": t.score, "state": t.state, **t.fields} for t in found], as_json)
    best = " ".join(f"--set {name}={value}" for name, value in found[0].fields.items())
    say(f"best: edge-cv run {recipe} {best}", error=True)
    return 0


@commands.command(
    epilog="Example: edge-cv sweep demo browser --over model.name=efficientnet_lite0,efficientnet_lite1 --data photos "
    "--out runs/sweep"
)
def sweep(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Names or files of recipes.")],
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder. Default: runs/sweep.", callback=folder_to_write)
    ] = None,
    data: TrialData = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B", help="Run every recipe with each of these values; can be repeated."),
    ] = None,
    quick: Quick = False,
    settings: Settings = None,
    ray: Ray = None,
    as_json: Json = False,
) -> int:
    """Run many recipes and compare them in one report, with the Pareto front of each machine.

    The runs follow one another, or each has a machine of a Ray cluster to itself, so that runs do not disturb each
    other's latency. A failed run does not stop the others. The same command resumes an interrupted sweep.
    """
    from edge_cv import recipe as loading
    from edge_cv.pipeline import sweep as sweeping
    from edge_cv.progress import shown

    runs = sweeping.plan([customized(loading.load(recipe), data, quick, settings) for recipe in recipes], over or ())
    folder = run_folder(out, "sweep", quick)
    with ray_cluster(ray) as cluster:
        report, outcomes = sweeping.sweep(runs, folder, cluster=cluster, progress=shown)
    if report is not None:
        print_report(report, as_json)
        say(f"report: {folder / 'report.html'}", error=True)
    codes = [BROKEN if any(outcome.violations for outcome in outcomes) else 0]
    for outcome in outcomes:
        if outcome.failed is not None:
            code = BAD_INPUT if outcome.bad_input else BROKEN
            codes.append(fail(f"{outcome.name} failed: {outcome.failed}", code))
    return max(codes)


@commands.command(epilog="Example: edge-cv report runs/demo runs/other pi.json --out runs/comparison")
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Run folders, and .json measurements written by `benchmark --out`.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Also write report.json and report.html to this folder.", callback=folder_to_write),
    ] = None,
    as_json: Json = False,
) -> int:
    """Show the report of a run, or compare several runs, including measurements made on devices."""
    from edge_cv.report.comparison import merge, with_measurements
    from edge_cv.report.files import load_all, save

    reports, measurements = load_all(folders)
    merged = with_measurements(merge(reports), measurements)
    if out is not None:
        say(f"report: {save(merged, out)}", error=True)
    print_report(merged, as_json)
    return BROKEN if merged.violations else 0
