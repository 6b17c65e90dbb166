"""The page `report.html`: self-contained HTML with styles, plots and thumbnails in it.

Its script (`page.js`) sorts tables. The page's security policy allows the script of this hash and no other, so that no
text of others can run, whatever it holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.packages import require
from edge_cv.report import formats, plots, sentences
from edge_cv.report.columns import columns
from edge_cv.report.comparison import latency_on, main_rows, settings
from edge_cv.report.next_steps import meanings, next_steps
from edge_cv.report.plain_json import plain_json
from edge_cv.report.sections import SECTIONS
from edge_cv.report.sections.section import Figure
from edge_cv.report.values import PhotoResult, Report, Row

MAX_PHOTOS = 24
"""Number of photos on the page, which also shows how many were measured."""

_UNITS = "ms|MB|kB|GB|dB|points?|photos?|threads?|smaller|faster|slower"


def to_html(report: Report) -> str:
    """The whole page. It loads nothing, and all text of others is escaped."""
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
    made = [(make.__module__.rpartition(".")[2], make(report)) for make in SECTIONS]
    sections = [
        (anchor, section, [(figure, Markup(figure.draw())) for figure in section.figures])
        for anchor, section in made
        if section is not None
    ]
    steps, limits = next_steps(report), [*sentences.sample_size(rows), *report.notes]
    timed = sentences.latency_conditions(rows)
    settings_and_versions = _flat(report.environment)
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    contents = [
        *([("next", "What to do next")] if steps else []),
        *([("figures", "Float and quantized models")] if rows else []),
        *((anchor, section.title) for anchor, section, _ in sections),
        *([("photos", "Predictions by photo")] if photos else []),
        *([("limits", "Limits of these measurements")] if limits or timed else []),
        ("conditions", "Environment and recipe"),
    ]
    return environment.get_template("page.html").render(
        title=report.name,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        contents=contents,
        headline=sentences.headline(rows),
        accuracy=sentences.top1_against_labels(rows),
        verdicts=sentences.verdicts(rows),
        violations=report.violations,
        warnings=report.warnings,
        steps=steps,
        steps_note=meanings(report, steps),
        best=sentences.best_files(rows),
        slower=sentences.slower(rows),
        names=[(r.name, r.file) for r in rows],
        columns=columns(rows),
        figures=[(figure, Markup(figure.draw())) for figure in figures(rows)],
        sections=sections,
        photos=photos,
        photos_finding=_photos_finding(photos),
        photos_total=total,
        filters=_filters(photos),
        compared=(reference.name if reference else "", row.name if row else ""),
        least_difference=sentences.least_difference(rows),
        limits=limits,
        timed=timed,
        environment=[(k, v) for k, v in settings_and_versions if not k.startswith("versions.")],
        versions=[(k.removeprefix("versions."), v) for k, v in settings_and_versions if k.startswith("versions.")],
        recipe=json.dumps(plain_json(report.recipe), indent=2, ensure_ascii=False),
    )


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The plots below the main table that the rows have figures for."""
    found = (_accuracy(rows, "latency"), _accuracy(rows, "size"), _latency(rows))
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
        lambda: svg,
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
        lambda: svg,
    )


def _unbroken(text: str) -> str:
    """`text` with no line break within a range, and between a number and its unit."""
    text = re.sub(r"(?<=\d)–(?=\d)", "\u2060–\u2060", text)
    return re.sub(rf"(?<=[\d×]) (?=(?:{_UNITS})\b|%)", "\u00a0", text).replace("top-1", "top\u20111")


def _photos(report: Report, reference: Row | None, row: Row | None) -> tuple[list[dict[str, Any]], int]:
    """The photos to show, disagreements first, then mistakes, and the number of photos that were measured."""
    pair = list(report.rows[:1]) if reference is None or row is None else [reference, row]
    cards = [_card(photo, pair) for photo in report.photos]
    cards = [card for card in cards if card["sides"]]
    cards.sort(key=lambda card: (not card["differs"], not card["wrong"]))
    total = max(len(cards), *(r.images or 0 for r in pair)) if cards else 0
    return cards[:MAX_PHOTOS], total


def _photos_finding(photos: Sequence[Mapping[str, Any]]) -> str:
    """On how many of the photos that are shown the two models differ."""
    pairs = [photo for photo in photos if len(photo["sides"]) > 1]
    if not pairs:
        return "Only one model has predictions for these photos."
    different, names = sum(photo["differs"] for photo in pairs), [name for name, _ in pairs[0]["sides"]]
    on = (
        f"{different} of the {formats.photos(len(pairs))}" if different else f"none of the {formats.photos(len(pairs))}"
    )
    return f"{formats.joined(names)} predict different classes for {on} shown."


def _filters(photos: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """The choices of photos to show: the value that `page.css` names, its text, and the number of photos."""
    different, wrong = (sum(bool(photo[name]) for photo in photos) for name in ("differs", "wrong"))
    return [
        ("all", "all", len(photos)),
        ("differs", "different top-1", different),
        ("same", "same top-1", len(photos) - different),
        ("wrong", "a wrong prediction", wrong),
    ]


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
