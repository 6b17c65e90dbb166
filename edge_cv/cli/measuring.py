"""Commands that measure files: evaluate, benchmark and conform."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from converters.errors import InputError, unknown
from converters.packages import require
from converters.printable import printable
from edge_cv.cli.exits import BAD_INPUT, BROKEN, fail, say
from edge_cv.cli.options import (
    Channels,
    Device,
    Json,
    Labels,
    Mean,
    Ray,
    Resize,
    Runtime,
    Split,
    Std,
    declaration_of,
    folder_to_write,
    measurement_to_write,
    ray_cluster,
    remote_device,
    thread_counts,
)
from edge_cv.cli.tables import conformance_row, print_evaluation, print_json, print_measurement, print_rows

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    epilog="Example: edge-cv evaluate runs/demo/*.tflite --data photos --by sex,age --metadata people.csv"
)
def evaluate(
    artifacts: Annotated[list[Path], typer.Argument(help=".tflite or .onnx files; the first is the reference.")],
    data: Annotated[str, typer.Option(help="Labelled photos: a folder, .tar, .csv or shards, or `sample`.")],
    split: Split = None,
    limit: Annotated[int | None, typer.Option(help="Largest number of photos, spread evenly.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Columns of --metadata, with commas: report accuracy for each of their values.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV with a column file. Default: the folder's labels.csv.")
    ] = None,
    corruptions: Annotated[
        int, typer.Option(metavar="PHOTOS", help="Also measure this many photos under 15 corruptions at 5 severities.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write report.json and report.html to this folder.", callback=folder_to_write),
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes. Default: one per core.")] = None,
    ray: Ray = None,
    device: Device = "host",
    runtime: Runtime = "interpreter",
    as_json: Json = False,
) -> int:
    """Measure accuracy on photos. Agreement and SQNR are relative to the first file.

    A file of another converter is described by its standard TFLite metadata, or by --resize, --mean, --std, --channels
    and --labels.

    With --device, the photos are prepared here and classified there. If the device disconnects, the results so far are
    printed; with --out, the same command resumes from them.
    """
    from edge_cv.evaluation.remote import evaluating
    from edge_cv.pipeline.evaluate import evaluate_files, named_files, open_for_files
    from edge_cv.progress import shown
    from edge_cv.report.files import save

    remote = remote_device(device)
    if runtime != "interpreter" and corruptions:
        raise InputError(f"--corruptions is for --runtime interpreter only. Received: {runtime}")
    if remote is not None and (corruptions or workers is not None or ray is not None):
        raise InputError(f"--corruptions, --workers and --ray are for this machine only. Received: --device {device}")
    columns = [column.strip() for column in by.split(",") if column.strip()] if by else []
    if metadata is not None and not columns:
        raise InputError(f"--by must name the columns of --metadata to report. Received: only --metadata {metadata}")
    if corruptions < 0:
        raise InputError(f"--corruptions must be a number of photos, 0 or more. Received: {corruptions}")
    if out is not None:
        require("a report (--out)", "report")
    files = named_files(artifacts)
    declaration = declaration_of(resize, mean, std, channels, labels)
    samples = open_for_files(artifacts, data, split, declaration)
    journal = None if remote is None or out is None else out / "answers"
    with ray_cluster(ray) as cluster:
        evaluated = evaluate_files(
            files,
            samples,
            by=columns,
            metadata=metadata or Path(data) / "labels.csv",
            corruptions=corruptions,
            declaration=declaration,
            limit=limit,
            workers=workers,
            cluster=cluster,
            device=remote,
            journal=journal,
            runtime=runtime,
            progress=shown,
        )
    for file, why in evaluated.evaluation.skipped:
        print(printable(f"skipped: {file}: {why}"), file=sys.stderr)
    print_evaluation(evaluated.report, files, as_json)
    if out is not None:
        say(f"report: {save(evaluated.report, out)}", error=True)
    if evaluated.evaluation.error is not None:
        return fail(evaluated.evaluation.error, BAD_INPUT)
    if journal is not None:
        evaluating.forget(journal)
    return 0


@commands.command(
    epilog="A device is host, ssh://[user@]host[:port][?python=PATH] or adb[:serial][?delegate=gpu]. "
    "Example: edge-cv benchmark model_int8.tflite --threads 1,4 --device ssh://pi@raspberrypi.local --out pi.json"
)
def benchmark(
    artifact: Annotated[Path, typer.Argument(help="A .tflite or .onnx file.")],
    threads: Annotated[str, typer.Option(help="Thread counts, with commas.")] = "1",
    runs: Annotated[int, typer.Option(help="Timed inferences for each thread count.")] = 100,
    warmup: Annotated[int, typer.Option(help="Untimed inferences before them.")] = 10,
    device: Device = "host",
    runtime: Runtime = "interpreter",
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the measurement to this .json file, which `edge-cv report` reads.",
            callback=measurement_to_write,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure the latency of single inferences and the peak memory, on this machine or on a device.

    A device also computes the outputs for golden inputs, which are compared with this machine's outputs.
    """
    from edge_cv.evaluation.remote import measure_on, parse
    from edge_cv.progress import shown

    address, counts = parse(device), thread_counts(threads)
    declaration = declaration_of(resize, mean, std, channels, labels)
    with shown(f"measuring {artifact.name}") as update:
        measured = measure_on(
            address,
            artifact,
            threads=counts,
            runs=runs,
            warmup=warmup,
            declaration=declaration,
            runtime=runtime,
            on_progress=update,
        )
    print_measurement(measured, as_json)
    if out is not None:
        say(f"measurement: {measured.save(out)}", error=True)
    return 0 if measured.error is None else fail(measured.error, BAD_INPUT)


@commands.command(
    epilog="Example: edge-cv conform model_int8.tflite --data photos. An emulated arm64 is made once, by root: "
    "edge-cv conform --install arm64"
)
def conform(
    artifact: Annotated[Path | None, typer.Argument(help="A .tflite or .onnx file.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of photos, or `sample`.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of photos.")] = 20,
    install: Annotated[
        str | None, typer.Option(metavar="RUNTIME", help="Make an emulated arm64 Debian with LiteRT: arm64.")
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = None,
    labels: Labels = None,
    as_json: Json = False,
) -> int:
    """Run one file with every runtime on this machine, and compare their outputs with those of the usual one.

    Differences are in steps of the output's scale; for float outputs in steps of 2^-16 of the largest. The first
    operator that differs is that of the photo with the largest difference. The exit code is 1 if a runtime cannot run
    the file.
    """
    from edge_cv.pipeline.conform import conform as compare
    from edge_cv.progress import shown
    from edge_cv.report.plain_json import plain_json

    if install is not None:
        if artifact is not None or data is not None:
            raise InputError("--install must be alone: it runs nothing. Received: it with a file or --data")
        return _install(install)
    if artifact is None or data is None:
        received = "neither" if artifact is None else f"{artifact} without --data"
        raise InputError(f"a file and --data must be given, or --install. Received: {received}")
    declaration = declaration_of(resize, mean, std, channels, labels)
    found = compare(artifact, data, limit=limit, declaration=declaration, progress=shown)
    if as_json:
        print_json(plain_json(dataclasses.asdict(found)))
    else:
        print_rows([conformance_row(result, found.images) for result in found.results], as_json)
        for result in found.results:
            if result.error is not None:
                say(f"{result.executor} cannot run the file: {result.error}")
        for name, how in found.not_run.items():
            say(f"not run: {name}: {how}")
    return BROKEN if any(result.error is not None for result in found.results) else 0


def _install(name: str) -> int:
    from edge_cv.evaluation import arm64
    from edge_cv.progress import shown

    if name != "arm64":
        raise unknown("runtime to install", name, ["arm64"])
    with shown(f"installing an emulated arm64 in {arm64.folder()}") as update:
        program = arm64.install(update)
    say(f"LiteRT {arm64.version()} on arm64: {program}")
    return 0
