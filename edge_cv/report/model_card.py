"""The model card of a run: Markdown with the front matter that model hubs read.

It holds no latency, which depends on the machine, and no date, so that a run that is repeated gives the same card.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.files import write_atomic
from converters.printable import encodable, printable
from edge_cv.recipe import Recipe
from edge_cv.report import formats
from edge_cv.report.comparison import main_rows
from edge_cv.report.sections import confidence, conformance, groups, multilabel, per_class, robustness
from edge_cv.report.sentences import agreement, least_difference, top1_against_labels
from edge_cv.report.values import Report, Row

if TYPE_CHECKING:
    from converters.images.preprocessing import Preprocessing

NAME = "model_card.md"
LICENCE = (
    "Not stated: edge_cv does not know the licence of the weights and of the photos. State it here and in `license` of "
    "the front matter before you publish the files."
)
FINDINGS = (
    *(per_class.section, multilabel.section, confidence.section, groups.section, robustness.section),
    conformance.section,
)
LIMITS = (
    "- The figures hold for photos like those that were measured. The model answers with one of its classes also "
    "where a photo shows none of them.",
    "- Latency and memory depend on the machine: `report.html` has them with the machine that measured them.",
)


def write(report: Report, recipe: Recipe, preprocessing: Preprocessing, folder: str | os.PathLike) -> Path:
    """Write `model_card.md` into a folder; a card that would not change is not written again.

    Raises:
        InputError: the folder cannot be written.
    """
    path, text = Path(folder) / NAME, model_card(report, recipe, preprocessing)
    if path.is_file() and path.read_bytes() == encodable(text).encode():
        return path
    return write_atomic(path, text)


def model_card(report: Report, recipe: Recipe, preprocessing: Preprocessing) -> str:
    """The model card of a run.

    Args:
        report: of one run.
        recipe: of this run.
        preprocessing: how a photo becomes the model's input.

    Returns:
        Markdown: front matter, the verdict, the files with their figures, the report's findings, data, preprocessing,
        limits and licence.
    """
    parts = [
        _front_matter(report.rows, recipe),
        f"# {_text(recipe.name)}",
        _verdict(report.rows),
        "## Files",
        _table(report.rows),
        "Shares in parentheses are 95 % intervals. Agreement and SQNR compare a file with the float model.",
        *_results(report),
        "## Data",
        "\n".join(f"- {line}" for line in _data(report.rows, recipe)),
        "## Preprocessing",
        "\n".join(f"- {line}" for line in _preprocessing(preprocessing)),
        "## Limits",
        "\n".join([*(f"- {_text(line)}" for line in (*report.violations, *report.warnings, *report.notes)), *LIMITS]),
        "## Licence",
        LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(rows: tuple[Row, ...], recipe: Recipe) -> str:
    """YAML; every value is written as JSON, which is YAML too."""
    metrics = [
        {"type": "accuracy", "name": f"top-1, {row.scheme}, n = {row.images}", "value": round(row.top1, 6)}
        for row in rows
        if row.top1 is not None
    ]
    task = {"type": "image-classification"}
    dataset = {"name": recipe.data.measure, "type": "images"}
    index = [{"name": recipe.name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    fields: dict[str, Any] = {
        "license": "other",
        "library_name": "litert",
        "pipeline_tag": "image-classification",
        "tags": ["edge_cv", "quantized", *dict.fromkeys(row.output.format for row in rows)],
    }
    fields |= {"model-index": index} if metrics else {}
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _verdict(rows: tuple[Row, ...]) -> str:
    """The size and the agreement of the int8 file, or the smallest, against the float one, in one sentence."""
    reference, row = main_rows(rows)
    if reference is None or row is None:
        return "There is no second file to compare with."
    same, size, float_size = agreement(row), formats.size(row.size_bytes), formats.size(reference.size_bytes)
    return f"{_text(row.short_name)} has {size} instead of {float_size}" + (f", and {same}." if same else ".")


def _table(rows: tuple[Row, ...]) -> str:
    lines = ["| file | scheme | size | top-1 | agreement | SQNR |", "|---|---|---|---|---|---|"]
    for row in rows:
        top1 = _share(row.top1, row.top1_ci95, row.images)
        agreement = _share(row.agreement, row.agreement_ci95, row.images)
        cells = (row.file, row.short_name, formats.size(row.size_bytes), top1, agreement, formats.decibels(row.sqnr_db))
        lines.append("| " + " | ".join(_text(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _results(report: Report) -> tuple[str, ...]:
    lines = [f"- {_text(line)}" for line in _findings(report)]
    return ("## Results", "\n".join(lines)) if lines else ()


def _findings(report: Report) -> Iterator[str]:
    """What the sections of the report find that do not depend on the machine's speed."""
    yield from filter(None, (top1_against_labels(report.rows), least_difference(report.rows)))
    for make in FINDINGS:
        section = make(report)
        if section is not None:
            yield section.finding


def _share(share: float | None, ends: tuple[float, float] | None, images: int | None) -> str:
    interval = formats.interval(ends, images)
    return formats.percent(share, images) + (f" ({interval})" if interval and share is not None else "")


def _data(rows: tuple[Row, ...], recipe: Recipe) -> Iterator[str]:
    model, data = recipe.model, recipe.data
    measured = max((row.images or 0 for row in rows), default=0)
    yield f"model: {_text(model.name)}" + ("" if model.weights is None else f", weights: {_text(model.weights)}")
    yield f"measured on {formats.photos(measured)} of “{_text(data.measure)}”"
    if recipe.fit is not None:
        yield f"trained on photos of “{_text(recipe.fit.data or data.measure)}” that were not measured"


def _preprocessing(preprocessing: Preprocessing) -> Iterator[str]:
    height, width = preprocessing.height, preprocessing.width
    channels = "RGB" if preprocessing.channels == 3 else "grey"
    yield f"{height} x {width} pixels, {channels}, upright (EXIF orientation applied)"
    resize = "" if preprocessing.resize_to is None else f" (shorter side: {preprocessing.resize_to} pixels)"
    yield f"rule: `{preprocessing.rule}`{resize}, interpolation: {preprocessing.interpolation}"
    if preprocessing.takes_pixels:
        yield "values: pixels 0..255; normalization is part of the model. An int8 file takes `pixel - 128`."
    else:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
        yield f"values: (pixel - mean) / std, mean {mean}, std {std}"


def _text(value: Any) -> str:
    """A value as one line of Markdown without markup of its own."""
    line = " ".join(printable(str(value)).split())
    return "".join(f"\\{character}" if character in "\\`*_[]|<>#" else character for character in line)
