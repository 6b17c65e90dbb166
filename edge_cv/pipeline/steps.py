"""The cached steps of a run, one function each. Each takes a Job, and what earlier steps returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from edge_cv.deploy.package import Package
from edge_cv.pipeline.file_model import FileModel
from edge_cv.pipeline.inputs import CalibrationImages, groups_table, samples_key
from edge_cv.pipeline.model import CompressedModel, Convertible, DenseModel
from edge_cv.progress import Progress
from edge_cv.recipe import Output, Recipe
from edge_cv.stages import Steps, fingerprint

if TYPE_CHECKING:
    import numpy as np

    from converters.images.preprocessing import Preprocessing
    from converters.schemes import Scheme
    from edge_cv.data import Samples
    from edge_cv.evaluation import Performance
    from edge_cv.evaluation.grad_cam import Explained
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.evaluation.predictions import Predictions
    from edge_cv.evaluation.remote import Adb, Ssh

PREDICTIONS = "predictions.npz"
FLOAT32, INT8 = Output("", "tflite", "float32"), Output("", "tflite", "int8")  # of the dense model
COMPARED_PHOTOS = 1000  # test photos that are compared with the calibration photos


@dataclass(frozen=True)
class Job:
    """What every step needs.

    Attributes:
        recipe: the run's recipe.
        steps: the cached steps in the run's folder.
        progress: shows what is being done.
    """

    recipe: Recipe
    steps: Steps
    progress: Progress


@dataclass(frozen=True)
class ModelFile:
    """A converted file of the run.

    Attributes:
        output: its identity in the report.
        path: the .tflite or .onnx file.
        sha256: of the file.
        macs: multiply-accumulates of an inference.
        size_bytes, gzip_bytes: of the file, and of the file after gzip.
    """

    output: Output
    path: Path
    sha256: str
    macs: int
    size_bytes: int
    gzip_bytes: int

    @property
    def name(self) -> str:
        """The row's name in the report."""
        return self.output.name


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluation of a run's files, as its record has it.

    Attributes:
        images: number of photos that were classified.
        skipped: file and reason of each photo that could not be read.
        scores: the fields of each file's `Score`, by the name of its row.
        temperatures: the fields of each file's `Temperature`, by the name of its row; None if there is none.
        predictions_sha256: of the file `predictions.npz`.
    """

    images: int
    skipped: list[list[str]]
    scores: dict[str, dict[str, Any]]
    temperatures: dict[str, dict[str, Any] | None]
    predictions_sha256: str


def convert(job: Job, model: Convertible, output: Output, calibration: CalibrationImages) -> ModelFile:
    """Convert a model to one output; the file is checked against the model before it is written."""
    recipe, device = job.recipe, job.recipe.device
    scheme = _scheme(recipe, model, output)
    path = job.steps.folder / output.file_name(recipe.model.short_name)
    target = device.target if device is not None and device.scheme == output.name else None

    def work() -> tuple[Any, list[Path]]:
        from converters import to_onnx, to_tflite

        source, images = model.source, calibration.images
        converter: Callable[..., Any] = to_onnx if output.format == "onnx" else to_tflite
        with job.progress(f"converting to {output.name}"):
            conversion = converter(
                source,
                scheme,
                calibration=images,
                labels=model.labels,
                preprocessing=model.preprocessing,
                target=target,
            )
            conversion.save(path)
        measured = {
            "macs": conversion.metadata["macs"],
            "size_bytes": conversion.size_bytes,
            "gzip_bytes": conversion.gzip_bytes,
        }
        return measured, [path, path.with_suffix(".json")]

    inputs = {
        "model": model.sha256,
        "output": asdict(output),
        "scheme": asdict(scheme),
        "labels": model.labels,
        "calibration": calibration.key,
        "path": path.name,
        "target": target,
    }
    result, files = job.steps.cached(f"convert_{output.name}", inputs, work)
    return ModelFile(output, path, files[path.name], **result)


def _scheme(recipe: Recipe, model: Convertible, output: Output) -> Scheme:
    """The scheme of an output, with the recipe's options."""
    from converters.schemes import Int8, Int16x8, Mixed, parse

    scheme, io = parse(output.scheme), "float32" if output.format == "onnx" else recipe.io
    if not isinstance(scheme, Int8 | Int16x8 | Mixed):
        return scheme
    if isinstance(model, CompressedModel):
        return model.stage.int8_with(io)
    if isinstance(scheme, Int8):
        weights = scheme.weights if recipe.weights is None else recipe.weights
        return dataclasses.replace(scheme, io=io, effort=recipe.effort, weights=weights)
    return dataclasses.replace(scheme, io=io)


def layer_errors(
    job: Job, reference: ModelFile, file: ModelFile, calibration: CalibrationImages
) -> tuple[dict[str, Any], ...]:
    """Compare a quantized file with the float32 file layer by layer."""

    def work() -> tuple[Any, list[Path]]:
        from converters.record import read_record
        from converters.tflite.layers import layer_errors as compare

        record = read_record(file.path)
        with job.progress(f"comparing {file.name} with {reference.name} layer by layer"):
            errors = compare(
                reference.path.read_bytes(),
                file.path.read_bytes(),
                calibration.images,
                pixel_offset=None if record is None else record.input.pixel_offset,
            )
        return [asdict(error) for error in errors], []

    inputs = [reference.sha256, file.sha256, calibration.key]
    return tuple(job.steps.cached(f"layers_{file.name}", inputs, work)[0])


def duplicates(job: Job, calibration: CalibrationImages, test: Samples) -> dict[str, list[str]]:
    """Find calibration photos that show the same as a test photo or as another calibration photo."""
    test = test.take(job.recipe.data.images).take(COMPARED_PHOTOS)

    def work() -> tuple[Any, list[Path]]:
        import numpy as np

        from converters.images.image_hash import image_hash, near_duplicates

        def hashes(images: Iterable[np.ndarray]) -> np.ndarray:
            return np.fromiter(map(image_hash, images), np.uint64)

        with job.progress("looking for duplicate photos"):
            own = hashes(calibration.pixels)
            others = hashes(pixels for pixels, _ in test.pixels(calibration.preprocessing))
        names = [path.name for path in calibration.source.paths()]
        found = {
            "photos that are measured": sorted(set(near_duplicates(own, others)[:, 0].tolist())),
            "other calibration photos": sorted(set(near_duplicates(own)[:, 1].tolist())),
        }
        return {where: [names[i] if i < len(names) else str(i) for i in places] for where, places in found.items()}, []

    inputs = [calibration.key, samples_key(test)]
    return job.steps.cached("repeated", inputs, work)[0]


def evaluate(job: Job, files: Sequence[ModelFile], test: Samples, preprocessing: Preprocessing) -> EvaluationResult:
    """Classify the test photos with every file; the predictions are written to `predictions.npz`."""
    test = test.take(job.recipe.data.images)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.evaluation import evaluate as classify

        with job.progress(f"evaluating on {len(test)} photos") as update:
            evaluation = classify(
                {file.name: file.path for file in files},
                test,
                preprocessing,
                reference=files[0].name,
                on_progress=update,
            )
        path = job.steps.folder / PREDICTIONS
        evaluation.predictions.save(path)
        return {
            "images": evaluation.images,
            "skipped": [list(pair) for pair in evaluation.skipped],
            "scores": {name: asdict(score) for name, score in evaluation.scores.items()},
            "temperatures": {name: value and asdict(value) for name, value in evaluation.temperatures.items()},
        }, [path]

    inputs = {
        "artifacts": [(file.name, file.sha256) for file in files],
        "photos": samples_key(test),
        "preprocessing": preprocessing.to_dict(),
    }
    result, written = job.steps.cached("evaluate", inputs, work)
    return EvaluationResult(**result, predictions_sha256=written[PREDICTIONS])


def analysis(
    job: Job, evaluation: EvaluationResult, predictions: Predictions, classes: Sequence[str]
) -> dict[str, Any]:
    """Analyze the predictions: the fields of each row, by the row's name."""
    from edge_cv.evaluation.analysis import analyze
    from edge_cv.evaluation.groups import read_columns

    by, table = job.recipe.analysis.by, groups_table(job.recipe)

    def work() -> tuple[Any, list[Path]]:
        with job.progress("analyzing the predictions"):
            columns = read_columns(table, by, predictions.files) if by else None
            return analyze(predictions, classes, columns, evaluation.temperatures), []

    inputs = [evaluation.predictions_sha256, list(classes), by, fingerprint([table] if by else [])]
    return job.steps.cached("findings", inputs, work)[0]


def robustness(job: Job, files: Sequence[ModelFile], test: Samples, preprocessing: Preprocessing) -> dict[str, Any]:
    """Measure accuracy under corruptions, by the row's name.

    A photo takes 76 inferences of each file, so only the float model and the dense int8 file are measured.
    """
    if not job.recipe.analysis.corruptions:
        return {}
    chosen = [file for file in files if file.output == INT8 or file is files[0]]
    test = test.take(job.recipe.analysis.corruptions)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.evaluation.robustness import robustness as measure_robustness

        with job.progress(f"evaluating on {len(test)} photos under 15 corruptions at 5 severities") as update:
            paths = {file.name: file.path for file in chosen}
            found = measure_robustness(paths, test, preprocessing, on_progress=update)
        return {name: asdict(value) for name, value in found.items()}, []

    inputs = [[(file.name, file.sha256) for file in chosen], samples_key(test), preprocessing.to_dict()]
    return job.steps.cached("robustness", inputs, work)[0]


def conformance(job: Job, files: Sequence[ModelFile], test: Samples) -> dict[str, Any]:
    """Run the file that will be deployed with every runtime of this machine, by the row's name.

    It is the file for the recipe's device, else the dense int8 file, else the first file. An image takes a second with
    the reference kernels.
    """
    if not job.recipe.analysis.conform:
        return {}
    device = job.recipe.device
    wanted = INT8.name if device is None else device.scheme
    file = next((file for file in files if file.name == wanted), files[0])
    test = test.take(job.recipe.analysis.conform)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.pipeline.conform import compare_executors
        from edge_cv.report.plain_json import plain_json

        return plain_json(compare_executors(file.path, test, progress=job.progress)), []

    return {file.name: job.steps.cached("conform", [file.name, file.sha256, samples_key(test)], work)[0]}


def grad_cam(
    job: Job,
    model: DenseModel,
    evaluation: EvaluationResult,
    predictions: Predictions,
    classes: Sequence[str],
    test: Samples,
) -> tuple[Explained, ...]:
    """Draw Grad-CAM maps on some photos, for the predictions of the recipe's first scheme; a Keras model only."""
    from converters.strict_json import typed
    from edge_cv.evaluation.grad_cam import Explained, explain, worth_explaining
    from edge_cv.report.plain_json import plain_json

    if not job.recipe.analysis.grad_cam or (isinstance(model, FileModel) and not model.is_keras):
        return ()
    scheme, count = job.recipe.schemes[0], job.recipe.analysis.grad_cam

    def work() -> tuple[Any, list[Path]]:
        misses = 2 * count // 3
        places = worth_explaining(predictions, scheme, misses, count - misses)
        with job.progress("drawing Grad-CAM maps"):
            photos = explain(model.model, model.preprocessing, predictions, scheme, places, classes, test)
        return plain_json([asdict(photo) for photo in photos]), []

    inputs = [evaluation.predictions_sha256, model.sha256, scheme, count, list(classes)]
    return typed(tuple[Explained, ...], job.steps.cached("attention", inputs, work)[0], "Grad-CAM maps")


def measure(job: Job, files: Sequence[ModelFile]) -> dict[str, Performance]:
    """Measure latency and memory, by the row's name; if one file is new, all are measured, so that they compare."""
    from converters.strict_json import typed
    from edge_cv.evaluation import Performance, describe_environment, measure_in_turns

    part = job.recipe.measure

    def work() -> tuple[Any, list[Path]]:
        with job.progress("measuring latency") as update:
            measured = measure_in_turns(
                {file.name: file.path for file in files},
                threads=part.threads,
                runs=part.runs,
                warmup=part.warmup,
                on_progress=update,
            )
        return {name: asdict(performance) for name, performance in measured.items()}, []

    machine = describe_environment()
    inputs = [[(file.name, file.sha256) for file in files], asdict(part), machine["cpu"], machine["cores"]]
    return typed(dict[str, Performance], job.steps.cached("measure", inputs, work)[0], "the latencies")


def measure_on_device(job: Job, files: Sequence[ModelFile], device: Ssh | Adb) -> list[Measurement]:
    """Measure each TFLite file on a device; each measurement is a file in the folder `measurements`."""
    tflite = [file for file in files if file.output.format == "tflite"]
    return [_measure_file_on_device(job, file, device) for file in tflite]


def _measure_file_on_device(job: Job, file: ModelFile, device: Ssh | Adb) -> Measurement:
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.evaluation.remote import measure_on

    part = job.recipe.measure
    path = job.steps.folder / "measurements" / f"{file.name}.json"

    def work() -> tuple[Any, list[Path]]:
        with job.progress(f"measuring {file.name} on {device}") as update:
            measured = measure_on(
                device, file.path, threads=part.threads, runs=part.runs, warmup=part.warmup, on_progress=update
            )
        measured.save(path)
        if measured.error is not None:
            raise InputError(measured.error)
        return None, [path]

    job.steps.cached(f"measure_{file.name}_there", [file.sha256, asdict(part), asdict(device)], work)
    return Measurement.load(path)


def package(job: Job, files: Sequence[ModelFile], calibration: CalibrationImages, test: Samples) -> Package | None:
    """Check the device's file and package it for the device. Only what a simulator computes is cached."""
    from edge_cv.deploy.package import package as package_file
    from edge_cv.pipeline.compile import simulated_package

    device = job.recipe.device
    if device is None:
        return None
    (file,) = (file for file in files if file.name == device.scheme)
    test = test.take(job.recipe.data.images)
    package = simulated_package(job.steps, device, file.path, file.sha256, calibration, test, job.progress)
    if package is not None:
        return package
    with job.progress(f"packaging {file.name} for {device.name}"):
        return package_file(device, file.path, job.steps.folder)
