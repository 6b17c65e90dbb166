"""Sensitivity: each layer's part in the quantization error of the logits, and what it costs to keep layers in float."""

from __future__ import annotations

import functools

from edge_cv.evaluation.sensitivity import Sensitivity
from edge_cv.report import formats, plots
from edge_cv.report.sections.layers import short_name
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report

LISTED = 5

NOTE = (
    "Each layer alone is rounded to int8 while all others stay in float, on 8 calibration images. The part of a layer "
    "is its share of the noise that all of them cause in the logits. The files of the table are measured on the fifth "
    "of the calibration images that did not make them. High effort (--set effort=high) reduces the error at int8's "
    "size and latency; it takes minutes. Per-channel scales reduce it too, where weights=per_tensor was chosen."
)


def section(report: Report) -> Section | None:
    """The layers of the first row that was made by a search for sensitive layers."""
    row = next((one for one in report.rows if one.sensitivity is not None and one.sensitivity.parts()), None)
    if row is None or row.sensitivity is None:
        return None
    parts = row.sensitivity.parts()
    worst = sorted(parts, key=lambda name: -parts[name])[:LISTED]
    listed = tuple((short_name(name), formats.whole_percent(parts[name])) for name in worst)
    figure = Figure(
        "Each layer's part in the error of the logits",
        f"Share of the noise of the logits that each of {len(parts)} layers causes when it alone is int8. The largest:",
        f"Share of the error by layer; largest: {'; '.join(f'{name} {share}' for name, share in listed)}.",
        functools.partial(plots.parts_of_layers, row, tuple(parts.values()), tuple(map(list(parts).index, worst))),
        listed,
    )
    return Section(
        "Sensitivity", _finding(row.sensitivity, worst), (), (_costs(row.sensitivity),), (figure,), notes=(NOTE,)
    )


def _finding(found: Sensitivity, worst: list[str]) -> str:
    """The layer with the largest part, and what the layers that stay in float gain and cost."""
    share = formats.whole_percent(found.parts()[worst[0]])
    part = f"Layer {short_name(worst[0])} causes {share} of the error of the logits"
    plain, kept = (next((t for t in found.curve if t.wide_layers == n), None) for n in (0, len(found.wide_layers)))
    if plain is None or kept is None or kept is plain:
        return f"{part}; no layer had to stay in float." if kept else f"{part}."
    return (
        f"{part}; with {_layers(kept.wide_layers)} in float the SQNR is {formats.decibels(kept.sqnr_db)} instead of "
        f"{formats.decibels(plain.sqnr_db)}, at {kept.size_bytes / plain.size_bytes:.2f} times the size and "
        f"{kept.latency_ms / plain.latency_ms:.2f} times the latency."
    )


def _costs(found: Sensitivity) -> Table:
    rows = tuple(
        (
            "int8" if not trial.wide_layers else f"{_layers(trial.wide_layers)} in float",
            formats.decibels(trial.sqnr_db),
            formats.whole_percent(trial.agreement),
            formats.milliseconds(trial.latency_ms),
            formats.size(trial.size_bytes),
        )
        for trial in found.curve
    )
    columns = (("File", ""), ("SQNR", ""), ("Same top-1", ""), ("Latency", "1 thread"), ("Size", ""))
    return Table("The most sensitive layers in float", columns, rows)


def _layers(number: int) -> str:
    return f"{number} layer" if number == 1 else f"{number} layers"
