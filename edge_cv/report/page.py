"""`report.html`: what a template needs, gathered from a report, and the page made of it."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_cv.report import pareto, plots, sentences
from edge_cv.report.comparison import latency_on, main_rows, reference_of, settings, size_ratio, speed_up
from edge_cv.report.sections import analysis as explanation
from edge_cv.report.sections import compression, training
from edge_cv.report.sections import package as delivery
from edge_cv.report.sections.section import Figure
from edge_cv.report.values import PhotoResult, Report, Row, plain_json

MOST_PHOTOS = 24
"""How many photos the page shows; it says how many more there are."""


@dataclass(frozen=True)
class Cell:
    """One figure of the table: its text, smaller lines under it, and whether it is the best of its column."""

    text: str
    under: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """One column of the table: its title, the unit or condition under it, and a cell for each row."""

    title: str
    under: str
    cells: tuple[Cell, ...]


SECTIONS = (
    delivery.delivery,
    pareto.pareto,
    compression.compression,
    training.training,
    explanation.classes,
    explanation.multi_label,
    explanation.confidence,
    explanation.mistakes,
    explanation.groups,
    explanation.robustness,
    explanation.attention,
)
"""From a report to a section of the page, or None; in the page's order."""


def render(report: Report) -> str:
    """The whole page as HTML; everything that came from outside is escaped."""
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
    photos, differing, total = _photos(report, reference, row)
    return environment.get_template("page.html").render(
        title=report.name,
        headline=report.headline,
        accuracy=_accuracy(rows),
        verdicts=sentences.verdicts(rows),
        violations=report.violations,
        slower=sentences.slower(rows),
        names=[(r.name, r.file) for r in rows],
        columns=columns(rows),
        figures=[(figure, Markup(figure.svg)) for figure in figures(rows, row)],
        sections=[
            (section, [(figure, Markup(figure.svg)) for figure in section.figures])
            for section in (make(report) for make in SECTIONS)
            if section is not None
        ],
        photos=photos,
        photos_differing=differing,
        photos_total=total,
        compared=(reference.name if reference else "", row.name if row else ""),
        limits=[*report.notes, *sentences.limits_of(rows)],
        timed=sentences.how_timed(rows),
        environment=[(k, v) for k, v in _flat(report.environment) if not k.startswith("versions.")],
        versions=[(k.removeprefix("versions."), v) for k, v in _flat(report.environment) if k.startswith("versions.")],
        recipe=json.dumps(plain_json(report.recipe), indent=2, ensure_ascii=False),
    )


def columns(rows: Sequence[Row]) -> list[Column]:
    """The table's columns, without those that nobody measured."""
    references = [reference_of(row, rows) for row in rows]

    def column(
        title: str,
        under: str,
        values: Sequence[float | None],
        text: Callable[[Any, Row], str],
        best: Callable[[Sequence[float]], float] | None = None,
        more: Callable[[Row, Row | None], str] = lambda row, reference: "",
        last: Callable[[Row, Row | None], str] = lambda row, reference: "",
    ) -> Column | None:
        known = [value for value in values if value is not None]
        if not known:
            return None
        first = best(known) if best and len(set(known)) > 1 else None
        return Column(
            title,
            under,
            tuple(
                Cell("–")
                if value is None
                else Cell(
                    text(value, row), tuple(filter(None, (more(row, reference), last(row, reference)))), value == first
                )
                for row, reference, value in zip(rows, references, values, strict=True)
            ),
        )

    def best_share(values: Sequence[float]) -> float | None:
        """The highest share, unless the photos cannot tell it from the lowest."""
        images = min((row.images for row in rows if row.images), default=None)
        return max(values) if sentences.decidable(values, images) else None

    def others(name: str) -> list[float | None]:
        return [None if row is ref else getattr(row, name) for row, ref in zip(rows, references, strict=True)]

    def smaller(row: Row, reference: Row | None) -> str:
        times = None if row is reference else size_ratio(row, reference)
        return "" if times is None else _times(times, "smaller", "larger", "as large")

    def best_quantized(values: Sequence[float]) -> float:
        """The highest figure of the integer schemes: that a float copy is closer to float goes without saying."""
        integers = [row.sqnr_db for row in rows if not row.scheme.startswith("float") and row.sqnr_db is not None]
        return max(integers, default=math.inf)

    known_parameters = any(row.parameters is not None for row in rows)
    found = [
        column("Size", "file", [r.size_bytes for r in rows], lambda v, _: sentences.size(v), min, smaller),
        column("Gzip", "file", [r.gzip_bytes for r in rows], lambda v, _: sentences.size(v), min),
        column(
            "Parameters",
            "and MACs",
            [r.parameters for r in rows],
            lambda v, _: sentences.count(v),
            more=lambda r, _: f"{sentences.count(r.macs)} MACs" if r.macs is not None else "",
        ),
        column(
            "MACs",
            "an inference",
            [r.macs for r in rows] if not known_parameters else [],
            lambda v, _: sentences.count(v),
        ),
        column(
            "Top-1",
            "95 % interval",
            [r.top1 for r in rows],
            lambda v, r: sentences.percent(v, r.images),
            best_share,
            lambda r, _: sentences.interval(r.top1_ci95, r.images),
        ),
        column("Top-5", "", [r.top5 for r in rows], lambda v, r: sentences.percent(v, r.images), best_share),
        column(
            "Agreement",
            "with float, 95 %",
            others("agreement"),
            lambda v, r: sentences.percent(v, r.images),
            best_share,
            lambda r, _: sentences.interval(r.agreement_ci95, r.images),
        ),
        column("SQNR", "of the logits", others("sqnr_db"), lambda v, _: sentences.decibels(v), best_quantized),
    ]
    pairs = settings(rows)
    several = len({host for host, _ in pairs}) > 1
    for host, number in pairs:
        where = sentences.threads(number) + (f", {host}" if several else "")
        entries = [latency_on(row, host, number) for row in rows]

        def p90(row: Row, reference: Row | None, host: str = host, number: int = number) -> str:
            entry = latency_on(row, host, number) or {}
            return f"p90 {sentences.milliseconds(entry['p90_ms'])}" if entry.get("p90_ms") is not None else ""

        def faster(row: Row, reference: Row | None, host: str = host, number: int = number) -> str:
            times = None if row is reference else speed_up(row, reference, host, number)
            return "" if times is None else _times(times, "faster", "slower", "as fast")

        values = [entry["p50_ms"] if entry else None for entry in entries]
        found.append(column("p50", where, values, lambda v, _: sentences.milliseconds(v), min, p90, faster))
    found.append(
        column("Peak memory", "process", [r.peak_memory_bytes for r in rows], lambda v, _: sentences.size(v), min)
    )
    found.append(column("Arena", "on the device", [r.arena_bytes for r in rows], lambda v, _: sentences.size(v)))
    found.append(_front(rows))
    return [c for c in found if c is not None]


def _front(rows: Sequence[Row]) -> Column | None:
    """Which Pareto fronts each row is on, where there are several runs."""
    cells = pareto.column(rows)
    return Column("Pareto front", "top-1 against", tuple(map(Cell, cells))) if any(cells) else None


def figures(rows: Sequence[Row], row: Row | None) -> list[Figure]:
    """The plots that the rows have figures for; `row` is the one whose layers are shown."""
    labelled = any(r.top1 is not None for r in rows)
    share = "Accuracy" if labelled else "Agreement with float"
    intervals = [row.top1_ci95 if labelled else row.agreement_ci95 for row in rows]
    bars = " Vertical lines: 95 % intervals." if any(intervals) else ""
    found: list[Figure] = []
    for what in ("latency", "size"):
        if svg := plots.accuracy_against(rows, what):
            points = _points(rows, what)
            said = "; ".join(": ".join(point) for point in points)
            found.append(
                Figure(
                    f"{share} against {what}",
                    f"Up and to the left is better.{bars}",
                    f"{share} against {what}. {said}.",
                    svg,
                    tuple(points) if plots.numbered(rows) else (),
                )
            )
    if svg := plots.latency_distributions(rows):
        caption = "Boxes: the middle half of the inferences; lines: 5th to 95th percentile; bold: median."
        medians = "; ".join(
            f"{r.name} {sentences.milliseconds(e['p50_ms'])} with {sentences.threads(e['threads'])}"
            for r in rows
            for e in r.latency
        )
        found.append(
            Figure("Latency of single inferences", caption, f"Distribution of latency. Medians: {medians}.", svg)
        )
    shown = row if row is not None and row.layers else next((r for r in rows if r.layers), None)
    if shown is not None and (svg := plots.layer_errors(shown)):
        # the converter names a fused layer by all of its parts; the first says which it is
        worst = tuple(
            (layer["layer"].split(";")[0], sentences.decibels(layer["sqnr_db"])) for layer in plots.worst_layers(shown)
        )
        listed = "; ".join(f"{name} {value}" for name, value in worst)
        squares = any(layer.get("weights_sqnr_db") is not None for layer in shown.layers)
        caption = f"Signal to quantization noise at the output of each of {len(shown.layers)} layers"
        caption += " (squares: of its weights). The lowest:" if squares else ". The lowest:"
        found.append(
            Figure(
                f"Where {shown.name} loses precision", caption, f"SQNR layer by layer; lowest: {listed}.", svg, worst
            )
        )
    return found


def _times(times: float, more: str, less: str, equal: str) -> str:
    """`2.1× faster`, `2.7× slower`, or `as fast` where the difference is no more than measurements repeat to."""
    if 1 / sentences.SAME < times < sentences.SAME:
        return equal
    return f"{sentences.ratio(times)} {more}" if times > 1 else f"{sentences.ratio(1 / times)} {less}"


def _unbroken(text: str) -> str:
    """`text` whose numbers stay in one line with their units."""
    units = "ms|MB|kB|GB|dB|points?|photos?|threads?|smaller|faster|slower"
    return re.sub(rf"(?<=[\d×]) (?=(?:{units})\b|%)", "\u00a0", text).replace("top-1", "top\u20111")


def _points(rows: Sequence[Row], what: str) -> list[tuple[str, str]]:
    """The name and the two figures of each point of a plot."""
    pairs = settings(rows)
    found = []
    for row in rows:
        share = sentences.percent(row.top1 if row.top1 is not None else row.agreement, row.images)
        entry = latency_on(row, *pairs[0]) if pairs else None
        ms = sentences.milliseconds(entry["p50_ms"] if entry else None)
        found.append((row.name, f"{share}, {sentences.size(row.size_bytes) if what == 'size' else ms}"))
    return found


def _accuracy(rows: Sequence[Row]) -> str:
    """The second sentence of the verdict: accuracy against the labels."""
    reference, row = main_rows(rows)
    runs = {r.run for r in rows}
    if row is None or reference is None or row.top1 is None or reference.top1 is None or len(runs) > 1:
        return ""
    text = f"Against the labels, top-1 is {sentences.percent(row.top1, row.images)} for {row.name}"
    text += f" ({ends})" if (ends := sentences.interval(row.top1_ci95, row.images)) else ""
    text += f" and {sentences.percent(reference.top1, reference.images)} for {reference.name}"
    text += f" ({ends})" if (ends := sentences.interval(reference.top1_ci95, reference.images)) else ""
    return f"{text}; in brackets 95 % intervals." if "(" in text else f"{text}."


def _photos(report: Report, reference: Row | None, row: Row | None) -> tuple[list[dict[str, Any]], int, int]:
    """The photos to show, disagreements first, then those a model gets wrong; how many differ; how many there are."""
    pair = list(report.rows[:1]) if reference is None or row is None else [reference, row]
    cards = [_card(photo, pair) for photo in report.photos]
    cards = [card for card in cards if card["sides"]]
    cards.sort(key=lambda card: (not card["differs"], not card["wrong"]))
    total = max(len(cards), *(r.images or 0 for r in pair)) if cards else 0
    return cards[:MOST_PHOTOS], sum(card["differs"] for card in cards), total


def _card(photo: PhotoResult, pair: Sequence[Row]) -> dict[str, Any]:
    sides = [(r.name, photo.top5.get(r.name) or photo.top5.get(r.scheme)) for r in pair]
    sides = [(name, classes) for name, classes in sides if classes]
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
            found.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return found
