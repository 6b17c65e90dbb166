"""`edge-cv`: one thin function a command. Results go to stdout, progress and logs to stderr.

Exit codes: 0 done; 1 a limit of the run was broken or a conversion failed its check; 2 bad input or usage.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from converters.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from edge_cv.recipe import Recipe
    from edge_cv.report import Row

BROKEN, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="edge-cv",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Image classifiers for phones and boards: quantized, exported, and proved against their float model.",
    epilog="Example: edge-cv run recipes/demo.py --out runs/demo",
)

data_app = typer.Typer(
    no_args_is_help=True,
    help="Look at labelled images, and write them as shards.",
    epilog="Example: edge-cv data check photos",
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Resize = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="How a photo becomes square, for a model that does not tell: stretch, "
        "crop_then_resize or resize_then_crop.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; `local` starts one of this machine."),
]
Device = Annotated[str, typer.Option(help="Where the files run: host, ssh://user@host or adb[:serial].")]
Quick = Annotated[bool, typer.Option("--quick", help="Few photos and few runs: does the chain work?")]


@app.command(epilog="Example: edge-cv run recipes/demo.py --data photos --set measure.runs=20")
def run(
    recipe: Annotated[Path, typer.Argument(help="A Python file that ends in RECIPE = Recipe(...).")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/NAME.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of labelled photos to measure and calibrate on.")] = None,
    quick: Quick = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of the recipe.")
    ] = None,
    device: Device = "host",
    as_json: Json = False,
) -> int:
    """Run a recipe: build, convert, verify, measure, report. A second run does only what changed.

    With --device the TFLite files are measured there as well.
    """
    from edge_cv import recipe as recipes
    from edge_cv.evaluation.remote import Host, parse
    from edge_cv.pipeline import run as run_recipe
    from edge_cv.progress import shown

    address = parse(device)
    chosen = _as_asked(recipes.load(recipe), data, quick, settings)
    out = out or Path("runs") / (f"{chosen.name}_quick" if quick else chosen.name)
    report = run_recipe(chosen, out, device=None if isinstance(address, Host) else address, progress=shown)
    _show(report, as_json)
    print(f"report: {out / 'report.html'}", file=sys.stderr)
    return BROKEN if report.violations else 0


@app.command(epilog="Example: edge-cv train efficientnet_lite0 --weights imagenet --data photos --out runs/mine")
def train(
    model: Annotated[str, typer.Argument(help="A name of `edge-cv models`, or a recipe .py with a part fit.")],
    data: Annotated[str | None, typer.Option(help="Labelled photos: folder, .tar, .csv, shards, or `digits`.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default: runs/NAME.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="`imagenet`, or our own .keras or .weights.h5 file; default: random.")
    ] = None,
    quick: Quick = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Such as fit.epochs=10 or model.image_size=160."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Train or fine-tune a model: model.keras, checkpoints, history.csv and TensorBoard logs.

    One that was stopped goes on. With `weights` the head is trained first, then all far slower.
    `edge-cv run` with the same recipe and folder converts and measures what was trained.
    """
    from edge_cv import recipe as recipes
    from edge_cv.pipeline import train as train_recipe
    from edge_cv.progress import shown

    if model.endswith(".py"):
        if weights is not None:
            raise InputError("--weights is for a model's name; a recipe names its own. Received: both")
        chosen = _as_asked(recipes.load(model), data, quick, settings)
    elif data is None:
        raise InputError("--data must name the photos to train on. Received: none")
    else:
        part = recipes.Model(model, weights=weights)
        fit = recipes.Fit() if weights is None else recipes.fine_tuning()
        chosen = recipes.Recipe(model, part, recipes.Data(measure=data, calibrate=None), fit=fit)
        chosen = _as_asked(chosen, None, quick, settings)
    out = out or Path("runs") / (f"{chosen.name}_quick" if quick else chosen.name)
    network = train_recipe(chosen, out, progress=shown)
    if as_json:
        print(json.dumps(network.history, indent=1))
        return 0
    _print_rows(network.history[-10:], as_json)
    print(f"model: {network.path}", file=sys.stderr)
    return 0


@app.command(
    epilog="A range is LEAST..MOST, with log: before it for a logarithmic one; choices stand with commas. Example: "
    "edge-cv search recipes/digits.py --over fit.learning_rate=log:0.01..0.3 --over fit.optimizer=sgd,rmsprop"
)
def search(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a part fit.")],
    over: Annotated[list[str], typer.Option(metavar="FIELD=SPACE", help="What is searched; may be given again.")],
    trials: Annotated[int, typer.Option(help="Trainings in all, those of an earlier search in OUT included.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default: runs/NAME_search.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled photos in the place of the recipe's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of the recipe.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Search a recipe's fields for the best validation score, by Optuna; weak trainings are ended early."""
    from edge_cv import recipe as recipes
    from edge_cv.pipeline.search import search as search_fields
    from edge_cv.progress import shown

    chosen = _as_asked(recipes.load(recipe), data, False, settings)
    out = out or Path("runs") / f"{chosen.name}_search"
    found = search_fields(chosen, over, out, trials=trials, progress=shown)
    _print_rows([{"trial": t.number, "score": t.score, "state": t.state, **t.fields} for t in found], as_json)
    best = found[0]
    told = " ".join(f"--set {name}={value}" for name, value in best.fields.items())
    print(f"best: edge-cv run {recipe} {told}", file=sys.stderr)
    return 0


@app.command(
    epilog="Example: edge-cv sweep recipes/demo.py recipes/browser.py --over model.name=efficientnet_lite0,"
    "efficientnet_lite1 --data photos --out runs/sweep"
)
def sweep(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipes, each with a name of its own.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default: runs/sweep.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled photos in the place of the recipes' own.")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B", help="Run every recipe with each of these values; may be given again."),
    ] = None,
    quick: Quick = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Replace a field of every recipe.")
    ] = None,
    ray: Ray = None,
    as_json: Json = False,
) -> int:
    """Run many recipes, and compare them in one report with the Pareto front of each machine.

    The runs follow one another, or each takes a machine of a Ray cluster to itself; so no latency is measured beside
    another run. One that fails does not stop the others; the same command goes on where it was.
    """
    from edge_cv import recipe as loading
    from edge_cv.pipeline import sweep as sweeping
    from edge_cv.progress import shown

    chosen = [_as_asked(loading.load(path), data, quick, settings) for path in recipes]
    runs = sweeping.plan(chosen, over or ())
    out = out or Path("runs") / ("sweep_quick" if quick else "sweep")
    with _cluster(ray) as cluster:
        report, outcomes = sweeping.sweep(runs, out, cluster=cluster, progress=shown)
    if report is not None:
        _show(report, as_json)
        print(f"report: {out / 'report.html'}", file=sys.stderr)
    code = BROKEN if any(outcome.violations for outcome in outcomes) else 0
    for outcome in outcomes:
        if outcome.failed is not None:
            code = max(
                code, _fail(f"{outcome.name} failed: {outcome.failed}", BAD_INPUT if outcome.bad_input else BROKEN)
            )
    return code


@app.command(epilog="Example: edge-cv convert model.keras --scheme int8 --calibration photos --labels labels.txt")
def convert(
    model: Annotated[str, typer.Argument(help="A .keras file, a SavedModel folder, or a name of `edge-cv models`.")],
    scheme: Annotated[
        list[str],
        typer.Option(help="float32, float16, dynamic_int8, int8, int16x8 or mixed; may be given again."),
    ],
    calibration: Annotated[str | None, typer.Option(help="Folder of photos like those the model will see.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("."),
    labels: Annotated[Path | None, typer.Option(help="Text file of class names, one a line.")] = None,
    io: Annotated[str, typer.Option(help="Input and output of integer schemes: int8, uint8 or float32.")] = "int8",
    min_sqnr: Annotated[float, typer.Option(help="Budget of mixed: least SQNR of the logits, dB.")] = 30.0,
    target: Annotated[
        str | None, typer.Option(help="A device of `edge-cv check --help`: fitting input and output, checked.")
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write an ONNX file (float32).")] = False,
    onnx_int8: Annotated[bool, typer.Option("--onnx-int8", help="Also write an ONNX file of int8 (QDQ).")] = False,
    resize: Resize = None,
    mean: Annotated[str | None, typer.Option(help="The model takes (pixel - mean) / std; one number or three.")] = None,
    std: Annotated[str | None, typer.Option(help="See --mean; default 1.")] = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run the Python code of the file's Lambda layers.")] = False,
    as_json: Json = False,
) -> int:
    """Convert a model; every file is checked against the model before it is written."""
    from edge_cv.pipeline.convert import ConversionRequest, convert_model
    from edge_cv.progress import shown

    request = ConversionRequest(
        model,
        scheme,
        onnx=[*(["float32"] if onnx else []), *(["int8"] if onnx_int8 else [])],
        calibration=calibration,
        labels=_label_file(labels),
        io=io,
        min_sqnr_db=min_sqnr,
        target=target,
        preprocessing=_preprocessing_fields(resize, mean, std),
        unsafe=unsafe,
    )
    converted = convert_model(request, out, progress=shown)
    rows = [
        {
            "file": str(one.path),
            "scheme": one.conversion.scheme,
            "size_bytes": one.conversion.size_bytes,
            "agreement": one.conversion.parity.top1_agreement,
            "sqnr_db": round(one.conversion.parity.sqnr_db, 2),
            "images": one.conversion.parity.images,
        }
        for one in converted
    ]
    _print_rows(rows, as_json)
    missed = [one.best_sqnr_db for one in converted if one.best_sqnr_db is not None]
    for best in missed:
        _fail(f"mixed must have {min_sqnr:g} dB. The best file that was found, and written: {best:.1f} dB", BROKEN)
    return BROKEN if missed else 0


@app.command(epilog="Example: edge-cv compress model.keras --data photos --sparsity 0.75 --qat --out compressed")
def compress(
    model: Annotated[str, typer.Argument(help="A .keras file that takes RGB pixels 0..255.")],
    data: Annotated[str, typer.Option(help="Labelled photos to fine-tune and to measure on, or `digits`.")],
    out: Annotated[Path, typer.Option(help="Folder for models and files; a second run goes on there.")],
    channels: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Remove channels, down to this share of the MACs.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Set this share of the weights to zero.")
    ] = None,
    clusters: Annotated[int | None, typer.Option(help="Leave so many different weights a layer.")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Train with the rounding of int8.")] = False,
    epochs: Annotated[int, typer.Option(help="Of fine-tuning, in each stage.")] = 5,
    learning_rate: Annotated[
        float, typer.Option(help="Of fine-tuning; a tenth of it with --clusters and --qat.")
    ] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUE", help="A field of the recipe's Augment; without it crops of 70 % and more, no flips."
        ),
    ] = None,
    resize: Resize = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run the Python code of the file's Lambda layers.")] = False,
    as_json: Json = False,
) -> int:
    """Make a trained model smaller: fewer channels, zeros, few different weights, trained for int8.

    The stages are gone through in this order, each fine-tuned with the dense model as its teacher. What each one made
    is there as a .keras and as an int8 file, measured beside the dense model on photos that nothing was learned from.
    """
    from edge_cv import recipe as recipes
    from edge_cv.pipeline.compress import compress_file
    from edge_cv.progress import shown
    from edge_cv.recipe import Augment, ChannelPrune, FineTuning, Fit, Prune, Qat, WeightClustering

    tuning, slower = FineTuning(epochs, learning_rate), FineTuning(epochs, learning_rate / 10)
    parts = {
        "channel_prune": None if channels is None else ChannelPrune(channels, fine_tuning=tuning),
        "prune": None if sparsity is None else Prune(sparsity, fine_tuning=tuning),
        "cluster": None if clusters is None else WeightClustering(clusters, fine_tuning=slower),
        "qat": Qat(fine_tuning=slower) if qat else None,
    }
    parts = {name: part for name, part in parts.items() if part is not None}
    if not parts:
        raise InputError("name at least one of --channels, --sparsity, --clusters and --qat. Received: none")
    gentle = Augment(crop_scale=(0.7, 1.0), flip=0.0)
    fit = Fit(batch_size=batch_size, augment=recipes.with_settings(gentle, augment or ()))
    rows = compress_file(
        model,
        data,
        out,
        parts,
        fit,
        preprocessing={} if resize is None else {"rule": resize},
        unsafe=unsafe,
        progress=shown,
    )
    table = [
        {
            "model": row.scheme,
            "top1": row.top1,
            "top1_ci95": row.top1_ci95,
            "images": row.images,
            "agreement": row.agreement,
            "sparsity": row.total_sparsity and round(row.total_sparsity, 4),
            "macs": row.macs,
            "size_bytes": row.size_bytes,
            "gzip_bytes": row.gzip_bytes,
            "file": str(out / row.file),
        }
        for row in rows
    ]
    _print_rows(table, as_json)
    return 0


@app.command(epilog="Example: edge-cv debug model_float32.tflite model_int8.tflite --data photos --plot layers.png")
def debug(
    reference: Annotated[Path, typer.Argument(metavar="FLOAT", help="The float .tflite file.")],
    artifact: Annotated[Path, typer.Argument(metavar="INT8", help="A .tflite file made of the same model.")],
    data: Annotated[str, typer.Option(help="Folder of photos, or `sample`.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many photos.")] = 16,
    worst: Annotated[int, typer.Option(min=1, help="Print so many layers, those with the lowest SQNR.")] = 10,
    below: Annotated[float, typer.Option(help="A layer with a lower SQNR, dB, departs.")] = 20.0,
    plot: Annotated[
        Path, typer.Option(metavar="FILE", help="Where all layers are drawn: a .png, .svg or .pdf.")
    ] = Path("layers.png"),
    as_json: Json = False,
) -> int:
    """Show where a quantized model departs from its float model, layer by layer.

    SQNR of each layer's output and weights; saturated: the share of float values that its integers cannot hold; unused:
    the share of its integers that no value took. The first layer that departs is where to look first. With --json all
    layers are printed.
    """
    import numpy as np

    from converters import Preprocessing, read_metadata
    from converters.tflite.layers import first_departing, layer_errors
    from converters.tflite.layers import worst as lowest
    from edge_cv import data as sources
    from edge_cv.progress import shown
    from edge_cv.report.layer_plot import check_path, draw

    check_path(plot)
    for path in (reference, artifact):
        if path.suffix != ".tflite":
            raise InputError(f"debug takes two .tflite files. Received: {path}")
    records = [read_metadata(path) or {} for path in (reference, artifact)]
    fields = records[1].get("preprocessing") or records[0].get("preprocessing")
    if fields is None:
        raise InputError(f"a file must say its preprocessing, as those of edge-cv do. Received: {artifact}")
    preprocessing = Preprocessing.from_dict(fields)
    photos = sources.open_samples(data).take(limit)
    with shown(f"comparing layer by layer on {len(photos)} photos"):
        images = preprocessing.to_input(np.stack([pixels for pixels, _ in photos.pixels(preprocessing)]))
        errors = layer_errors(
            reference.read_bytes(),
            artifact.read_bytes(),
            images,
            pixel_offset=records[1].get("input", {}).get("pixel_offset"),
            limit=limit,
        )
    if not errors:
        raise InputError(f"the two files must have layers of the same names. Received: {reference} and {artifact}")
    draw(errors, plot, title=f"{artifact.name} against {reference.name}, {len(images)} photos", below_db=below)
    print(f"picture: {plot}", file=sys.stderr)
    _print_rows([dataclasses.asdict(e) for e in (errors if as_json else lowest(errors, worst))], as_json)
    first = first_departing(errors, below)
    says = "none" if first is None else f"{first.layer} ({first.operator}, {first.sqnr_db:.1f} dB)"
    print(f"first layer below {below:g} dB: {says}", file=sys.stderr if as_json else sys.stdout)
    return 0


@app.command(
    epilog="Targets: cpu, nnapi, edgetpu, ethos_u, micro, mediapipe, gpu, and tflite-2.3, a runtime of that release. "
    "Example: edge-cv check model_int8.tflite --target edgetpu"
)
def check(
    artifact: Annotated[Path, typer.Argument(help="A .tflite file, of edge-cv or of another converter.")],
    target: Annotated[list[str], typer.Option(help="The device; may be given again.")],
    as_json: Json = False,
) -> int:
    """Say what a device's runtime, delegate or compiler would refuse or run slowly, and the remedy.

    For the target micro, also what memory the file needs. The exit code is 1 when something is refused.
    """
    from converters.devices import micro, targets

    if not artifact.is_file() or artifact.suffix != ".tflite":
        raise InputError(f"the artifact must be a .tflite file that exists. Received: {artifact}")
    content = artifact.read_bytes()
    found = [(name, finding) for name in target for finding in targets.check(content, name)]
    rows = [{"target": name, **dataclasses.asdict(finding)} for name, finding in found]
    if not rows and not as_json:
        print(f"{artifact}: nothing found against {', '.join(target)}")
    elif as_json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            more = f", and {len(row['layers']) - 3} more" if len(row["layers"]) > 3 else ""
            row["layers"] = ", ".join(row["layers"][:3]) + more
        _print_rows(rows, as_json)
    if "micro" in target and not as_json:
        need = micro.memory(content)
        print(
            f"micro: {need.flash_bytes:,} bytes of flash, an arena of {need.arena_bytes:,} bytes "
            f"({need.activations_bytes:,} for activations, at their largest in {need.widest})"
        )
    return BROKEN if any(finding.level == targets.ERROR for _, finding in found) else 0


@app.command(epilog="Example: edge-cv evaluate runs/demo/*.tflite --data photos --by sex,age --metadata people.csv")
def evaluate(
    artifacts: Annotated[list[Path], typer.Argument(help=".tflite or .onnx files; the first is the reference.")],
    data: Annotated[str, typer.Option(help="Labelled photos as folder, .tar, .csv or shards, or `sample`.")],
    split: Annotated[str | None, typer.Option(help="A split of the photos, such as validation.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many photos, spread evenly.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Columns of --metadata, with commas: accuracy by their values.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV with a column file; default: the folder's labels.csv.")
    ] = None,
    corruptions: Annotated[
        int, typer.Option(metavar="PHOTOS", help="Measure so many photos under 15 corruptions at 5 severities too.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write report.json and report.html there.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    ray: Ray = None,
    device: Device = "host",
    as_json: Json = False,
) -> int:
    """Measure accuracy on photos; agreement and SQNR are against the first file.

    With --device the photos are prepared here and classified there. Where the device goes away in the middle, what it
    answered is told, and with --out the same command goes on from it.
    """
    from converters import read_metadata
    from edge_cv import data as sources
    from edge_cv.evaluation.remote import Host, parse
    from edge_cv.pipeline.evaluate import evaluate_files
    from edge_cv.progress import shown
    from edge_cv.report.files import save, to_dict

    address = parse(device)
    elsewhere = None if isinstance(address, Host) else address
    if elsewhere is not None and (corruptions or workers is not None or ray is not None):
        raise InputError("--corruptions, --workers and --ray are not for a device. Received: one of them with --device")
    columns = [column.strip() for column in by.split(",") if column.strip()] if by else []
    if metadata is not None and not columns:
        raise InputError(f"--by must name the columns of --metadata to look at. Received: only --metadata {metadata}")
    if corruptions < 0:
        raise InputError(f"--corruptions must be a number of photos, 0 or more. Received: {corruptions}")
    # a missing or foreign file is named before any photo is looked for
    records = [read_metadata(artifact) or {} for artifact in artifacts]
    labels = records[-1].get("labels")
    own = labels if labels and len(labels) != len(sources.imagenet_labels()) else None
    source = sources.open_samples(data, split=split, classes=own)
    names = _row_names(artifacts, [record.get("scheme") for record in records])
    with _cluster(ray) as cluster:
        appraisal = evaluate_files(
            names,
            source,
            by=columns,
            metadata=metadata or Path(data) / "labels.csv",
            corruptions=corruptions,
            limit=limit,
            workers=workers,
            cluster=cluster,
            device=elsewhere,
            journal=None if elsewhere is None or out is None else out / "answers",
            progress=shown,
        )
    for file, why in appraisal.evaluation.skipped:
        print(f"skipped: {file}: {why}", file=sys.stderr)
    found = [(str(names[row.scheme]), row) for row in appraisal.report.rows]
    rows = [
        {
            "file": file,
            "images": row.images,
            "top1": row.top1,
            "top1_ci95": row.top1_ci95,
            "top5": row.top5,
            "agreement": row.agreement,
            "sqnr_db": row.sqnr_db,
            "balanced_accuracy": row.classes and row.classes.balanced_accuracy,
            "ece": row.confidence and row.confidence.ece,
        }
        | ({"mAP": row.multi_label.mean_average_precision} if row.multi_label else {})
        for file, row in found
    ]
    if as_json:
        details = ("groups", "robustness", "multi_label")
        full = to_dict(appraisal.report)["rows"]
        print(json.dumps([r | {d: f[d] for d in details if f[d]} for r, f in zip(rows, full, strict=True)], indent=1))
    else:
        _print_rows(rows, as_json)
        _print_details(appraisal.report.rows)
    if out is not None:
        print(f"report: {save(appraisal.report, out)}", file=sys.stderr)
    if appraisal.evaluation.error is not None:
        return _fail(appraisal.evaluation.error, BAD_INPUT)
    if elsewhere is not None and out is not None:
        from edge_cv.evaluation.remote import evaluating

        evaluating.forget(out / "answers")
    return 0


def _print_details(rows: Sequence[Row]) -> None:
    """Accuracy group by group and severity by severity, where they were asked for."""
    from edge_cv.report.sections.groups import gaps

    groups = [
        {"by": column.column, "group": group.name, "images": group.images}
        | {row.name: row.groups[i].groups[j].accuracy for row in rows}
        | {f"{row.name} ci95": row.groups[i].groups[j].accuracy_ci95 for row in rows}
        for i, column in enumerate(rows[0].groups)
        for j, group in enumerate(column.groups)
    ]
    severities = [
        {"name": row.name, "images": row.robustness.images, "clean": row.robustness.clean}
        | {f"severity {n}": row.robustness.at_severity(n) for n in range(1, 6)}
        | {"corruption_error": row.robustness.mean_corruption_error}
        for row in rows
        if row.robustness
    ]
    for lines in (groups, severities):
        if lines:
            print()
            _print_rows(lines, False)
    sentences = [gaps(row.name, grouping) for row in rows for grouping in row.groups]
    print(*(["", *sentences] if sentences else []), sep="\n", end="\n" if sentences else "")


@app.command(epilog="Example: edge-cv web runs/browser/efficientnet_lite0_int8.tflite --out page")
def web(
    artifact: Annotated[Path, typer.Argument(help="A .tflite file of edge-cv, float32 or uint8 in and out.")],
    out: Annotated[Path, typer.Option(help="Folder for the page.")],
) -> int:
    """Write a page that classifies photos in the browser: a folder for any static web server.

    LiteRT.js comes through npm once and is kept. The page then needs no network: photos stay on the device.
    """
    from edge_cv.deploy.web import export
    from edge_cv.progress import shown

    with shown(f"writing the page of {artifact.name}"):
        page, *_ = export(artifact, out)
    print(page)
    return 0


@app.command(
    epilog="A device is host, ssh://[user@]host[:port][?python=PATH] or adb[:serial][?delegate=gpu]. "
    "Example: edge-cv benchmark model_int8.tflite --threads 1,4 --device ssh://pi@raspberrypi.local --out pi.json"
)
def benchmark(
    artifact: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    threads: Annotated[str, typer.Option(help="Thread counts, with commas.")] = "1",
    runs: Annotated[int, typer.Option(help="Timed inferences for each thread count.")] = 100,
    warmup: Annotated[int, typer.Option(help="Inferences before them.")] = 10,
    device: Device = "host",
    out: Annotated[
        Path | None, typer.Option(help="Also write the measurement there, a .json file that `edge-cv report` merges.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure the latency of single inferences and the peak memory, on this machine or on the device itself.

    A device also answers to golden inputs, and its answers are compared with this machine's.
    """
    from edge_cv.evaluation.remote import measure_on, parse
    from edge_cv.progress import shown

    address = parse(device)

    try:
        counts = tuple(int(part) for part in threads.split(","))
    except ValueError:
        raise InputError(f"--threads must be whole numbers with commas, such as 1,2. Received: {threads!r}") from None
    with shown(f"measuring {artifact.name}") as update:
        measured = measure_on(address, artifact, threads=counts, runs=runs, warmup=warmup, on_progress=update)
    rows = [
        {
            "threads": latency.threads,
            "p50_ms": round(latency.p50_ms, 3),
            "p90_ms": round(latency.p90_ms, 3),
            "p99_ms": round(latency.p99_ms, 3),
            "runs": latency.runs,
            "peak_memory_bytes": measured.peak_memory_bytes,
            "host": latency.host,
            "runtime": latency.runtime,
        }
        | ({"temperature_c": measured.temperature_c} if measured.temperature_c else {})
        | ({"clock_mhz": measured.clock_mhz} if measured.clock_mhz else {})
        | ({"golden": dataclasses.asdict(measured.likeness)} if as_json and measured.likeness else {})
        for latency in measured.latency
    ]
    _print_rows(rows, as_json)
    if measured.likeness is not None and not as_json:
        print(f"\n{measured.likeness.sentence()}")
    if out is not None:
        print(f"measurement: {measured.save(out)}", file=sys.stderr)
    return 0 if measured.error is None else _fail(measured.error, BAD_INPUT)


@app.command(epilog="Example: edge-cv report runs/demo runs/other pi.json --out runs/comparison")
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Run folders, and measurements of their files: .json of `benchmark --out`.")
    ],
    out: Annotated[Path | None, typer.Option(help="Also write report.json and report.html there.")] = None,
    as_json: Json = False,
) -> int:
    """Show a run's report, or one comparison out of several runs, with what was measured on devices."""
    from edge_cv.report.comparison import merge, with_measurements
    from edge_cv.report.files import load_all, save

    reports, measurements = load_all(folders)
    merged = with_measurements(merge(reports), measurements)
    if out is not None:
        print(f"report: {save(merged, out)}", file=sys.stderr)
    _show(merged, as_json)
    return BROKEN if merged.violations else 0


@data_app.command(epilog="Example: edge-cv data show photos --augment randaugment=2 --augment mixup=0.2")
def show(
    source: Annotated[str, typer.Argument(help="Folder, .tar, .csv or shards of labelled images, or `digits`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture, .png or .jpg.")] = Path("sheet.png"),
    augment: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="A field of the recipe's Augment; may be repeated.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this one of the source's splits.")] = None,
    size: Annotated[int, typer.Option(help="Height and width of the batch's images, in pixels.")] = 224,
    images: Annotated[int, typer.Option(help="How many.")] = 16,
    seed: Annotated[int, typer.Option(help="Another one draws other images and other changes.")] = 0,
) -> int:
    """Draw one batch as training would see it, with each image's target."""
    import numpy as np

    from converters.native_logs import import_tensorflow
    from edge_cv import recipe as recipes
    from edge_cv.data import open_samples
    from edge_cv.data.input_pipeline.batches import sample_batches
    from edge_cv.data.input_pipeline.sheet import draw_sheet

    chosen = recipes.with_settings(recipes.Augment(), augment or ())
    samples = open_samples(source, split=split)
    import_tensorflow()
    batches = sample_batches(samples, image_size=size, batch_size=images, seed=seed, augment=chosen)
    pixels, targets = next(iter(batches.epoch(0)))
    print(draw_sheet(np.asarray(pixels), np.asarray(targets), batches.classes, out))
    return 0


@app.command(epilog="Example: edge-cv devices")
def devices(as_json: Json = False) -> int:
    """List the target devices that there is a recipe for: `edge-cv run` takes it."""
    from edge_cv import recipe as recipes

    rows = []
    for path, recipe in recipes.device_recipes():
        near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        device = recipe.device
        rows.append(
            {
                "device": device.name,
                "processor": device.processor,
                "runtime": device.runtime,
                "model": recipe.model.name,
                "scheme": device.scheme,
                "rules": device.target,
                "recipe": str(near),
            }
        )
    _print_rows(rows, as_json)
    return 0


@app.command(epilog="Example: edge-cv models --plot models.png")
def models(
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw top-1 against MACs into a .png, .svg or .pdf.")
    ] = None,
    as_json: Json = False,
) -> int:
    """List the architectures: what was published of them, about how large their files are, where weights come from."""
    from edge_cv import models as zoo

    rows = [zoo.describe(name) for name in zoo.names()]
    if plot is not None:
        from edge_cv.report.zoo_plot import draw

        draw(rows, plot)
    _print_rows(rows, as_json)
    return 0


@data_app.command(epilog="Example: edge-cv data prepare photos shards --max-side 512")
def prepare(
    source: Annotated[str, typer.Argument(help="Folder, .tar, .csv or shards of labelled images, or `digits`.")],
    out: Annotated[Path | None, typer.Argument(help="Folder for the shards.")] = None,
    format: Annotated[str, typer.Option(help="tfrecord or array_record.")] = "tfrecord",
    shards: Annotated[int | None, typer.Option(help="Files of each split; default: one for every 256 MB.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this one of the source's splits.")] = None,
    max_side: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Make images with a longer side smaller, as JPEG.")
    ] = None,
    broken: Annotated[str, typer.Option(help="Broken images: skip them and name them, or refuse.")] = "skip",
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: check the shards in SOURCE, counts and checksums.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Write labelled images as shards that open at once. Stopped, the same command goes on; at the end all is verified.

    Images without splits of their own are divided into train and validation, by a hash of their names.
    """
    from edge_cv.data import prepare as preparing
    from edge_cv.data.formats import prepared
    from edge_cv.progress import shown

    if verify:
        with shown(f"verifying {source}") as update:
            manifest = prepared.verify(Path(source), update)
    elif out is None:
        raise InputError("OUT must name the folder for the shards. Received: none")
    else:
        plan = preparing.ShardingOptions(format, shards, max_side, broken)
        manifest = preparing.prepare(source, out, plan, split=split, progress=shown)
    for part in manifest.splits.values():
        for name, why in part.skipped:
            print(f"skipped: {name}: {why}", file=sys.stderr)
    rows = [
        {
            "split": name,
            "images": part.images,
            "classes": len(manifest.classes),
            "skipped": len(part.skipped),
            "shards": len(part.shards),
            "bytes": sum(shard.bytes for shard in part.shards),
        }
        for name, part in manifest.splits.items()
    ]
    _print_rows(rows, as_json)
    return 0


@data_app.command("check", epilog="Example: edge-cv data check photos/train --against photos/val")
def check_data(
    source: Annotated[str, typer.Argument(help="Folder, .tar, .csv or shards of labelled images, or `digits`.")],
    against: Annotated[
        str | None, typer.Option(help="Other images that must not be the same, such as the test set.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this one of the source's splits.")] = None,
    as_json: Json = False,
) -> int:
    """Look for broken and odd images, duplicates within and across splits, and classes with few or none.

    The exit code is 1 when something was found that harms training or measuring.
    """
    import dataclasses

    from edge_cv.data.check import check as look
    from edge_cv.progress import shown

    found = look(source, against, split=split, progress=shown)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
        return BROKEN if found.harms else 0
    _print_rows(list(found.parts), as_json)
    rows = [
        {
            "": "harms" if finding.harms else "note",
            "split": finding.part,
            "count": finding.count,
            "what": finding.what,
            "such as": "\n".join(finding.examples),
        }
        for finding in found.findings
    ]
    print()
    if rows:
        _print_rows(rows, as_json)
    else:
        print("nothing found")
    return BROKEN if found.harms else 0


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    if address is None:
        return contextlib.nullcontext()
    from edge_cv.parallel.ray_cluster import connected

    return connected(address)


def _as_asked(recipe: Recipe, data: str | None, quick: bool, settings: list[str] | None) -> Recipe:
    """The recipe on other data, in its quick form, and with fields replaced, in this order."""
    recipe = recipe if data is None else recipe.with_data(data)
    recipe = recipe.quick() if quick else recipe
    return recipe.with_settings(settings or ())


def _show(report: Any, as_json: bool) -> None:
    from edge_cv.report.files import to_dict
    from edge_cv.report.terminal import show

    if as_json:
        print(json.dumps(to_dict(report), indent=1))
    else:
        show(report)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        numbers = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_written(value)) for value in row.values()))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)


def _written(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return "–".join(_written(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row_names(artifacts: list[Path], schemes: list[str | None]) -> dict[str, Path]:
    """The files by the names of their rows: their schemes, if the first is float32 and they differ, or their stems."""
    if len(set(artifacts)) < len(artifacts):
        raise InputError(f"each artifact must be named once. Received: {', '.join(map(str, artifacts))}")
    for names in (schemes, [path.stem for path in artifacts]):
        if all(names) and len(set(names)) == len(names) and (names is not schemes or schemes[0] == "float32"):
            return dict(zip(names, artifacts, strict=True))
    return {str(path): path for path in artifacts}


def _label_file(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--labels must be a text file that can be read. Received: {path} ({error})") from error


def _preprocessing_fields(resize: str | None, mean: str | None, std: str | None) -> dict[str, Any]:
    """The fields of `Preprocessing` that the options replace."""
    fields: dict[str, Any] = {} if resize is None else {"rule": resize}
    for name, text in (("mean", mean), ("std", std)):
        if text is None:
            continue
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            raise InputError(f"--{name} must be one number or three with commas. Received: {text!r}")
        fields[name] = numbers * 3 if len(numbers) == 1 else numbers
    return fields


def main() -> None:
    """The entry point: runs a command and turns what a user did wrong into one line and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    from typer.exceptions import TyperException

    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = _fail(error, BAD_INPUT)
    except CheckFailed as error:
        code = _fail(error, BROKEN)
    except TyperException as error:
        code = _fail(error.format_message() + "  (edge-cv --help)", BAD_INPUT)
    except OSError as error:
        code = _fail(error, BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer itself turns Ctrl-C into this code
        _fail("interrupted; what was finished stays, and the same command goes on from there", INTERRUPTED)
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _fail(why: object, code: int) -> int:
    print(f"edge-cv: {' '.join(str(why).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
