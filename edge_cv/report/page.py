"""The page `report.html`: self-contained HTML with styles, plots and thumbnails in it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from converters.packages import require
from edge_cv.report import formats, plots, sentences
from edge_cv.report.columns import columns
from edge_cv.report.comparison import latency_on, main_rows, settings
from edge_cv.report.plain_json import plain_json
from edge_cv.report.sections import SECTIONS
from edge_cv.report.sections.section import Figure
from edge_cv.report.values import PhotoResult, Report, Row

MAX_PHOTOS = 24
"""Number of photos on the page, which also shows how many were measured."""

_UNITS = "ms|MB|kB|GB|dB|points?|photos?|threads?|smaller|faster|slower"


def to_html(report: Report) -> str:
    """The whole page. It loads nothing, and all text from outside is escaped."""
    require("a report", "report")
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edge_cv.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    rows = report.rows
    reference, row = main_rows(rows)
    photos, total = _photos(report, reference, row)
    sections = [section for section in (make(report) for make in SECTIONS) if section is not None]
    settings_and_versions = _flat(report.environment)
    return environment.get_template("page.html").render(
        title=report.name,
        headline=sentences.headline(rows),
        accuracy=sentences.top1_against_labels(rows),
        verdicts=sentences.verdicts(rows),
        violations=report.violations,
        warnings=report.warnings,
        slower=sentences.slower(rows),
        names=[(r.name, r.file) for r in rows],
        columns=columns(rows),
        figures=[(figure, Markup(figure.svg)) for figure in figures(rows, row)],
        sections=[(section, [(figure, Markup(figure.svg)) for figure in section.figures]) for section in sections],
        photos=photos,
        photos_total=total,
        compared=(reference.name if reference else "", row.name if row else ""),
        limits=[*report.notes, *sentences.sample_size(rows)],
        timed=sentences.latency_conditions(rows),
        environment=[(k, v) for k, v in settings_and_versions if not k.startswith("versions.")],
        versions=[(k.removeprefix("versions."), v) for k, v in settings_and_versions if k.startswith("versions.")],
        recipe=json.dumps(plain_json(report.recipe), indent=2, ensure_ascii=False),
    )


def figures(rows: Sequence[Row], row: Row | None) -> list[Figure]:
    """The plots that the rows have figures for; `row` is the one whose layers are shown."""
    shown = row if row is not None and row.layers else next((r for r in rows if r.layers), None)
    found = [
        _accuracy(rows, "latency"),
        _accuracy(rows, "size"),
        _latency(rows),
        None if shown is None else _sqnr(shown),
    ]
    return [figure for figure in found if figure is not None]


def _accuracy(rows: Sequence[Row], what: str) -> Figure | None:
    svg = plots.accuracy_against(rows, what)
    if svg is None:
        return None
    labelled = any(r.top1 is not None for r in rows)
    share = "Accuracy" if labelled else "Agreement with float"
    intervals = any(r.top1_ci95 if labelled else r.agreement_ci95 for r in rows)
    points = tuple(_points(rows, what))
    listed = "; ".join(": ".join(point) for point in points)
    return Figure(
        f"{share} against {what}",
        "Up and to the left is better." + (" Vertical lines are 95 % intervals." if intervals else ""),
        f"{share} against {what}. {listed}.",
        svg,
        points if plots.numbered(rows) else (),
    )


def _points(rows: Sequence[Row], what: str) -> list[tuple[str, str]]:
    """The name and both figures of each point of a plot."""
    pairs = settings(rows)
    points = []
    for row in rows:
        share = formats.percent(row.top1 if row.top1 is not None else row.agreement, row.images)
        entry = latency_on(row, *pairs[0]) if pairs else None
        cost = formats.size(row.size_bytes) if what == "size" else formats.milliseconds(entry.p50_ms if entry else None)
        points.append((row.name, f"{share}, {cost}"))
    return points


def _latency(rows: Sequence[Row]) -> Figure | None:
    svg = plots.latency_distributions(rows)
    if svg is None:
        return None
    medians = "; ".join(
        f"{row.name} {formats.milliseconds(entry.p50_ms)} with {formats.threads(entry.threads)}"
        for row in rows
        for entry in row.latency
    )
    return Figure(
        "Latency of single inferences",
        "Boxes span the quartiles, thin lines the 5th to the 95th percentile; bold lines are medians.",
        f"Distribution of latency. Medians: {medians}.",
        svg,
    )


def _sqnr(row: Row) -> Figure | None:
    svg = plots.layer_errors(row)
    if svg is None:
        return None
    # a fused layer is named after all of its parts; the first one identifies it
    worst = tuple(
        (layer["layer"].split(";")[0], formats.decibels(layer["sqnr_db"])) for layer in plots.worst_layers(row)
    )
    weights = any(layer.get("weights_sqnr_db") is not None for layer in row.layers)
    return Figure(
        f"SQNR of {row.name} by layer",
        f"Signal-to-quantization-noise ratio (SQNR) of the output of each of {len(row.layers)} layers"
        + (" (squares: of its weights)" if weights else "")
        + ". The lowest:",
        f"SQNR by layer; lowest: {'; '.join(f'{name} {value}' for name, value in worst)}.",
        svg,
        worst,
    )


def _unbroken(text: str) -> str:
    """`text` with no line break between a number and its unit."""
    return re.sub(rf"(?<=[\d×]) (?=(?:{_UNITS})\b|%)", "\u00a0", text).replace("top-1", "top\u20111")


def _photos(report: Report, reference: Row | None, row: Row | None) -> tuple[list[dict[str, Any]], int]:
    """The photos to show, disagreements first, then mistakes, and the number of photos that were measured."""
    pair = list(report.rows[:1]) if reference is None or row is None else [reference, row]
    cards = [_card(photo, pair) for photo in report.photos]
    cards = [card for card in cards if card["sides"]]
    cards.sort(key=lambda card: (not card["differs"], not card["wrong"]))
    total = max(len(cards), *(r.images or 0 for r in pair)) if cards else 0
    return cards[:MAX_PHOTOS], total


def _card(photo: PhotoResult, pair: Sequence[Row]) -> dict[str, Any]:
    """One photo as the template shows it."""
    predicted = [(row.name, photo.top5.get(row.name) or photo.top5.get(row.scheme)) for row in pair]
    sides = [(name, classes) for name, classes in predicted if classes]
    firsts = [classes[0][0] for _, classes in sides]
    truth = photo.labels if photo.labels is not None else () if photo.label_name is None else (photo.label_name,)
    return {
        "name": photo.name,
        "label": ", ".join(truth) or ("none of the classes" if photo.labels is not None else None),
        "image": base64.b64encode(photo.thumbnail_jpeg).decode() if photo.thumbnail_jpeg else None,
        "sides": [
            (
                name,
                [
                    (label, f"{min(100.0, 100 * share):.1f}", _probability(share), label in truth)
                    for label, share in classes[:5]
                ],
            )
            for name, classes in sides
        ],
        "differs": len(set(firsts)) > 1,
        "wrong": bool(truth) and any(first not in truth for first in firsts),
    }


def _probability(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _flat(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as (dotted name, text) pairs."""
    found: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            found.append((f"{prefix}{name}", formats.MISSING if value is None else str(value)))
    return found
