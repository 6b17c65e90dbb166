"""A picture of a quantized model layer by layer: SQNR of outputs and weights, saturation, and unused integer range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.printable import printable
from edge_cv.report.pictures import check_path, write_figure

if TYPE_CHECKING:
    from converters.parity import LayerError

INCHES_PER_LAYER, MIN_WIDTH_INCHES, HEIGHT_INCHES = 0.21, 7.0, 8.0
MAX_NAME = 34  # characters


def draw(errors: Sequence[LayerError], path: Path, *, title: str, below_db: float | None = None) -> None:
    """Write the picture into a file.

    Args:
        errors: of `converters.tflite.layers.layer_errors`.
        path: `.png`, `.svg` or `.pdf`.
        title: above the picture.
        below_db: SQNR in dB below which a layer departs from the float model; a line shows it, and the first layer
            below it is marked.

    Raises:
        InputError: as `check_path`.
    """
    check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(MIN_WIDTH_INCHES, 1.2 + INCHES_PER_LAYER * len(errors))
    figure = Figure((width, HEIGHT_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.set_title(printable(title), loc="left", fontsize=11, parse_math=False)
    _draw_sqnr(upper, errors, below_db)
    _draw_ranges(lower, errors)
    lower.set_xlim(-0.8, len(errors) - 0.2)
    names = [
        printable(e.layer) if len(e.layer) <= MAX_NAME else f"…{printable(e.layer[1 - MAX_NAME :])}" for e in errors
    ]
    lower.set_xticks(range(len(errors)), names, rotation=90, fontsize=7, parse_math=False)
    write_figure(figure, path, dpi=130)


def _draw_sqnr(axes: Any, errors: Sequence[LayerError], below_db: float | None) -> None:
    places = range(len(errors))
    axes.plot(places, [e.sqnr_db for e in errors], "o-", color="C0", markersize=4, linewidth=1, label="output")
    weighted = [(n, e.weights_sqnr_db) for n, e in enumerate(errors) if e.weights_sqnr_db is not None]
    if weighted:
        axes.plot(*zip(*weighted, strict=True), "s", color="C1", markersize=4, alpha=0.7, label="weights")
    if below_db is not None:
        axes.axhline(below_db, color="C3", linewidth=0.8, linestyle="--")
        first = next((n for n, e in enumerate(errors) if e.sqnr_db < below_db), None)
        if first is not None:
            mark = {"color": "C3", "markersize": 9, "fillstyle": "none", "label": "first departing layer"}
            axes.plot([first], [errors[first].sqnr_db], "o", **mark)
    axes.set_ylabel("SQNR, dB (higher is better)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="best", fontsize=9)


def _draw_ranges(axes: Any, errors: Sequence[LayerError]) -> None:
    known = [(n, e) for n, e in enumerate(errors) if e.saturated is not None]
    for side, name, label, colour in (
        (-0.2, "saturated", "saturated values", "C3"),
        (0.2, "unused", "unused range", "0.6"),
    ):
        if known:
            shares = [100 * getattr(e, name) for _, e in known]
            axes.bar([n + side for n, _ in known], shares, 0.4, color=colour, label=label)
    if known:
        axes.legend(loc="best", fontsize=9)
    axes.set_ylabel("%")
