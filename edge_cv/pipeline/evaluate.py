"""From model files to a report: `edge-cv evaluate` on files that have been converted already."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.files import file_sha256
from edge_cv.pipeline.rows import evaluated_row
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Output

if TYPE_CHECKING:
    from edge_cv.data import Samples
    from edge_cv.evaluation import Evaluation
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.evaluation.robustness import Robustness
    from edge_cv.parallel.ray_cluster import RayCluster
    from edge_cv.report import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of files, and a report with one row a file."""

    evaluation: Evaluation
    report: Report


def evaluate_files(
    artifacts: Mapping[str, str | os.PathLike],
    source: Samples,
    *,
    by: Sequence[str] = (),
    metadata: str | os.PathLike | None = None,
    corruptions: int = 0,
    declaration: Declaration = NOTHING,
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    device: Ssh | Adb | None = None,
    journal: str | os.PathLike | None = None,
    runtime: str = "interpreter",
    progress: Progress = silent,
) -> Evaluated:
    """Classify photos with every file and analyze the predictions.

    Args:
        artifacts: .tflite and .onnx files by name; the first is the reference that the others are compared with.
        source, declaration, limit, workers, cluster, device, journal, runtime: as `edge_cv.evaluation.evaluate` takes
            them.
        by: columns of `metadata`; accuracy is computed for each of their values.
        metadata: a CSV with a column `file`.
        corruptions: number of photos to classify under the common corruptions too.
        progress: shows what is being done.

    Raises:
        InputError: as `evaluate`, `read_columns` and `robustness`.
    """
    from edge_cv.evaluation import evaluate
    from edge_cv.evaluation.groups import read_columns
    from edge_cv.evaluation.robustness import check_measurable

    photos = source.take(limit)
    if by and metadata is None:
        raise InputError(f"the columns {', '.join(by)} need metadata, a CSV with a column file. Received: None")
    if metadata is not None and by:  # a table that cannot be used is refused before the evaluation
        read_columns(metadata, by, list(photos.paths()))
    if corruptions:
        check_measurable(source)
    with progress(f"evaluating on {len(photos)} photos") as update:
        evaluation = evaluate(
            artifacts,
            photos,
            reference=next(iter(artifacts)),
            declaration=declaration,
            workers=workers,
            cluster=cluster,
            device=device,
            journal=journal,
            runtime=runtime,
            on_progress=update,
        )
    columns = None
    if metadata is not None and by:
        columns = read_columns(metadata, by, evaluation.predictions.files)
    corrupted: Mapping[str, Robustness] = {}
    if corruptions:
        corrupted = _corrupted(artifacts, photos, corruptions, declaration, workers, cluster, progress)
    paths = {name: Path(path) for name, path in artifacts.items()}
    remarks = _notes(evaluation, len(photos), remote=device is not None)
    return Evaluated(evaluation, _report(paths, photos, evaluation, columns, corrupted, by, remarks))


def _corrupted(
    artifacts: Mapping[str, str | os.PathLike],
    photos: Samples,
    count: int,
    declaration: Declaration,
    workers: int | None,
    cluster: RayCluster | None,
    progress: Progress,
) -> Mapping[str, Robustness]:
    """Accuracy under the common corruptions, by name."""
    from edge_cv.evaluation.robustness import robustness

    title = f"evaluating on {min(count, len(photos))} photos under 15 corruptions at 5 severities"
    with progress(title) as update:
        return robustness(
            artifacts,
            photos,
            declaration=declaration,
            limit=count,
            workers=workers,
            cluster=cluster,
            on_progress=update,
        )


def _report(
    paths: Mapping[str, Path],
    photos: Samples,
    evaluation: Evaluation,
    columns: Mapping[str, Sequence[str | None]] | None,
    corrupted: Mapping[str, Robustness],
    by: Sequence[str],
    notes: Sequence[str],
) -> Report:
    from edge_cv.evaluation import describe_environment
    from edge_cv.evaluation.analysis import analyze, class_names
    from edge_cv.report import Report
    from edge_cv.report.photos import photo_results

    predictions = evaluation.predictions
    temperatures = {name: value and asdict(value) for name, value in evaluation.temperatures.items()}
    analysis: dict[str, dict[str, Any]] = analyze(predictions, photos.classes, columns, temperatures)
    return Report(
        recipe={
            "name": photos.name or "evaluation",
            "artifacts": {name: str(path) for name, path in paths.items()},
            "by": list(by),
        },
        environment=describe_environment(),
        rows=tuple(
            evaluated_row(
                Output("", "onnx" if paths[name].suffix.lower() == ".onnx" else "tflite", name),
                paths[name],
                asdict(score),
                sha256=file_sha256(paths[name]),
                size_bytes=paths[name].stat().st_size,
                robustness=corrupted.get(name),
                label=name,
                **analysis[name],
            )
            for name, score in evaluation.scores.items()
        ),
        photos=photo_results(predictions, class_names(predictions, photos.classes), photos),
        notes=tuple(notes),
    )


def _notes(evaluation: Evaluation, photos: int, *, remote: bool) -> list[str]:
    notes = [f"Left out, because it cannot be read: {file}: {why}" for file, why in evaluation.skipped[:3]]
    if remote:
        runtimes = ", ".join(dict.fromkeys(evaluation.runtimes.values()))
        notes.append(f"The predictions were made on another machine: {runtimes}.")
    if evaluation.error is not None:
        notes.append(f"Interrupted after {evaluation.images} of {photos} photos.")
    return notes


def named_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by the names of their rows: their schemes if these differ and the first is float32, otherwise their stems.

    Raises:
        InputError: a file is given twice, or is not a model file.
    """
    if len(set(paths)) < len(paths):
        raise InputError(f"each file must be given once. Received: {', '.join(map(str, paths))}")
    from converters import read_record

    records = [read_record(path) for path in paths]
    schemes = ["" if record is None else record.scheme for record in records]
    if all(schemes) and len(set(schemes)) == len(schemes) and schemes[0] == "float32":
        return dict(zip(schemes, paths, strict=True))
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return dict(zip(stems, paths, strict=True))
    return {str(path): path for path in paths}


def open_for_files(
    paths: Sequence[Path], data: str, split: str | None = None, declaration: Declaration = NOTHING
) -> Samples:
    """Labelled images with the classes of the last file that declares any, unless these are ImageNet's.

    A file without class names that does not have as many outputs as ImageNet has classes takes the images' own classes.

    Args:
        paths: `.tflite` and `.onnx` files.
        data, split: as `edge_cv.data.open_samples` takes them.
        declaration: what the caller says about files that do not declare it.

    Raises:
        InputError: a file is not a model file, or the images cannot be opened.
    """
    from converters.declared import declared_record
    from edge_cv.data import open_samples
    from edge_cv.data.labels import CLASSES, are_imagenet

    records = [declared_record(path, declaration) for path in paths]
    labels = next((record.labels for record in reversed(records) if record.labels), None)
    outputs = math.prod(records[-1].output.shape)
    if labels is not None and len(labels) > 1:
        imagenet = len(labels) in (CLASSES, CLASSES + 1) and are_imagenet(labels[-CLASSES:])
        return open_samples(data, split=split, classes=None if imagenet else labels)
    imagenet = outputs in (CLASSES, CLASSES + 1)
    samples = open_samples(data, split=split, classes=None if imagenet else ())
    if labels is None and not imagenet and len(samples.classes) != max(outputs, 2) and len(samples.classes) > 1:
        logger.warning(
            "%s has %d outputs without class names: the %d classes of the photos are taken for its first ones, unless "
            "labels are given",
            paths[-1],
            outputs,
            len(samples.classes),
        )
    return samples if labels is None else _with_positive(samples, labels[0])


def _with_positive(samples: Samples, positive: str) -> Samples:
    """Samples of two classes for a model of one output with one label, which names the class of the output 1."""
    from edge_cv.data.class_counts import with_classes
    from edge_cv.data.labels import positions_of

    place = positions_of([positive], samples.classes).get(positive)
    if samples.multi_label or len(samples.classes) != 2 or place is None:
        return samples
    return with_classes(samples, (samples.classes[1 - place], samples.classes[place]))
