"""Error by layer: the signal-to-quantization-noise ratio (SQNR) of every layer of a quantized file."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence

from edge_cv.report import formats, plots
from edge_cv.report.comparison import main_rows
from edge_cv.report.sections.section import Figure, Section
from edge_cv.report.values import Report, Row

NOTE = (
    "The SQNR compares the output of a layer in the quantized file with the same output in the float file: every 6 dB "
    "less is twice the error. Errors add up from the input to the output. A single layer far below its neighbours is "
    "worth a look; a slow decline is normal."
)


def section(report: Report) -> Section | None:
    """The layers of the row that the headline is about, or of the first row that has any."""
    row = shown_row(report.rows)
    if row is None:
        return None
    listed = tuple(
        (short_name(layer["layer"]), formats.decibels(layer["sqnr_db"])) for layer in plots.worst_layers(row)
    )
    weights = any(layer.get("weights_sqnr_db") is not None for layer in row.layers)
    figure = Figure(
        f"SQNR of {row.name} by layer",
        f"Signal-to-quantization-noise ratio of the output of each of {len(row.layers)} layers"
        + (" (squares: of its weights)" if weights else "")
        + ". The lowest:",
        f"SQNR by layer; lowest: {'; '.join(f'{name} {value}' for name, value in listed)}.",
        functools.partial(plots.layer_errors, row),
        listed,
    )
    median = statistics.median(layer["sqnr_db"] for layer in row.layers if layer["sqnr_db"] is not None)
    name, lowest = listed[0]
    finding = (
        f"The output of layer {name} has the largest quantization error in {row.name}: {lowest} SQNR, while the median "
        f"layer has {formats.decibels(median)}."
    )
    return Section("Error by layer", finding, figures=(figure,), notes=(NOTE,))


def shown_row(rows: Sequence[Row]) -> Row | None:
    """The row whose layers the page shows; None if no row has any."""
    _, row = main_rows(rows)
    first = [] if row is None else [row]
    return next((one for one in (*first, *rows) if plots.worst_layers(one)), None)


def short_name(layer: str) -> str:
    """The name of a layer: a fused layer is named after all of its parts; the first one identifies it."""
    return layer.split(";")[0]
