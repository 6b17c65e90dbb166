"""A picture of the architectures: published top-1 against multiply-accumulates."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from converters.errors import InputError, unknown
from converters.files import write_atomic

FORMATS = ("png", "svg", "pdf")
SIZE_INCHES = (9.0, 6.0)
FAMILIES = (  # prefix of the names, title, what is cut off the labels
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
    """Write the picture of the rows of `edge_cv.models.describe` into a file; its ending says the format.

    Raises InputError for another ending than png, svg or pdf.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("format of a picture", path.name, [f"NAME.{known}" for known in FORMATS])
    if not path.parent.is_dir():
        raise InputError(f"the picture's folder must be there. Received: {path.parent}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(SIZE_INCHES, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", xlabel="multiply-accumulates of one image (millions)")
    axes.set_ylabel("published ImageNet top-1 (%)")
    axes.grid(alpha=0.3)
    points = []
    for number, (prefix, title, cut) in enumerate(FAMILIES):
        chosen = [row for row in rows if _family(row["name"]) == prefix]
        if not chosen:
            continue
        xs, ys = [row["macs"] / 1e6 for row in chosen], [100 * row["top1"] for row in chosen]
        line = "-" if prefix.startswith("efficientnet") else ""  # scaled from one baseline
        axes.plot(xs, ys, "o" + line, color=f"C{number}", label=title, linewidth=1)
        names = [row["name"].removeprefix(cut).replace("_", " ") for row in chosen]
        points += [(x, y, name, f"C{number}") for x, y, name in zip(xs, ys, names, strict=True)]
    axes.margins(0.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.legend(loc="lower right")
    canvas.draw()  # so that sizes in pixels are known

    measured = [axes.annotate(name, (x, y), fontsize=9, color=colour) for x, y, name, colour in points]
    sizes = [text.get_window_extent(canvas.get_renderer()) for text in measured]
    spots = [tuple(axes.transData.transform((x, y))) for x, y, *_ in points]
    legend = axes.get_legend().get_window_extent()
    taken = [Box(*legend.extents)]
    for drawn in axes.get_lines():
        corners = axes.transData.transform(drawn.get_xydata())
        if drawn.get_linestyle() == "-":
            steps = [a + (b - a) * part / 20 for a, b in itertools.pairwise(corners) for part in range(20)]
            taken += [Box(x - 2, y - 2, x + 2, y + 2) for x, y in steps]
    boxes = place(spots, [(size.width, size.height) for size in sizes], taken=taken)
    for text, box in zip(measured, boxes, strict=True):
        text.set_position(axes.transData.inverted().transform((box.left, box.bottom)))
        text.set_verticalalignment("bottom")
    content = io.BytesIO()
    figure.set_layout_engine("none")  # the labels are where they are
    figure.savefig(content, format=kind, dpi=figure.dpi if kind != "png" else 2 * figure.dpi)
    write_atomic(path, content.getvalue())


def place(
    spots: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], *, taken: Iterable[Box] = ()
) -> list[Box]:
    """A place for each label beside its spot, where it covers no other label, no spot and nothing that is taken.

    Args:
        spots: points in pixels.
        sizes: width and height of each point's label, in pixels.
        taken: what must stay free.

    Returns:
        The labels' places. They overlap only where there is no room within ten times their height.
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
