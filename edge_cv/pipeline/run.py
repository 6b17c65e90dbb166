"""From a recipe to a report: the stages in order, each skipped when nothing that it depends on has changed.

model, trained where the recipe says so -> convert a scheme, each checked -> ONNX -> layer errors -> evaluate all
-> what the answers tell -> measure each -> report
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, unknown
from edge_cv.deploy.package import Delivery, check_deliverable
from edge_cv.pipeline import model as network
from edge_cv.pipeline.model import RunModel, photos_key
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Fit, Limits, Output, Recipe
from edge_cv.stages import Stages, fingerprint

if TYPE_CHECKING:
    import numpy as np

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import ImageSource
    from edge_cv.data.split import Splits
    from edge_cv.evaluation.accuracy import Predictions
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.report import Report, Row

PREDICTIONS = "predictions.npz"
COMPARED_PHOTOS = 1000  # of those that are measured, with the calibration photos
BUSY_SHARE = 0.9  # of wall time; less means that other programs took the processor


@dataclass(frozen=True)
class ModelFile:
    """One file of the run, `scheme` being its row in the report (`onnx_float32` for the ONNX file)."""

    scheme: str
    path: Path
    sha256: str
    macs: int
    size_bytes: int
    gzip_bytes: int


def run(
    recipe: Recipe,
    out_dir: str | os.PathLike,
    *,
    device: Ssh | Adb | None = None,
    progress: Progress = silent,
) -> Report:
    """Run a recipe and write `report.json`, `report.html`, the model and the artifacts into a folder.

    A second run with the same folder does only what changed. A run that was stopped, at any moment, goes on.

    Args:
        recipe: what to do.
        out_dir: the run's folder; made when it is missing.
        device: measure the TFLite files there too, as `edge_cv.evaluation.remote.parse` has it; limits on latency are
            then those on the device.
        progress: told what is being done; `edge_cv.progress.shown` writes to stderr.

    Returns:
        The Report; its `violations` name each limit of the recipe that was broken.

    Raises:
        InputError: the recipe asks for something that is not there, the folder cannot be written, or the device failed:
            the report then has what was measured here.
        CheckFailed: a conversion did not pass its check; what was made before it stays.
    """
    from converters.schemes import parse
    from edge_cv.evaluation import describe_environment
    from edge_cv.evaluation.accuracy import Predictions
    from edge_cv.evaluation.analysis import class_names
    from edge_cv.report import Report
    from edge_cv.report.measured import with_measurements
    from edge_cv.report.photos import photo_results

    for scheme in recipe.schemes:
        parse(scheme)
    check_deliverable(recipe)
    recipe, photos = _opened(recipe)
    measured, calibration = photos.measured, photos.calibration
    _check_explain(recipe, measured)
    folder = Path(out_dir)
    stages = Stages(folder)
    model = network.of(recipe, photos, stages, progress)
    images = _Calibration(calibration, model.preprocessing, progress)

    derived = network.compressed(recipe, photos, model, folder, progress)
    models: dict[str, RunModel | network.CompressedModel] = {"": model, **{one.name: one for one in derived}}
    made_of = {output.name: models[output.stage] for output in recipe.outputs()}
    artifacts = [_convert(recipe, stages, models[o.stage], images, o, progress) for o in recipe.outputs()]
    layers = {
        a.scheme: _layers(stages, artifacts[0], a, images, progress)
        for a in artifacts
        if a.scheme in recipe.schemes and parse(a.scheme).integer
    }
    evaluation = _evaluate(recipe, stages, artifacts, measured, model.preprocessing, progress)
    predictions = Predictions.load(folder / PREDICTIONS)
    classes = class_names(predictions, measured.classes or model.labels or ())
    found = _findings(recipe, stages, evaluation, measured.classes or model.labels or (), predictions, progress)
    robust = _robustness(recipe, stages, artifacts, measured, model.preprocessing, progress)
    explained = _explained(recipe, stages, evaluation, model, predictions, classes, measured, progress)
    repeated = _repeated(stages, images, measured.take(recipe.data.images).take(COMPARED_PHOTOS), progress)
    performance = _measure(recipe, stages, artifacts, progress)
    delivery = _deliver(recipe, folder, artifacts, progress)
    rows = tuple(
        _row(a, made_of[a.scheme], evaluation, performance[a.scheme], layers.get(a.scheme, ()), found[a.scheme], robust)
        for a in artifacts
    )
    if delivery is not None and delivery.memory is not None:
        arena = delivery.memory.arena_bytes
        rows = tuple(dataclasses.replace(r, arena_bytes=arena) if r.scheme == delivery.scheme else r for r in rows)
    machine = describe_environment()
    report = Report(
        recipe=recipe.to_dict(),
        environment=machine,
        violations=tuple(v for limits in recipe.limits for v in broken(limits, rows)),
        rows=rows,
        photos=photo_results(predictions, classes, measured),
        notes=(*recipe.notes, *_notes(measured, calibration, evaluation, rows, machine, repeated)),
        explained=explained,
        training=model.history,
        delivery=delivery,
    )
    report.save(folder)
    if device is not None:
        measured_there = _measure_on(recipe, stages, artifacts, device, progress)
        there = on_device(rows, measured_there)
        violations = tuple(v for limits in recipe.limits for v in broken(limits, there))
        report = dataclasses.replace(with_measurements(report, measured_there), violations=violations)
        report.save(folder)
    return report


def train(
    recipe: Recipe,
    out_dir: str | os.PathLike,
    *,
    progress: Progress = silent,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> RunModel:
    """Train the recipe's model and no more: `model.keras` in the folder, with its checkpoints, curves and logs.

    It needs no TensorFlow when Keras runs on JAX. `run` with the same recipe and folder goes on from there.

    Args:
        recipe: with a part `fit`.
        out_dir: the run's folder; made when it is missing.
        progress: told what is being done.
        on_epoch: given each epoch's figures (`edge_cv.training.fit`); what it raises ends the training.

    Raises:
        InputError: as `run`, or the recipe has no part `fit`.
    """
    if recipe.fit is None:
        raise InputError(f"to train, the recipe {recipe.name} must have a part fit. Received: none")
    recipe, photos = _opened(recipe)
    return network.of(recipe, photos, Stages(Path(out_dir)), progress, on_epoch)


def _opened(recipe: Recipe) -> tuple[Recipe, Splits]:
    """The recipe with its number of classes, and the photos by what they are used for."""
    from edge_cv.data import classes_to_train
    from edge_cv.data.split import Splits, measure_and_calibrate, train_and_measure
    from edge_cv.models import IMAGENET_CLASSES, names

    if recipe.model.name not in names():
        raise unknown("model", recipe.model.name, names())
    data, fit, classes = recipe.data, recipe.fit, recipe.model.classes
    if fit is None and not recipe.compression():
        classes = classes or IMAGENET_CLASSES
        wanted = None if classes == IMAGENET_CLASSES else ()
        pair = measure_and_calibrate(data.measure, data.calibrate, data.calibration_images, classes=wanted)
        photos = Splits(None, None, *pair)
    else:
        if fit is None:  # a model that knows its classes, to be compressed
            fit, classes = Fit(), classes or IMAGENET_CLASSES
        everything = classes == IMAGENET_CLASSES
        photos = train_and_measure(
            data.measure,
            data.calibrate,
            data.calibration_images,
            train=fit.data,
            validation=fit.validation,
            classes=None if everything else classes_to_train(fit.data or data.measure),
            seed=fit.seed,
        )
        found = len(photos.train.classes)
        if classes not in (None, found):
            raise InputError(f"model.classes must be those of the training photos, {found}. Received: {classes}")
        classes = found
        if fit.images is not None:
            photos = dataclasses.replace(photos, train=photos.train.take(fit.images))
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, classes=classes)), photos


@dataclass(frozen=True)
class _Calibration:
    """The calibration photos, decoded when the first stage asks for them."""

    source: ImageSource
    preprocessing: Preprocessing
    progress: Progress

    @functools.cached_property
    def images(self) -> np.ndarray:
        import numpy as np

        with self.progress("decoding calibration photos") as update:
            pixels = []
            for done, (photo, _) in enumerate(self.source.pixels(self.preprocessing), 1):
                pixels.append(photo)
                update(done, len(self.source))
            return np.stack(pixels)

    @functools.cached_property
    def key(self) -> Any:
        return photos_key(self.source.photos)


def _convert(
    recipe: Recipe,
    stages: Stages,
    model: RunModel | network.CompressedModel,
    calibration: _Calibration,
    output: Output,
    progress: Progress,
) -> ModelFile:
    """The file of one output, converted from the recipe's model or from a compressed one."""
    from converters.schemes import parse

    name, onnx = output.name, output.format == "onnx"
    derived = isinstance(model, network.CompressedModel)
    scheme: Any = output.scheme
    if not onnx:
        scheme = parse(scheme)
        scheme = dataclasses.replace(scheme, io=recipe.io) if scheme.integer else scheme
        scheme = model.made.int8_with(recipe.io) if derived and scheme.integer else scheme
    path = stages.folder / output.file_name(recipe.model.short_name)
    target = recipe.device.target if recipe.device is not None and recipe.device.scheme == name else None

    def work() -> tuple[Any, list[Path]]:
        from converters import to_onnx, to_tflite

        source, images = model.source, calibration.images
        with progress(f"converting to {name}"):
            conversion = (to_onnx if onnx else to_tflite)(
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

    how = scheme if onnx else asdict(scheme)
    inputs = {
        "model": model.sha256,
        "scheme": [dataclasses.replace(output, stage="").name, how],
        "calibration": calibration.key,
        "path": path.name,
    }
    inputs["target"] = target
    result, files = stages.once(f"convert_{name}", inputs, work)
    return ModelFile(name, path, files[path.name], **result)


def _layers(
    stages: Stages, reference: ModelFile, artifact: ModelFile, calibration: _Calibration, progress: Progress
) -> tuple[dict[str, Any], ...]:
    if reference.scheme != "float32":
        return ()

    def work() -> tuple[Any, list[Path]]:
        from dataclasses import asdict

        from converters.tflite import metadata
        from converters.tflite.layers import layer_errors

        with progress(f"comparing {artifact.scheme} with float32 layer by layer"):
            errors = layer_errors(
                reference.path.read_bytes(),
                artifact.path.read_bytes(),
                calibration.images,
                pixel_offset=metadata.read(artifact.path)["input"]["pixel_offset"],
            )
        return [asdict(error) for error in errors], []

    inputs = [reference.sha256, artifact.sha256, calibration.key]
    return tuple(stages.once(f"layers_{artifact.scheme}", inputs, work)[0])


def _repeated(
    stages: Stages, calibration: _Calibration, measured: ImageSource, progress: Progress
) -> dict[str, list[str]]:
    """The calibration photos that show what another one, or a measured one, shows; by where it was found again."""

    def work() -> tuple[Any, list[Path]]:
        import numpy as np

        from converters.images.image_hash import image_hash, near_duplicates

        def hashes(every: Iterable[np.ndarray]) -> np.ndarray:
            return np.fromiter(map(image_hash, every), np.uint64)

        with progress("looking for photos that are there twice"):
            own = hashes(calibration.images)
            others = hashes(pixels for pixels, _ in measured.pixels(calibration.preprocessing))
        names = [photo.file.name for photo in calibration.source.photos]
        found = {
            "photos that are measured": sorted(set(near_duplicates(own, others)[:, 0].tolist())),
            "other calibration photos": sorted(set(near_duplicates(own)[:, 1].tolist())),
        }
        return {where: [names[i] if i < len(names) else str(i) for i in places] for where, places in found.items()}, []

    inputs = [calibration.key, photos_key(measured.photos)]
    return stages.once("repeated", inputs, work)[0]


def _evaluate(
    recipe: Recipe,
    stages: Stages,
    artifacts: Sequence[ModelFile],
    source: ImageSource,
    preprocessing: Preprocessing,
    progress: Progress,
) -> dict[str, Any]:
    """Scores by scheme, skipped photos and the SHA-256 of the predictions, which are a file, as JSON has them."""
    source = source.take(recipe.data.images)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.evaluation import evaluate

        with progress(f"evaluating on {len(source)} photos") as update:
            evaluation = evaluate(
                {artifact.scheme: artifact.path for artifact in artifacts},
                source,
                preprocessing,
                reference=artifacts[0].scheme,
                on_progress=update,
            )
        path = stages.folder / PREDICTIONS
        evaluation.predictions.save(path)
        return {
            "images": evaluation.images,
            "skipped": [list(pair) for pair in evaluation.skipped],
            "scores": {name: asdict(score) for name, score in evaluation.scores.items()},
            "temperatures": {name: value and asdict(value) for name, value in evaluation.temperatures.items()},
        }, [path]

    inputs = {
        "artifacts": [(artifact.scheme, artifact.sha256) for artifact in artifacts],
        "photos": photos_key(source.photos),
        "preprocessing": preprocessing.to_dict(),
    }
    result, files = stages.once("evaluate", inputs, work)
    return {**result, "predictions": files[PREDICTIONS]}


def _check_explain(recipe: Recipe, source: ImageSource) -> None:
    """Raise InputError for what the last stages would refuse, before the first one runs."""
    from edge_cv.evaluation.groups import read_columns
    from edge_cv.evaluation.robustness import check_measurable

    if recipe.explain.by:
        files = [photo.file for photo in source.take(recipe.data.images).photos]
        read_columns(_table(recipe), recipe.explain.by, files)
    if recipe.explain.corruptions:
        check_measurable(source)


def _table(recipe: Recipe) -> Path:
    """The CSV that groups the photos."""
    return Path(recipe.explain.metadata or Path(recipe.data.measure) / "labels.csv").expanduser()


def _findings(
    recipe: Recipe,
    stages: Stages,
    evaluation: dict[str, Any],
    classes: Sequence[str],
    predictions: Predictions,
    progress: Progress,
) -> dict[str, Any]:
    """What the predictions tell, by scheme."""
    from edge_cv.evaluation.analysis import findings
    from edge_cv.evaluation.groups import read_columns

    by, table = recipe.explain.by, _table(recipe)

    def work() -> tuple[Any, list[Path]]:
        with progress("looking at the answers class by class"):
            columns = read_columns(table, by, predictions.files) if by else None
            return findings(predictions, classes, columns, evaluation["temperatures"]), []

    inputs = [evaluation["predictions"], list(classes), by, fingerprint([table] if by else [])]
    return stages.once("findings", inputs, work)[0]


def _robustness(
    recipe: Recipe,
    stages: Stages,
    artifacts: Sequence[ModelFile],
    source: ImageSource,
    preprocessing: Preprocessing,
    progress: Progress,
) -> dict[str, Any]:
    """Accuracy under corruptions, by scheme: of the float model and int8, since a photo takes 76 inferences each."""
    if not recipe.explain.corruptions:
        return {}
    chosen = [a for a in artifacts if a.scheme == "int8" or a is artifacts[0]]
    source = source.take(recipe.explain.corruptions)

    def work() -> tuple[Any, list[Path]]:
        from edge_cv.evaluation.robustness import robustness

        with progress(f"evaluating on {len(source)} photos under 15 corruptions at 5 severities") as update:
            files = {artifact.scheme: artifact.path for artifact in chosen}
            found = robustness(files, source, preprocessing, on_progress=update)
        return {scheme: asdict(value) for scheme, value in found.items()}, []

    inputs = [[(a.scheme, a.sha256) for a in chosen], photos_key(source.photos), preprocessing.to_dict()]
    return stages.once("robustness", inputs, work)[0]


def _explained(
    recipe: Recipe,
    stages: Stages,
    evaluation: dict[str, Any],
    model: RunModel,
    predictions: Predictions,
    classes: Sequence[str],
    source: ImageSource,
    progress: Progress,
) -> list[Any]:
    """Photos with where the model looks, for the first scheme's answers."""
    from edge_cv.evaluation.grad_cam import explain, worth_explaining
    from edge_cv.report.values import plain_json

    if not recipe.explain.attention:
        return []
    scheme, count = recipe.schemes[0], recipe.explain.attention

    def work() -> tuple[Any, list[Path]]:
        misses = 2 * count // 3
        places = worth_explaining(predictions, scheme, misses, count - misses)
        with progress("drawing where the model looks"):
            photos = explain(model.model, model.preprocessing, predictions, scheme, places, classes, source)
        return plain_json([asdict(photo) for photo in photos]), []

    inputs = [evaluation["predictions"], model.sha256, scheme, count, list(classes)]
    return stages.once("attention", inputs, work)[0]


def _measure(recipe: Recipe, stages: Stages, artifacts: Sequence[ModelFile], progress: Progress) -> dict[str, Any]:
    """Latencies and memory by scheme; all are measured again when one is new, since they are compared."""
    from edge_cv.evaluation import describe_environment, measure_in_turns

    part = recipe.measure

    def work() -> tuple[Any, list[Path]]:
        with progress("measuring latency") as update:
            measured = measure_in_turns(
                {artifact.scheme: artifact.path for artifact in artifacts},
                threads=part.threads,
                runs=part.runs,
                warmup=part.warmup,
                on_progress=update,
            )
        return {
            scheme: {
                "latency": [entry.to_json() for entry in performance.latency],
                "peak_memory_bytes": performance.peak_memory_bytes,
            }
            for scheme, performance in measured.items()
        }, []

    machine = describe_environment()
    shas = [(artifact.scheme, artifact.sha256) for artifact in artifacts]
    return stages.once("measure", [shas, recipe.to_dict()["measure"], machine["cpu"], machine["cores"]], work)[0]


def _measure_on(
    recipe: Recipe, stages: Stages, artifacts: Sequence[ModelFile], device: Ssh | Adb, progress: Progress
) -> list[Measurement]:
    """What a device says of each TFLite file; a file of the run each."""
    from edge_cv.evaluation.measurement import Measurement
    from edge_cv.evaluation.remote import measure_on

    part, found = recipe.measure, []
    for artifact in artifacts:
        if artifact.path.suffix != ".tflite":
            continue
        path = stages.folder / "measurements" / f"{artifact.scheme}.json"

        def work(artifact: ModelFile = artifact, path: Path = path) -> tuple[Any, list[Path]]:
            with progress(f"measuring {artifact.scheme} on {device}") as update:
                measured = measure_on(
                    device,
                    artifact.path,
                    threads=part.threads,
                    runs=part.runs,
                    warmup=part.warmup,
                    on_progress=update,
                )
            measured.save(path)
            if measured.error is not None:
                raise InputError(measured.error)
            return None, [path]

        stages.once(f"measure_{artifact.scheme}_there", [artifact.sha256, asdict(part), asdict(device)], work)
        found.append(Measurement.load(path))
    return found


def on_device(rows: Sequence[Row], measurements: Sequence[Measurement]) -> tuple[Row, ...]:
    """The rows with the device's latencies in the place of this machine's, where there are any."""
    latency = {measured.sha256: tuple(e.to_json() for e in measured.latency) for measured in measurements}
    return tuple(dataclasses.replace(row, latency=latency.get(row.sha256, row.latency)) for row in rows)


def _deliver(recipe: Recipe, folder: Path, artifacts: Sequence[ModelFile], progress: Progress) -> Delivery | None:
    """The device's file held to its rules, and what else is made of it; anew each time, it takes no time."""
    from edge_cv.deploy.package import deliver

    device = recipe.device
    if device is None:
        return None
    (artifact,) = (a for a in artifacts if a.scheme == device.scheme)
    with progress(f"delivering {artifact.scheme} for {device.name}"):
        return deliver(device, artifact.path, folder)


def _row(
    artifact: ModelFile,
    model: RunModel | network.CompressedModel,
    evaluation: dict[str, Any],
    performance: dict[str, Any],
    layers: tuple[dict[str, Any], ...],
    found: dict[str, Any],
    robust: dict[str, Any],
) -> Row:
    from edge_cv.report import Row

    score = evaluation["scores"][artifact.scheme]
    return Row(
        scheme=artifact.scheme,
        file=artifact.path.name,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        gzip_bytes=artifact.gzip_bytes,
        parameters=model.parameters,
        macs=artifact.macs,
        images=score["images"],
        top1=score["top1"],
        top5=score["top5"],
        top1_ci95=score["top1_ci95"],
        agreement=score["agreement"],
        agreement_ci95=score["agreement_ci95"],
        sqnr_db=score["sqnr_db"],
        latency=tuple(performance["latency"]),
        peak_memory_bytes=performance["peak_memory_bytes"],
        layers=layers,
        robustness=robust.get(artifact.scheme),
        sparsity=model.made.sparsity if isinstance(model, network.CompressedModel) else None,
        total_sparsity=model.made.total_sparsity if isinstance(model, network.CompressedModel) else None,
        **found,
    )


def broken(limits: Limits, rows: Sequence[Row]) -> list[str]:
    """One sentence for each limit that its row breaks, with the figure; also where the figure could not be measured."""
    by_scheme = {row.scheme: row for row in rows}
    row, reference = by_scheme[limits.scheme], by_scheme.get("float32")

    def p50(of: Row | None) -> float | None:
        return next((e["p50_ms"] for e in of.latency if e["threads"] == 1), None) if of else None

    def ratio(a: float | None, b: float | None) -> float | None:
        return a / b if a is not None and b else None

    def drop() -> float | None:
        known = reference is not None and reference.top1 is not None and row.top1 is not None
        return reference.top1 - row.top1 if known else None

    checks = (
        ("size in bytes", row.size_bytes, limits.max_size_bytes, "at most"),
        ("arena in bytes", row.arena_bytes, limits.max_arena_bytes, "at most"),
        (
            "size against float32",
            ratio(row.size_bytes, reference and reference.size_bytes),
            limits.max_size_ratio,
            "at most",
        ),
        ("median latency in ms at one thread", p50(row), limits.max_p50_ms, "at most"),
        ("latency against float32 at one thread", ratio(p50(row), p50(reference)), limits.max_latency_ratio, "at most"),
        ("top-1 agreement with float32", row.agreement, limits.min_agreement, "at least"),
        ("top-1 drop from float32", drop(), limits.max_top1_drop, "at most"),
        ("SQNR of the logits in dB", row.sqnr_db, limits.min_sqnr_db, "at least"),
    )
    sentences = []
    for what, value, limit, side in checks:
        if limit is None:
            continue
        if value is None:
            sentences.append(f"{limits.scheme}: {what} must be {side} {limit:g}, and was not measured")
        elif (value > limit) if side == "at most" else (value < limit):
            sentences.append(f"{limits.scheme}: {what} must be {side} {limit:g}. Measured: {value:.4g}")
    return sentences


def _notes(
    measured: ImageSource,
    calibration: ImageSource,
    evaluation: dict[str, Any],
    rows: Sequence[Row],
    machine: dict[str, Any],
    repeated: dict[str, list[str]],
) -> tuple[str, ...]:
    notes = [
        f"Measured on {evaluation['images']} photos of “{measured.name}”; integer schemes calibrated on "
        f"{len(calibration)} others, of “{calibration.name}”."
    ]
    for where, names in repeated.items():
        if names:
            notes.append(
                f"{len(names)} calibration photos show the same as {where}, such as {names[0]}: "
                "take them out, the integer schemes' figures are not to be trusted as they are."
            )
    share = min((e["cpu_share"] for row in rows for e in row.latency if e["threads"] == 1), default=1.0)
    if share < BUSY_SHARE:
        notes.append(
            "The machine was busy while latency was measured: at one thread the runtime had a processor only "
            f"{share:.0%} of the time. The latencies are too high; "
            "delete stages/measure.json and run again when it is calm."
        )
    if machine["int8_dot_product"] is False:
        notes.append(
            "This processor has no instruction that multiplies and adds int8 numbers (VNNI on x86, dot product on "
            "ARM): int8 convolutions are hardly faster than float ones here, and may be much faster on the target."
        )
    if evaluation["skipped"]:
        first = ", ".join(Path(file).name for file, _ in evaluation["skipped"][:3])
        notes.append(f"{len(evaluation['skipped'])} photos could not be read and were left out: {first}.")
    return tuple(notes)
