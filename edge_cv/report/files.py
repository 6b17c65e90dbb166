"""A report as `report.json` and `report.html` in a run's folder."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from converters import strict_json
from converters.errors import InputError
from converters.files import write_together
from converters.strict_json import items, typed
from edge_cv.recipe import Output
from edge_cv.recipe.output import Format
from edge_cv.report import page, pareto
from edge_cv.report.plain_json import plain_json
from edge_cv.report.values import MOST, PhotoResult, Report, Row

if TYPE_CHECKING:
    from edge_cv.evaluation.measurement import Measurement

SCHEMA = 1
"""Version of `report.json`; a reader refuses a later one."""

_OLDER_STAGES = ("channel_pruned", "pruned", "clustered", "qat")
_ROW_FIELDS = frozenset(field.name for field in dataclasses.fields(Row)) - {"output"}


def save(report: Report, folder: str | os.PathLike) -> Path:
    """Write `report.json` and `report.html` into `folder`, and return the path of the page.

    Raises:
        InputError: the folder cannot be written; existing files stay as they are.
    """
    folder = Path(folder)
    text = json.dumps(to_dict(report), indent=1, ensure_ascii=True, allow_nan=False)
    write_together({folder / "report.json": text, folder / "report.html": page.to_html(report)})
    return folder / "report.html"


def load(path: str | os.PathLike) -> Report:
    """Read the report in a run's folder, or a `report.json` file.

    Raises:
        InputError: there is no such file, or it is not a report.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "report.json"
    if not file.exists():
        raise InputError(f"{path} must be a run's folder with a report.json. Received: no such file")
    fields = strict_json.read(file, "a run's report.json")
    try:
        return from_dict(fields)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def load_all(paths: Sequence[str | os.PathLike]) -> tuple[list[Report], list[Measurement]]:
    """Read the reports of run folders and the measurement files among `paths`.

    Raises:
        InputError: a path is neither, or a measurement holds only the reason why it failed.
    """
    from edge_cv.evaluation.measurement import Measurement

    reports, measurements = [], []
    for path in map(Path, paths):
        if path.is_file() and _kind(path) == "measurement":
            measurements.append(Measurement.load(path))
        else:
            reports.append(load(path))
    return reports, measurements


def to_dict(report: Report) -> dict[str, Any]:
    """The report as `report.json` holds it; infinities become null, and paths text."""
    return plain_json(
        {
            "schema": SCHEMA,
            "recipe": report.recipe,
            "environment": report.environment,
            "violations": report.violations,
            "warnings": report.warnings,
            "rows": [_row_to_dict(row) for row in report.rows],
            "fronts": [
                {"cost": front.cost, "host": front.host, "threads": front.threads, "rows": front.names(report.rows)}
                for front in pareto.fronts(report.rows)
            ],
            "photos": report.photos,
            "notes": report.notes,
            "explained": report.explained,
            "training": report.training,
            "fine_tuning": report.fine_tuning,
            "delivery": report.delivery,
            "probe": report.probe,
        }
    )


def from_dict(fields: Any) -> Report:
    """The report that `to_dict` wrote. Unknown keys are ignored.

    Raises:
        InputError: the fields are not those of a report.
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("rows"), list):
        raise InputError("a report must be a JSON object with a list of rows")
    schema = fields.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise InputError(f"a report's schema must be {SCHEMA}, the one this version reads. Received: {schema!r:.40}")
    return Report(
        recipe=fields.get("recipe", {}),
        environment=fields.get("environment", {}),
        violations=fields.get("violations", ()),
        rows=tuple(_row(row) for row in items(fields["rows"], "a report's rows", MOST["rows"])),
        photos=tuple(_photo(photo) for photo in items(fields.get("photos", ()), "a report's photos", MOST["photos"])),
        notes=fields.get("notes", ()),
        explained=fields.get("explained", ()),
        training=fields.get("training", ()),
        fine_tuning=fields.get("fine_tuning", ()),
        delivery=fields.get("delivery"),
        probe=fields.get("probe"),
        warnings=fields.get("warnings", ()),
    )


def _row_to_dict(row: Row) -> dict[str, Any]:
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(Row)}
    del fields["output"], fields["label"]
    output = row.output
    identity = {"stage": output.stage, "format": output.format, "quantization": output.scheme}
    return {"scheme": row.scheme, **fields, **identity}


def _row(fields: Any) -> Row:
    if not isinstance(fields, dict):
        raise InputError(f"a row must be an object. Received: {fields!r:.80}")
    missing = [name for name in ("scheme", "file") if name not in fields]
    if missing:
        raise InputError(f"a row must have {' and '.join(missing)}. Received: {', '.join(fields)!r:.80}")
    name = fields["scheme"]
    if not isinstance(name, str) or not name:
        raise InputError(f"a row's scheme must be text, at least one character. Received: {name!r:.80}")
    output = _output(fields, name)
    known = {key: value for key, value in fields.items() if key in _ROW_FIELDS}
    return Row(output, **{**known, "label": "" if output.name == name else name})


def _output(fields: dict[str, Any], name: str) -> Output:
    if "stage" not in fields:
        return _output_of_older(name, str(fields["file"]))
    if fields.get("format") not in get_args(Format):
        raise InputError(f"a row's format must be tflite or onnx. Received: {fields.get('format')!r:.80}")
    stage = typed(str, fields["stage"], "a row's stage")
    return Output(stage, fields["format"], typed(str, fields.get("quantization", name), "a row's quantization"))


def _output_of_older(name: str, file: str) -> Output:
    """The identity of a row from its name: reports of version 0.1 and before have nothing else."""
    file_format: Format = "onnx" if file.lower().endswith(".onnx") else "tflite"
    stage = next((stage for stage in _OLDER_STAGES if name.startswith(f"{stage}_")), "")
    prefix = Output(stage, file_format, "").name
    return Output(stage, file_format, name.removeprefix(f"{prefix}_") if prefix else name)


def _photo(fields: Any) -> PhotoResult:
    if not isinstance(fields, dict):
        raise InputError(f"a photo must be an object. Received: {fields!r:.80}")
    thumbnail = fields.get("thumbnail_jpeg")
    if thumbnail is not None:
        try:
            thumbnail = base64.b64decode(thumbnail, validate=True)
        except (TypeError, ValueError):
            raise InputError("a photo's thumbnail must be base64 text") from None
    return PhotoResult(
        fields.get("name", ""), fields.get("label_name"), thumbnail, fields.get("top5", {}), fields.get("labels")
    )


def _kind(path: Path) -> Any:
    try:
        fields = strict_json.read(path, "a report or a measurement")
    except InputError:
        return None
    return fields.get("kind") if isinstance(fields, dict) else None
