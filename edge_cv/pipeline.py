"""From a recipe to a report: the stages in order, each skipped when nothing that it depends on has changed.

model -> convert a scheme, each checked -> ONNX -> layer errors -> evaluate all -> measure each -> report
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, unknown
from converters.files import write_atomic
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Limits, Recipe
from edge_cv.stages import Stages

if TYPE_CHECKING:
    import numpy as np

    from converters.preprocessing import Preprocessing
    from edge_cv.data import ImageSource, Photo
    from edge_cv.evaluation import Evaluation
    from edge_cv.report import Report, Row

SHOWN_PHOTOS = 24
THUMBNAIL_PIXELS = 160
COMPARED_PHOTOS = 1000  # of those that are measured, with the calibration photos
BUSY_SHARE = 0.9  # of wall time; less means that other programs took the processor


@dataclass(frozen=True)
class Artifact:
    """One file of the run, `scheme` being its row in the report (`onnx_float32` for the ONNX file)."""

    scheme: str
    path: Path
    sha256: str
    macs: int
    size_bytes: int
    gzip_bytes: int


def run(recipe: Recipe, out_dir: str | os.PathLike, *, progress: Progress = silent) -> Report:
    """Run a recipe and write `report.json`, `report.html`, the model and the artifacts into a folder.

    A second run with the same folder does only what changed. A run that was stopped, at any moment, goes on.

    Args:
        recipe: what to do.
        out_dir: the run's folder; made when it is missing.
        progress: told what is being done; `edge_cv.progress.shown` writes to stderr.

    Returns:
        The Report; its `violations` name each limit of the recipe that was broken.

    Raises:
        InputError: the recipe asks for something that is not there, or the folder cannot be written.
        CheckFailed: a conversion did not pass its check; what was made before it stays.
    """
    from converters.schemes import parse
    from edge_cv.data.split import measure_and_calibrate
    from edge_cv.evaluation import environment
    from edge_cv.models import IMAGENET_CLASSES, names
    from edge_cv.report import Report

    if recipe.model.name not in names():
        raise unknown("model", recipe.model.name, names())
    for scheme in recipe.schemes:
        parse(scheme)
    measured, calibration = measure_and_calibrate(
        recipe.data.measure,
        recipe.data.calibrate,
        recipe.data.calibration_images,
        classes=None if recipe.model.classes == IMAGENET_CLASSES else (),
    )
    folder = Path(out_dir)
    stages = Stages(folder)
    model = _Model(recipe, stages, progress)
    images = _Calibration(calibration, model.preprocessing, progress)

    artifacts = [_convert(recipe, stages, model, images, scheme, progress) for scheme in recipe.schemes]
    artifacts += [_convert(recipe, stages, model, images, f"onnx_{scheme}", progress) for scheme in recipe.onnx]
    layers = {
        a.scheme: _layers(stages, artifacts[0], a, images, progress)
        for a in artifacts
        if a.scheme in recipe.schemes and parse(a.scheme).integer
    }
    evaluation = _evaluate(recipe, stages, artifacts, measured, model.preprocessing, progress)
    repeated = _repeated(stages, images, measured.take(recipe.data.images).take(COMPARED_PHOTOS), progress)
    performance = _measure(recipe, stages, artifacts, progress)
    rows = tuple(_row(a, model, evaluation, performance[a.scheme], layers.get(a.scheme, ())) for a in artifacts)
    machine = environment()
    report = Report(
        recipe=recipe.to_dict(),
        environment=machine,
        violations=tuple(v for limits in recipe.limits for v in broken(limits, rows)),
        rows=rows,
        photos=_photos(measured, evaluation, recipe),
        notes=(*recipe.notes, *_notes(measured, calibration, evaluation, rows, machine, repeated)),
    )
    report.save(folder)
    return report


class _Model:
    """The recipe's model: saved in the run's folder, and built or loaded only when a stage needs it."""

    def __init__(self, recipe: Recipe, stages: Stages, progress: Progress) -> None:
        self._recipe, self._progress = recipe, progress
        self._path = stages.folder / "model.keras"
        self._built: Any = None
        part = recipe.model
        inputs: dict[str, Any] = {"model": recipe.to_dict()["model"]}
        if part.weights not in (None, "imagenet") and Path(part.weights).is_file():
            inputs["weights"] = _fingerprint([Path(part.weights)])
        record, files = stages.once("model", inputs, self._build)
        from converters.preprocessing import Preprocessing

        self.preprocessing = Preprocessing.from_dict(record["preprocessing"])
        self.parameters: int = record["parameters"]
        self.labels: list[str] | None = record["labels"]
        self.sha256 = files[self._path.name]

    def _build(self) -> tuple[Any, list[Path]]:
        from converters.quiet import import_tensorflow
        from edge_cv import models

        part = self._recipe.model
        with self._progress(f"building {part.name}"):
            import_tensorflow()
            model = models.build(
                part.name,
                classes=part.classes,
                image_size=part.image_size,
                alpha=part.alpha,
                weights=part.weights,
                **part.options,
            )
            record = {
                "file": self._path.name,
                "name": part.name,
                "preprocessing": model.preprocessing.to_dict(),
                "parameters": int(sum(_size(v.shape) for v in model.trainable_variables)),
                "labels": _labels(part.classes),
            }
            temporary = self._path.with_name(".model.part.keras")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                model.save(temporary)
                os.replace(temporary, self._path)
            except OSError as error:
                raise InputError(f"{self._path} cannot be written: {error.strerror or error}") from error
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            write_atomic(self._path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
        self._built = model
        return record, [self._path]

    @functools.cached_property
    def source(self) -> Any:
        """The model as `converters` takes it."""
        from converters.source import load, open_source

        return open_source(self._built if self._built is not None else load(self._path))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= int(n)
    return size


def _labels(classes: int) -> list[str] | None:
    from edge_cv.data import imagenet_labels
    from edge_cv.models import IMAGENET_CLASSES

    if classes != IMAGENET_CLASSES:
        return None

    return [label.name for label in imagenet_labels()]


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
        return _photos_key(self.source.photos)


def _photos_key(photos: Sequence[Photo]) -> Any:
    files = _fingerprint([photo.file for photo in photos])
    return files, [(photo.label, photo.box, photo.flip) for photo in photos]


def _fingerprint(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What tells a changed file from the same one, without reading it."""
    found = []
    for path in paths:
        try:
            status = path.stat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((str(path), -1, 0))  # the decoder names it
    return found


def _convert(
    recipe: Recipe, stages: Stages, model: _Model, calibration: _Calibration, scheme: str, progress: Progress
) -> Artifact:
    onnx = scheme.startswith("onnx_")
    path = stages.folder / f"{recipe.model.name}_{scheme}{'.onnx' if onnx else '.tflite'}"

    def work() -> tuple[Any, list[Path]]:
        from converters import to_onnx, to_tflite

        convert, name = (to_onnx, scheme.removeprefix("onnx_")) if onnx else (to_tflite, scheme)
        source, images = model.source, calibration.images
        with progress(f"converting to {scheme}"):
            conversion = convert(
                source, name, calibration=images, labels=model.labels, preprocessing=model.preprocessing
            )
            conversion.save(path)
        measured = {
            "macs": conversion.metadata["macs"],
            "size_bytes": conversion.size_bytes,
            "gzip_bytes": len(gzip.compress(conversion.content, mtime=0)),
        }
        return measured, [path, path.with_suffix(".json")]

    inputs = {"model": model.sha256, "scheme": scheme, "calibration": calibration.key, "path": path.name}
    result, files = stages.once(f"convert_{scheme}", inputs, work)
    return Artifact(scheme, path, files[path.name], **result)


def _layers(
    stages: Stages, reference: Artifact, artifact: Artifact, calibration: _Calibration, progress: Progress
) -> tuple[dict[str, Any], ...]:
    if reference.scheme != "float32":
        return ()

    def work() -> tuple[Any, list[Path]]:
        from dataclasses import asdict

        from converters import metadata
        from converters.layers import layer_errors

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
        from converters.image_hash import image_hash, near_pairs

        with progress("looking for photos that are there twice"):
            own = [image_hash(pixels) for pixels in calibration.images]
            others = [image_hash(pixels) for pixels, _ in measured.pixels(calibration.preprocessing)]
        names = [photo.file.name for photo in calibration.source.photos]
        found = {
            "photos that are measured": sorted({i for i, _ in near_pairs(own, others)}),
            "other calibration photos": sorted({j for _, j in near_pairs(own)}),
        }
        return {where: [names[i] if i < len(names) else str(i) for i in places] for where, places in found.items()}, []

    inputs = [calibration.key, _photos_key(measured.photos)]
    return stages.once("repeated", inputs, work)[0]


def _evaluate(
    recipe: Recipe,
    stages: Stages,
    artifacts: Sequence[Artifact],
    source: ImageSource,
    preprocessing: Preprocessing,
    progress: Progress,
) -> dict[str, Any]:
    """Scores by scheme, skipped photos, and the photos worth showing, as JSON has them."""
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
        return _plain(evaluation), []

    inputs = {
        "artifacts": [(artifact.scheme, artifact.sha256) for artifact in artifacts],
        "photos": _photos_key(source.photos),
        "preprocessing": preprocessing.to_dict(),
    }
    return stages.once("evaluate", inputs, work)[0]


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    from dataclasses import asdict

    shown = _worth_showing(evaluation.predictions)
    return {
        "images": evaluation.images,
        "skipped": [list(pair) for pair in evaluation.skipped],
        "scores": {name: asdict(score) for name, score in evaluation.scores.items()},
        "predictions": [{"file": str(p.file), "label": p.label, "top5": p.top5} for p in shown],
    }


def _worth_showing(predictions: Sequence[Any]) -> list[Any]:
    """The photos on which the artifacts disagree, then others, spread evenly, up to what a page shows."""

    def disagree(prediction: Any) -> bool:
        return len({top5[0][0] for top5 in prediction.top5.values()}) > 1

    different = [p for p in predictions if disagree(p)][:SHOWN_PHOTOS]
    room = SHOWN_PHOTOS - len(different)
    same = [p for p in predictions if not disagree(p)]
    step = max(1, len(same) // room) if room else 1
    return different + same[::step][:room]


def _measure(recipe: Recipe, stages: Stages, artifacts: Sequence[Artifact], progress: Progress) -> dict[str, Any]:
    """Latencies and memory by scheme; all are measured again when one is new, since they are compared."""
    from edge_cv.evaluation import environment, measure_in_turns

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
                "latency": [entry.to_dict() for entry in performance.latency],
                "peak_memory_bytes": performance.peak_memory_bytes,
            }
            for scheme, performance in measured.items()
        }, []

    machine = environment()
    shas = [(artifact.scheme, artifact.sha256) for artifact in artifacts]
    return stages.once("measure", [shas, recipe.to_dict()["measure"], machine["cpu"], machine["cores"]], work)[0]


def _row(
    artifact: Artifact,
    model: _Model,
    evaluation: dict[str, Any],
    performance: dict[str, Any],
    layers: tuple[dict[str, Any], ...],
) -> Row:
    from edge_cv.report import Row

    score = evaluation["scores"][artifact.scheme]
    return Row(
        scheme=artifact.scheme,
        file=artifact.path.name,
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


def _photos(source: ImageSource, evaluation: dict[str, Any], recipe: Recipe) -> tuple[Any, ...]:
    from edge_cv.data import decode
    from edge_cv.report import PhotoResult

    names = source.classes or _labels(recipe.model.classes)

    def class_name(index: int) -> str:
        return names[index] if names and index < len(names) else f"class {index}"

    results = []
    for prediction in evaluation["predictions"]:
        path = Path(prediction["file"])
        results.append(
            PhotoResult(
                name=path.name,
                label_name=None if prediction["label"] is None else class_name(prediction["label"]),
                thumbnail_jpeg=_thumbnail(decode(path)),
                top5={
                    scheme: tuple((class_name(index), probability) for index, probability in top5)
                    for scheme, top5 in prediction["top5"].items()
                },
            )
        )
    return tuple(results)


def _thumbnail(photo: np.ndarray) -> bytes:
    from PIL import Image

    image = Image.fromarray(photo)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


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
