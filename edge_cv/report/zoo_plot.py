"""A picture of the architectures: published top-1 against multiply-accumulate operations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_cv.report.pictures import check_path, write_figure

SIZE_INCHES = (9.0, 6.0)
FAMILIES = (  # prefix of the names, title, prefix that the labels leave out
    ("efficientnet_b", "EfficientNet", "efficientnet_"),
    ("efficientnet_lite", "EfficientNet-Lite", "efficientnet_"),
    ("mobilenet_v", "MobileNet", "mobilenet_"),
    ("", "AlexNet", ""),
)


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


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture of the rows of `edge_cv.models.describe` into a file.

    Raises:
        InputError: as `edge_cv.report.pictures.check_path`.
    """
    kind = check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(SIZE_INCHES, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlabel="multiply-accumulates of one image (millions)")
    axes.set_ylabel("published ImageNet top-1 (%)")
    axes.grid(alpha=0.3)
    points = _draw_families(axes, rows)
    axes.margins(0.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if points:
        axes.legend(loc="lower right")
    canvas.draw()  # sizes in pixels are known from here
    _label(axes, points, canvas.get_renderer())
    figure.set_layout_engine("none")  # a new layout would move the axes away from the labels
    write_figure(figure, path, dpi=figure.dpi if kind != "png" else 2 * figure.dpi)


def _draw_families(axes: Any, rows: Sequence[dict[str, Any]]) -> list[tuple[float, float, str, str]]:
    """Draw a series for each family; returns (x, y, label, colour) of each point."""
    points = []
    for number, (prefix, title, left_out) in enumerate(FAMILIES):
        chosen = [row for row in rows if _family(row["name"]) == prefix]
        if not chosen:
            continue
        xs, ys = [row["macs"] / 1e6 for row in chosen], [100 * row["top1"] for row in chosen]
        line = "-" if prefix.startswith("efficientnet") else ""  # the sizes of one scaled baseline
        axes.plot(xs, ys, "o" + line, color=f"C{number}", label=title, linewidth=1)
        names = [row["name"].removeprefix(left_out).replace("_", " ") for row in chosen]
        points += [(x, y, name, f"C{number}") for x, y, name in zip(xs, ys, names, strict=True)]
    return points


def _label(axes: Any, points: Sequence[tuple[float, float, str, str]], renderer: Any) -> None:
    """Write the labels where they cover neither each other nor the legend, the points and the lines."""
    texts = [axes.annotate(name, (x, y), fontsize=9, color=colour) for x, y, name, colour in points]
    sizes = [text.get_window_extent(renderer) for text in texts]
    spots = [tuple(axes.transData.transform((x, y))) for x, y, *_ in points]
    legend = axes.get_legend()
    taken = [Box(*legend.get_window_extent().extents)] if legend else []
    for drawn in axes.get_lines():
        corners = axes.transData.transform(drawn.get_xydata())
        if drawn.get_linestyle() == "-":
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
