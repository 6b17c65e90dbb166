"""From a recipe to a report, in cached steps: each is skipped if nothing that it depends on has changed.

build or train the model -> compress -> convert and check each output -> layer errors -> evaluate all
-> analyze the predictions -> measure each -> package for the device -> report
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.packages import require
from edge_cv.deploy.package import check_package
from edge_cv.folder_lock import holds
from edge_cv.pipeline import rows, steps
from edge_cv.pipeline.file_model import FileModel, check_file_model
from edge_cv.pipeline.inputs import CalibrationImages, check_analysis, open_photos
from edge_cv.pipeline.model import (
    Convertible,
    DenseModel,
    OnEpoch,
    RunModel,
    build_or_train,
    compressed_models,
    model_of_output,
)
from edge_cv.pipeline.stage_losses import warnings_of_stages
from edge_cv.pipeline.steps import FLOAT32, PREDICTIONS, Job, ModelFile
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Output, Recipe
from edge_cv.report import Report, model_card, save
from edge_cv.stages import Steps

if TYPE_CHECKING:
    from converters.images.preprocessing import Preprocessing
    from edge_cv.data.split import Splits
    from edge_cv.evaluation.remote import Adb, Ssh


@holds("out_dir")
def run(
    recipe: Recipe,
    out_dir: str | os.PathLike,
    *,
    device: Ssh | Adb | None = None,
    progress: Progress = silent,
) -> Report:
    """Run a recipe; write `report.json`, `report.html`, `model_card.md`, the model and its files into a folder.

    A second run with the same folder does only what has changed. A run that was interrupted, at any moment, resumes.

    Args:
        recipe: the model, the photos, the schemes, the limits.
        out_dir: the run's folder; it is created if it is missing.
        device: measure the TFLite files on this device too (`edge_cv.evaluation.remote.parse` returns one). Limits on
            latency then apply to the device.
        progress: shows what is being done; `edge_cv.progress.shown` writes to stderr.

    Returns:
        The Report. Its `violations` name each limit of the recipe that is broken.

    Raises:
        InputError: the recipe names something that does not exist, the folder cannot be written, or the device failed;
            in the last case the report with the figures of this machine has been written.
        CheckFailed: a conversion did not pass its check. The files that were written before it stay.
    """
    from converters.schemes import parse

    require(f"the recipe {recipe.name}", *recipe.extras(), "report")
    for scheme in recipe.schemes:
        parse(scheme)
    check_package(recipe)
    check_file_model(recipe)
    cache = Steps(Path(out_dir))
    file_model = FileModel(recipe.model, cache, progress) if recipe.model.is_file else None
    recipe, photos = open_photos(recipe, file_model)
    check_analysis(recipe, photos.test)
    job = Job(recipe, cache, progress)
    model = build_or_train(recipe, photos, cache, progress, file_model=file_model)
    calibration = CalibrationImages(photos.calibration, model.preprocessing, progress)
    compressed = compressed_models(recipe, photos, model, job.steps, progress)
    models = model_of_output(recipe, model, compressed)
    files = [steps.convert(job, source, output, calibration) for output, source in models.items()]
    report = _report(job, model, models, files, photos, calibration)
    save(report, out_dir)
    _write_card(report, recipe, model.preprocessing, out_dir)
    return report if device is None else _with_device(job, report, files, device)


@holds("out_dir")
def train(
    recipe: Recipe,
    out_dir: str | os.PathLike,
    *,
    progress: Progress = silent,
    on_epoch: OnEpoch | None = None,
) -> RunModel:
    """Train the recipe's model only: write `model.keras`, its checkpoints, curves and logs into a folder.

    It needs no TensorFlow if Keras runs on JAX. `run` with the same recipe and folder continues with the trained model.

    Args:
        recipe: with a part `fit`.
        out_dir: the run's folder; it is created if it is missing.
        progress: shows what is being done.
        on_epoch: called with each epoch's figures (`edge_cv.training.fit`); an exception from it ends the training.

    Raises:
        InputError: as `run`, or the recipe has no part `fit`.
    """
    if recipe.fit is None:
        raise InputError(f"to train, the recipe {recipe.name} must have a part fit. Received: none")
    require(f"the recipe {recipe.name}", *(extra for extra in recipe.extras() if extra in ("train", "probe")))
    check_file_model(recipe)
    cache = Steps(Path(out_dir))
    file_model = FileModel(recipe.model, cache, progress) if recipe.model.is_file else None
    recipe, photos = open_photos(recipe, file_model)
    model = build_or_train(recipe, photos, cache, progress, file_model=file_model, on_epoch=on_epoch)
    if not isinstance(model, RunModel):
        raise InputError(f"to train, the model must be a Keras model. Received: {recipe.model.name}")
    return model


def _report(
    job: Job,
    model: DenseModel,
    models: Mapping[Output, Convertible],
    files: Sequence[ModelFile],
    photos: Splits,
    calibration: CalibrationImages,
) -> Report:
    """Evaluate, analyze, measure and package the files."""
    from converters.strict_json import typed
    from edge_cv.evaluation import describe_environment
    from edge_cv.evaluation.analysis import class_names
    from edge_cv.evaluation.predictions import Predictions
    from edge_cv.report.photos import photo_results
    from edge_cv.report.values import Epoch, ProbeResult

    recipe, test = job.recipe, photos.test
    layers = _layer_errors(job, files, calibration)
    evaluation = steps.evaluate(job, files, test, model.preprocessing)
    predictions = Predictions.load(job.steps.folder / PREDICTIONS)
    labels = test.classes or model.labels or ()
    classes = class_names(predictions, labels)
    analysis = steps.analysis(job, evaluation, predictions, labels)
    robustness = steps.robustness(job, files, test, model.preprocessing)
    explained = steps.grad_cam(job, model, evaluation, predictions, classes, test)
    duplicates = steps.duplicates(job, calibration, test)
    conformance = steps.conformance(job, files, test)
    results = rows.Results(evaluation, steps.measure(job, files), analysis, layers, robustness, conformance)
    package = steps.package(job, files, calibration, test)
    table = [rows.run_row(file, models[file.output], results) for file in files]
    table = rows.with_package(table, package)
    machine = describe_environment()
    return Report(
        recipe=recipe.to_dict(),
        environment=machine,
        violations=rows.broken_limits(recipe.limits, table),
        warnings=tuple(itertools.chain(*warnings_of_stages([file.output for file in files], predictions).values())),
        rows=tuple(table),
        photos=photo_results(predictions, classes, test),
        notes=(
            *recipe.notes,
            *rows.notes(test, photos.calibration, evaluation, duplicates),
            *rows.latency_notes(table, machine),
            *_model_notes(recipe, model),
        ),
        explained=explained,
        training=typed(tuple[Epoch, ...], model.history, "the training's epochs"),
        fine_tuning=rows.fine_tuning(models.values()),
        delivery=package,
        probe=typed(ProbeResult | None, model.probe, "the linear probe"),
    )


def _write_card(report: Report, recipe: Recipe, preprocessing: Preprocessing, out_dir: str | os.PathLike) -> None:
    """Write the model card, without the notes on latencies."""
    of_latency = rows.latency_notes(report.rows, report.environment)
    kept = tuple(note for note in report.notes if note not in of_latency)
    model_card.write(dataclasses.replace(report, notes=kept), recipe, preprocessing, out_dir)


def _model_notes(recipe: Recipe, model: DenseModel) -> list[str]:
    if isinstance(model, FileModel) and not model.is_keras and recipe.analysis.grad_cam:
        return [f"{model.path.name} is not a Keras model, so there are no Grad-CAM maps and no count of parameters."]
    return list(model.notes) if isinstance(model, RunModel) else []


def _layer_errors(job: Job, files: Sequence[ModelFile], calibration: CalibrationImages) -> dict[str, Any]:
    """The layer errors of the dense integer files; none unless the first file is the float32 reference."""
    from converters.schemes import parse

    reference = files[0]
    if reference.output != FLOAT32:
        return {}
    dense = [file for file in files if not file.output.stage and file.output.format == "tflite"]
    integer = [file for file in dense if parse(file.output.scheme).integer]
    return {file.name: steps.layer_errors(job, reference, file, calibration) for file in integer}


def _with_device(job: Job, report: Report, files: Sequence[ModelFile], device: Ssh | Adb) -> Report:
    """The report with the device's measurements; the limits apply to its latencies."""
    from edge_cv.report.comparison import with_measurements

    measurements = steps.measure_on_device(job, files, device)
    there = rows.with_device_latency(report.rows, measurements)
    violations = rows.broken_limits(job.recipe.limits, there)
    report = dataclasses.replace(with_measurements(report, measurements), violations=violations)
    save(report, job.steps.folder)
    return report
