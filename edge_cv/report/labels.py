"""Placing the labels of points in a plot so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_cv.report.drawing import MUTED, one_line

Point = tuple[float, float]
Rectangle = tuple[float, float, float, float]  # left, bottom, right, top, in pixels

MAX_LABELS = 60  # of a plot; with more points none is labelled: there is no room, and the search takes minutes
MAX_OBSTACLES = 1000  # points that labels avoid, evenly chosen among more

_DISTANCES = (8, 14, 22, 32, 44, 58, 74, 92)  # points between a label and its point, nearest first
_SIDES = ((1, 0), (1, 0.7), (1, -0.7), (0, 1), (0, -1), (-1, 0), (-1, 0.7), (-1, -0.7))
_LINE_FROM = 16  # points: a label farther away gets a line to its point


@dataclass(frozen=True)
class _Canvas:
    """The plot without its labels, in pixels.

    Attributes:
        points: those that labels should not cover.
        bars: the two ends of each error bar.
        frame: the rectangle of the axes.
        unit: pixels of a typographic point.
    """

    points: Sequence[Point]
    bars: Sequence[tuple[Point, Point]]
    frame: Rectangle
    unit: float


def label_points(
    figure: Any,
    axes: Any,
    labels: Sequence[tuple[float, float, str, str]],
    bars: Sequence[Point | None],
    obstacles: Sequence[Point] = (),
) -> None:
    """Write a label beside each point where it covers no other label or point and as few error bars as possible.

    Args:
        figure, axes: matplotlib's, with their final limits.
        labels: (x, y, text, colour) of each label, the point in data units.
        bars: (low, high) of each point's error bar, or None.
        obstacles: other points that labels should not cover.
    """
    if len(labels) > MAX_LABELS:
        return
    obstacles = obstacles[:: 1 + len(obstacles) // MAX_OBSTACLES]
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    to_pixels = axes.transData.transform
    frame = axes.get_window_extent(renderer)
    points = [tuple(to_pixels((x, y))) for x, y, _, _ in labels]
    canvas = _Canvas(
        points=[*points, *(tuple(to_pixels(point)) for point in obstacles)],
        bars=[
            (to_pixels((x, bar[0])), to_pixels((x, bar[1])))
            for (x, *_), bar in zip(labels, bars, strict=True)
            if bar is not None
        ],
        frame=(frame.x0, frame.y0, frame.x1, frame.y1),
        unit=figure.dpi / 72,
    )
    taken: list[Rectangle] = []
    for (x, y, text, colour), (px, py) in sorted(zip(labels, points, strict=True), key=lambda item: item[1]):
        written = axes.text(x, y, one_line(text, 24), color=colour, fontsize=11, fontweight="bold")
        box = written.get_window_extent(renderer)
        place, far = _best_place((px, py), (box.width, box.height), taken, canvas)
        taken.append(place)
        written.set_position(axes.transData.inverted().transform(place[:2]))
        written.set_verticalalignment("bottom")
        if far > _LINE_FROM:
            near = (min(max(px, place[0]), place[2]), min(max(py, place[1]), place[3]))
            (x0, y0), (x1, y1) = axes.transData.inverted().transform([(px, py), near])
            axes.plot([x0, x1], [y0, y1], color=MUTED, linewidth=0.7, zorder=1)


def _best_place(
    point: Point, size: tuple[float, float], taken: Sequence[Rectangle], canvas: _Canvas
) -> tuple[Rectangle, float]:
    """The cheapest place of a label and its distance from the point; the search ends at a place without conflicts."""
    (px, py), (width, height) = point, size
    best: tuple[float, Rectangle, float] = (math.inf, (px, py, px, py), 0.0)
    for far in _DISTANCES:
        for across, up in _SIDES:
            left = px + across * far * canvas.unit - width * (1 - across) / 2
            low = py + up * far * canvas.unit - height * (1 - up) / 2
            place = (left, low, left + width, low + height)
            cost = far / 20 + _cost(place, taken, canvas) + _ambiguity(place, point, canvas)
            if cost < best[0]:
                best = (cost, place, far)
        if best[0] < far / 20 + 0.5:
            break
    return best[1], best[2]


def _cost(place: Rectangle, taken: Sequence[Rectangle], canvas: _Canvas) -> float:
    """The cost of a label's place: high if it covers labels or points or leaves the frame, low for error bars."""
    left, low, right, high = place
    pad = 2 * canvas.unit
    apart = 8 * canvas.unit  # a browser's font may be wider than the one measured here
    cost = 0.0
    for other in taken:
        if left < other[2] + apart and other[0] < right + apart and low < other[3] + pad and other[1] < high + pad:
            cost += 100
    for x, y in canvas.points:
        cost += 40 * (left - 2 * pad < x < right + 2 * pad and low - 2 * pad < y < high + 2 * pad)
    for (x, bottom), (_, top) in canvas.bars:
        cost += 3 * (left - pad < x < right + pad and bottom < high and low < top)
    frame = canvas.frame
    outside = max(0, frame[0] - left) + max(0, right - frame[2]) + max(0, frame[1] - low) + max(0, high - frame[3])
    return cost + (200 + outside if outside > 0 else 0)


def _ambiguity(place: Rectangle, own: Point, canvas: _Canvas) -> float:
    """The cost of a place where the label seems to belong to another point: a nearer one, or one on the line to it."""
    left, low, right, high = place

    def away(x: float, y: float) -> float:
        return math.hypot(max(left - x, 0, x - right), max(low - y, 0, y - high))

    (x0, y0), far = own, away(*own)
    x1, y1 = min(max(x0, left), right), min(max(y0, low), high)
    cost = 0.0
    for x, y in canvas.points:
        if math.hypot(x - x0, y - y0) < canvas.unit:
            continue
        cost += 6 * (away(x, y) < far)
        along = max(0.0, min(1.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max(far * far, 1e-9)))
        cost += 8 * (along > 0 and math.hypot(x0 + along * (x1 - x0) - x, y0 + along * (y1 - y0) - y) < 5 * canvas.unit)
    return cost
