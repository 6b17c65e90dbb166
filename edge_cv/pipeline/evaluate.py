"""From files to a report: what `edge-cv evaluate` finds out about artifacts that are there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_cv.progress import Progress, silent

if TYPE_CHECKING:
    from edge_cv.data import ImageSource
    from edge_cv.evaluation import Evaluation
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.parallel.ray_cluster import RayCluster
    from edge_cv.report import Report


@dataclass(frozen=True)
class Evaluated:
    """What was found out: the evaluation, and a report that has it row by row."""

    evaluation: Evaluation
    report: Report


def evaluate_files(
    artifacts: Mapping[str, str | os.PathLike],
    source: ImageSource,
    *,
    by: Sequence[str] = (),
    metadata: str | os.PathLike | None = None,
    corruptions: int = 0,
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    device: Ssh | Adb | None = None,
    journal: str | os.PathLike | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Classifies photos with every artifact and looks at the answers.

    Args:
        artifacts: files by name; the first is the reference that the others are compared with.
        source, limit, workers, cluster, device, journal: as `edge_cv.evaluation.evaluate` takes them.
        by: columns of `metadata`, by whose values accuracy is told.
        metadata: a CSV with a column `file`.
        corruptions: measure so many photos under the common corruptions too.
        progress: told what is being done.

    Raises:
        InputError: as `evaluate`, `read_columns` and `robustness`.
    """
    from edge_cv.evaluation import describe_environment, evaluate
    from edge_cv.evaluation.analysis import class_names, findings
    from edge_cv.evaluation.groups import read_columns
    from edge_cv.evaluation.robustness import check_measurable, robustness
    from edge_cv.report import Report, Row
    from edge_cv.report.photos import photo_results

    photos = source.take(limit)
    if by:
        read_columns(metadata, by, [photo.file for photo in photos.photos])  # what is wrong with it is said at once
    if corruptions:
        check_measurable(source)
    reference = next(iter(artifacts))
    with progress(f"evaluating on {len(photos)} photos") as update:
        evaluation = evaluate(
            artifacts,
            photos,
            reference=reference,
            workers=workers,
            cluster=cluster,
            device=device,
            journal=journal,
            on_progress=update,
        )
    predictions = evaluation.predictions
    columns = read_columns(metadata, by, predictions.files) if by else None
    temperatures = {name: value and asdict(value) for name, value in evaluation.temperatures.items()}
    found = findings(predictions, photos.classes, columns, temperatures)
    robust = {}
    if corruptions:
        title = f"evaluating on {min(corruptions, len(photos))} photos under 15 corruptions at 5 severities"
        with progress(title) as update:
            robust = robustness(
                artifacts, photos, limit=corruptions, workers=workers, cluster=cluster, on_progress=update
            )
    rows = []
    for name, score in evaluation.scores.items():
        path, fields = Path(artifacts[name]), asdict(score)
        del fields["seconds_per_image"]
        rows.append(
            Row(
                scheme=name,
                file=path.name,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                size_bytes=path.stat().st_size,
                robustness=robust.get(name),
                **fields,
                **found[name],
            )
        )
    report = Report(
        recipe={
            "name": source.name or "evaluation",
            "artifacts": {name: str(path) for name, path in artifacts.items()},
            "by": list(by),
        },
        environment=describe_environment(),
        rows=tuple(rows),
        photos=photo_results(predictions, class_names(predictions, photos.classes), photos),
        notes=(
            *(f"Left out, because it cannot be read: {file}: {why}" for file, why in evaluation.skipped[:3]),
            *(() if device is None else (f"The answers are those of another machine: {_runtimes(evaluation)}.",)),
            *(() if evaluation.error is None else (f"Broken off after {evaluation.images} of {len(photos)} photos.",)),
        ),
    )
    return Evaluated(evaluation, report)


def _runtimes(evaluation: Evaluation) -> str:
    return ", ".join(dict.fromkeys(evaluation.runtimes.values()))
