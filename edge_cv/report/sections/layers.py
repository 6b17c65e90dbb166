"""A picture of a converted model layer by layer: SQNR of outputs and weights, and how the ranges fit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import InputError, unknown
from converters.files import write_atomic

if TYPE_CHECKING:
    from converters.parity import LayerError

FORMATS = ("png", "svg", "pdf")
INCHES_A_LAYER, MIN_WIDTH_INCHES, HEIGHT_INCHES = 0.21, 7.0, 8.0


def draw(errors: Sequence[LayerError], path: Path, *, title: str, below_db: float | None = None) -> None:
    """Write the picture into a file; its ending says the format.

    Args:
        errors: of `converters.tflite.layers.layer_errors`.
        path: `.png`, `.svg` or `.pdf`.
        title: over the picture.
        below_db: a line under which a layer departs, and the first that does is marked.

    Raises:
        InputError: as `check_path`.
    """
    kind = check_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(MIN_WIDTH_INCHES, 1.2 + INCHES_A_LAYER * len(errors))
    figure = Figure((width, HEIGHT_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    places = range(len(errors))
    upper.set_title(title, loc="left", fontsize=11)
    upper.plot(places, [e.sqnr_db for e in errors], "o-", color="C0", markersize=4, linewidth=1, label="output")
    weighted = [(n, e.weights_sqnr_db) for n, e in enumerate(errors) if e.weights_sqnr_db is not None]
    if weighted:
        upper.plot(*zip(*weighted, strict=True), "s", color="C1", markersize=4, alpha=0.7, label="weights")
    if below_db is not None:
        upper.axhline(below_db, color="C3", linewidth=0.8, linestyle="--")
        first = next((n for n, e in enumerate(errors) if e.sqnr_db < below_db), None)
        if first is not None:
            mark = {"color": "C3", "markersize": 9, "fillstyle": "none", "label": "departs"}
            upper.plot([first], [errors[first].sqnr_db], "o", **mark)
    upper.set_ylabel("SQNR, dB (higher is better)")
    upper.grid(axis="y", alpha=0.3)
    upper.legend(loc="best", fontsize=9)
    known = [(n, e) for n, e in enumerate(errors) if e.saturated is not None]
    if known:
        for side, name, label, colour in (
            (-0.2, "saturated", "saturated values", "C3"),
            (0.2, "unused", "unused range", "0.6"),
        ):
            shares = [100 * getattr(e, name) for _, e in known]
            lower.bar([n + side for n, _ in known], shares, 0.4, color=colour, label=label)
        lower.legend(loc="best", fontsize=9)
    lower.set_ylabel("%")
    lower.set_xlim(-0.8, len(errors) - 0.2)
    lower.set_xticks(list(places), [_short(e.layer) for e in errors], rotation=90, fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=130)
    write_atomic(path, content.getvalue())


def check_path(path: Path) -> str:
    """The format that a picture's path names; InputError for another ending, or where there is no such folder."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise unknown("format of a picture", path.name, [f"NAME.{known}" for known in FORMATS])
    if not path.parent.is_dir():
        raise InputError(f"the picture's folder must be there. Received: {path.parent}")
    return kind


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
