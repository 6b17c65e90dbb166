"""A picture of the architectures: published top-1 against the measured latency of the int8 file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_cv import models
from edge_cv.models.measured import MeasuredTable
from edge_cv.report.pareto import front
from edge_cv.report.pictures import check_path, write_figure

SIZE_INCHES = (9.0, 6.0)
FAMILIES = (  # prefix of the names, title, prefix that the labels leave out
    ("efficientnet_b", "EfficientNet", "efficientnet_"),
    ("efficientnet_lite", "EfficientNet-Lite", "efficientnet_"),
    ("mobilenet_v", "MobileNet", "mobilenet_"),
    ("", "AlexNet", ""),
)


class Point(NamedTuple):
    """An architecture in the plot: milliseconds of an inference, and top-1 in percent."""

    ms: float
    top1: float
    name: str


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


def draw(table: MeasuredTable, path: Path) -> None:
    """Write the picture of a measured table into a file: a series for each family, and the Pareto front.

    Raises:
        InputError: as `edge_cv.report.pictures.check_path`.
    """
    kind = check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(SIZE_INCHES, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlabel="latency of the int8 file, one thread (ms)")
    axes.set_ylabel("published ImageNet top-1 of the float model (%)")
    axes.set_title(f"{table.host}, {table.runtime}, {table.date[:10]}", fontsize=9, color="0.4")
    axes.grid(alpha=0.3)
    points = [
        Point(row.int8.p50_ms, 100 * models.describe(row.name)["top1"], row.name)
        for row in sorted(table.models, key=lambda row: row.int8.p50_ms)
    ]
    _draw_front(axes, points)
    labels = _draw_families(axes, points)
    axes.margins(0.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if points:
        axes.legend(loc="lower right")
    canvas.draw()  # sizes in pixels are known from here
    _label(axes, labels, canvas.get_renderer())
    figure.set_layout_engine("none")  # a new layout would move the axes away from the labels
    write_figure(figure, path, dpi=figure.dpi if kind != "png" else 2 * figure.dpi)


def _draw_front(axes: Any, points: Sequence[Point]) -> None:
    """Draw the Pareto front as steps: the highest top-1 up to each latency."""
    on = front([(point.ms, point.top1) for point in points])
    best = [point for point, is_on in zip(points, on, strict=True) if is_on]
    xs = [point.ms for point in best for _ in range(2)][1:]
    ys = [point.top1 for point in best for _ in range(2)][:-1]
    axes.plot(xs, ys, color="0.6", linestyle="--", linewidth=1, label="Pareto front")


def _draw_families(axes: Any, points: Sequence[Point]) -> list[tuple[float, float, str, str]]:
    """Draw a series for each family; returns (x, y, label, colour) of each point."""
    labels = []
    for number, (prefix, title, left_out) in enumerate(FAMILIES):
        chosen = [point for point in points if _family(point.name) == prefix]
        if not chosen:
            continue
        line = "-" if prefix.startswith("efficientnet") else ""  # the sizes of one scaled baseline
        xs, ys = [point.ms for point in chosen], [point.top1 for point in chosen]
        axes.plot(xs, ys, "o" + line, color=f"C{number}", label=title, linewidth=1)
        names = [point.name.removeprefix(left_out).replace("_", " ") for point in chosen]
        labels += [(x, y, name, f"C{number}") for x, y, name in zip(xs, ys, names, strict=True)]
    return labels


def _label(axes: Any, points: Sequence[tuple[float, float, str, str]], renderer: Any) -> None:
    """Write the labels where they cover neither each other nor the legend, the points and the lines."""
    texts = [axes.annotate(name, (x, y), fontsize=9, color=colour) for x, y, name, colour in points]
    sizes = [text.get_window_extent(renderer) for text in texts]
    spots = [tuple(axes.transData.transform((x, y))) for x, y, *_ in points]
    legend = axes.get_legend()
    taken = [Box(*legend.get_window_extent().extents)] if legend else []
    for drawn in axes.get_lines():
        corners = axes.transData.transform(drawn.get_xydata())
        if drawn.get_linestyle() in ("-", "--"):
            steps = [a + (b - a) * part / 20 for a, b in itertools.pairwise(corners) for part in range(20)]
            taken += [Box(x - 2, y - 2, x + 2, y + 2) for x, y in steps]
    boxes = place(spots, [(size.width, size.height) for size in sizes], taken=taken)
    for text, box in zip(texts, boxes, strict=True):
        text.set_position(axes.transData.inverted().transform((box.left, box.bottom)))
        text.set_verticalalignment("bottom")


def place(
    spots: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], *, taken: Iterable[Box] = ()
) -> list[Box]:
    """Place each label beside its spot so that it covers no other label, no spot and nothing in `taken`.

    Args:
        spots: points (x, y) in pixels.
        sizes: (width, height) of each spot's label in pixels.
        taken: rectangles that must stay free.

    Returns:
        The places of the labels. They overlap only if there is no room within ten times their height.
    """
    around = (
        (0.0, 1.0),
        (0.0, -1.0),
        (1.0, 0.0),
        (-1.0, 0.0),
        (0.75, 0.75),
        (-0.75, 0.75),
        (0.75, -0.75),
        (-0.75, -0.75),
    )
    used = [*taken, *(Box(x - 5, y - 5, x + 5, y + 5) for x, y in spots)]
    boxes = []
    for (x, y), (width, height) in zip(spots, sizes, strict=True):
        candidates = [
            Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
            for steps in range(20)
            for across, up in around
            for cx in [x + across * (width / 2 + 7 + steps * height / 2)]
            for cy in [y + up * (height / 2 + 7 + steps * height / 2)]
        ]
        free = (box for box in candidates if not any(box.overlaps(other) for other in used))
        boxes.append(next(free, candidates[0]))
        used.append(boxes[-1])
    return boxes


def _family(name: str) -> str:
    return next(prefix for prefix, *_ in FAMILIES if name.startswith(prefix))
