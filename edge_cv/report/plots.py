"""The first plots of a report: accuracy against latency and size, latency distributions, and SQNR by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_cv.evaluation.latency import Latency
from edge_cv.report import formats
from edge_cv.report.comparison import latency_on, settings
from edge_cv.report.drawing import (
    INK,
    MUTED,
    PAPER,
    SIZE_INCHES,
    colour_of,
    locator,
    one_line,
    positive_scale,
    shorten_middle,
    svg,
)
from edge_cv.report.labels import MAX_LABELS, label_points
from edge_cv.report.values import Row

MAX_BOXES = 14
MAX_NAMED_POINTS, MAX_POINT_NAME = 7, 20
"""With more points, or longer names, a point is labelled with its row's number instead of its name."""

WORST_LAYERS = 5
MIN_SAMPLES = 5  # of which quartiles are drawn


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot: coordinates and the ends of its error bar in the axes' units, its row and label."""

    x: float
    y: float
    ends: tuple[float, float] | None
    row: Row
    label: str


def numbered(rows: Sequence[Row]) -> bool:
    """Whether scatter plots label the points with the rows' numbers, from 1, instead of their names."""
    return len(rows) > MAX_NAMED_POINTS or any(len(row.name) > MAX_POINT_NAME for row in rows)


def point_label(rows: Sequence[Row], place: int) -> str:
    """The label of the row at that place in a scatter plot."""
    return str(place + 1) if numbered(rows) else rows[place].name


def marker_of(row: Row) -> str:
    """Squares for ONNX files, circles for TFLite files."""
    return "s" if row.is_onnx else "o"


def accuracy_against(rows: Sequence[Row], what: str) -> str | None:
    """Top-1 (agreement where there are no labels) against `what`, "latency" or "size", with 95 % intervals, as SVG.

    Returns:
        The drawing, or None when no row has both figures.
    """
    labelled = any(row.top1 is not None for row in rows)
    pairs = settings(rows)
    points = []
    for place, row in enumerate(rows):
        share = row.top1 if labelled else row.agreement
        ends = row.top1_ci95 if labelled else row.agreement_ci95
        if what == "latency":
            entry = latency_on(row, *pairs[0]) if pairs else None
            x = entry.p50_ms if entry else None
        else:
            x = row.size_bytes / 1e6 if row.size_bytes else None
        if share is not None and x:
            bar = (100 * ends[0], 100 * ends[1]) if ends else None
            points.append(Point(x, 100 * share, bar, row, point_label(rows, place)))
    if not points:
        return None

    def draw(figure: Any, axes: Any) -> None:
        _draw_points(axes, points)
        axes.set_xlabel(f"p50 latency, ms ({formats.threads(pairs[0][1])})" if what == "latency" else "file size, MB")
        axes.set_ylabel("top-1 accuracy, %" if labelled else "agreement with float, %")
        labels = [(p.x, p.y, p.label, colour_of(p.row)) for p in points]
        label_points(figure, axes, labels, [p.ends for p in points])

    return svg(f"accuracy-{what}", draw)


def _draw_points(axes: Any, points: Sequence[Point]) -> None:
    for p in points:
        colour = colour_of(p.row)
        if p.ends:
            axes.plot([p.x, p.x], p.ends, color=colour, linewidth=1.4, alpha=0.55, solid_capstyle="butt", zorder=2)
            for end in p.ends:
                axes.plot([p.x], [end], marker="_", color=colour, markersize=7, alpha=0.55, zorder=2)
        axes.plot([p.x], [p.y], marker=marker_of(p.row), markersize=8, color=colour, markeredgecolor=PAPER, zorder=3)
    positive_scale(axes, [p.x for p in points])
    low = min(min(p.ends) if p.ends else p.y for p in points)
    high = max(max(p.ends) if p.ends else p.y for p in points)
    room = max(high - low, 2.0) * 0.12
    axes.set_ylim(max(-2.0, low - room), min(102.0, high + room) if high < 100 else 100 + room)
    axes.yaxis.set_major_locator(locator(integer=high - low > 4))
    axes.grid(axis="y")


def latency_distributions(rows: Sequence[Row]) -> str | None:
    """The distribution of single inferences for each file and number of threads, as SVG; None without latencies.

    Boxes span the quartiles and whiskers p5 to p95 of the samples; without samples a line runs from p50 to p90 and p99.
    """
    boxes = [(row, entry) for row in rows for entry in row.latency]
    if len(boxes) > MAX_BOXES:
        host, number = settings(rows)[0]
        boxes = [(row, entry) for row, entry in boxes if (entry.host, entry.threads) == (host, number)][:MAX_LABELS]
    if not boxes:
        return None

    def draw(figure: Any, axes: Any) -> None:
        shown = [ms for place, (row, entry) in enumerate(boxes) for ms in _draw_box(axes, place, colour_of(row), entry)]
        positive_scale(axes, [ms for ms in shown if ms > 0])
        axes.set_yticks(range(len(boxes)), _box_names(boxes))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(boxes) - 0.5, -0.5)
        axes.grid(axis="x")
        threads = sorted({entry.threads for _, entry in boxes})
        axes.set_xlabel("latency, ms" + (f" ({formats.threads(threads[0])})" if len(threads) == 1 else ""))

    height = max(SIZE_INCHES[1], 0.9 + 0.27 * len(boxes))
    return svg("latency-distributions", draw, height)


def _draw_box(axes: Any, place: int, colour: str, entry: Latency) -> list[float]:
    """Draw one distribution; returns the values that must be visible."""
    import numpy as np

    samples = entry.samples_ms
    if len(samples) >= MIN_SAMPLES:
        low, first, middle, third, high = (float(v) for v in np.percentile(samples, (5, 25, 50, 75, 95)))
        jitter = np.random.default_rng(place).uniform(-0.16, 0.16, len(samples))
        every = slice(None, None, max(1, len(samples) // 100))
        inside = np.clip(samples, None, high + 3 * (high - low))
        axes.plot(inside[every], place + jitter[every], ".", color=colour, alpha=0.28, markersize=3.5)
        axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
        axes.barh(place, third - first, left=first, height=0.5, color=colour, alpha=0.35, linewidth=0)
        shown = [low, high, *inside]
    else:
        middle = entry.p50_ms
        shown = [middle, *(ms for ms in (entry.p90_ms, entry.p99_ms) if ms is not None)]
        axes.plot(shown, [place] * len(shown), "|-", color=colour, linewidth=1.4, markersize=9)
    axes.plot([middle, middle], [place - 0.27, place + 0.27], color=colour, linewidth=2.6)
    return shown


def _box_names(boxes: Sequence[tuple[Row, Latency]]) -> list[str]:
    several = len({entry.threads for _, entry in boxes}) > 1
    hosts = len({entry.host for _, entry in boxes}) > 1
    return [
        shorten_middle(row.name, 26)
        + (f", {entry.threads} t" if several else "")
        + (f", {one_line(entry.host, 14)}" if hosts else "")
        for row, entry in boxes
    ]


def worst_layers(row: Row) -> list[dict[str, Any]]:
    """The layers with the lowest SQNR, lowest first."""
    known = [layer for layer in row.layers if layer["sqnr_db"] is not None]
    return sorted(known, key=lambda layer: layer["sqnr_db"])[:WORST_LAYERS]


def layer_errors(row: Row) -> str:
    """SQNR of every layer's output from input to output, as SVG, the lowest ones numbered."""
    layers = [(place, layer) for place, layer in enumerate(row.layers, 1) if layer["sqnr_db"] is not None]
    xs, ys = [place for place, _ in layers], [layer["sqnr_db"] for _, layer in layers]
    weights = [(n, layer["weights_sqnr_db"]) for n, layer in layers if layer.get("weights_sqnr_db") is not None]

    def draw(figure: Any, axes: Any) -> None:
        colour, small = colour_of(row), 4 if len(xs) > 20 else 6
        axes.plot(xs, ys, color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(xs, ys, "o", color=colour, markersize=small, markeredgecolor=PAPER, markeredgewidth=0.5)
        if weights:
            axes.plot(*zip(*weights, strict=True), "s", color=MUTED, markersize=3, alpha=0.6, zorder=1)
        values = [*ys, *(value for _, value in weights)]
        room = max(max(values) - min(values), 2.0)
        axes.set_ylim(min(values) - 0.2 * room, max(values) + 0.08 * room)
        labels = []
        for number, worst in enumerate(worst_layers(row), 1):
            x, y = next((n, layer["sqnr_db"]) for n, layer in layers if layer is worst)
            axes.plot([x], [y], "o", color=colour, markersize=7, markeredgecolor=INK, markeredgewidth=1.2)
            labels.append((x, y, str(number), INK))
        margin = max(1.0, 0.03 * len(row.layers))
        axes.set_xlim(1 - margin, len(row.layers) + margin)
        axes.xaxis.set_major_locator(locator(integer=True))
        axes.yaxis.set_major_locator(locator(integer=room > 4))
        axes.grid(axis="y")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("SQNR, dB (higher is better)")
        label_points(figure, axes, labels, [None] * len(labels), obstacles=list(zip(xs, ys, strict=True)))

    return svg("layer-errors", draw)


def parts_of_layers(row: Row, shares: Sequence[float], marked: Sequence[int]) -> str:
    """Bars of each layer's share, 0..1, of the error, from the largest layer to the smallest, as SVG.

    Args:
        row: gives the colour.
        shares: of the layers.
        marked: places of the bars that get a number, the first one 1.
    """

    def draw(figure: Any, axes: Any) -> None:
        percent = [100 * share for share in shares]
        axes.bar(range(len(percent)), percent, width=0.8, color=colour_of(row), linewidth=0)
        for number, place in enumerate(marked, 1):
            axes.annotate(
                str(number), (place, percent[place]), xytext=(0, 2), textcoords="offset points", ha="center", color=INK
            )
        axes.set_xlim(-0.8, len(percent) - 0.2)
        axes.set_ylim(0, max(percent) * 1.15)
        axes.xaxis.set_major_locator(locator(integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("layer, the one with the most weights first")
        axes.set_ylabel("share of the error, %")

    return svg("parts-of-layers", draw)
