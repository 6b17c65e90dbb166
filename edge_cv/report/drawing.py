"""Drawing the plots of a report as SVG elements for a page.

Text stays text, so that it uses the page's font and can be searched. Colours are CSS variables of the page (`--ink`,
`--muted`, `--line`, `--paper`, `--c0` ... `--c5`), so that one drawing serves the light and the dark theme. Ids start
with the name of the plot, so that several drawings fit in one page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from converters.printable import printable
from edge_cv.report.values import Row

SIZE_INCHES = (5.0, 3.4)
"""Wide enough for two plots side by side on a desktop, narrow enough for readable 11 point text on a phone."""

# Placeholders that matplotlib can draw with; `svg` replaces them with the page's variables.
INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0{n}0{n}1{n}" for n in range(6))
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", PAPER: "--paper"} | {
    colour: f"--c{n}" for n, colour in enumerate(SERIES)
}

_SCHEME_COLOURS = {"float32": 0, "float16": 1, "dynamic_int8": 2, "int8": 3, "int16x8": 4, "mixed": 5}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edge-cv",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}

LOG_RATIO = 8.0
"""Largest over smallest value above which an axis is logarithmic."""


def legend(axes: Any, place: str) -> None:
    """A legend without a frame, its texts in the colours of their lines."""
    legend = axes.legend(loc=place, frameon=False, fontsize=10, handlelength=1.4)
    for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True):
        text.set_color(line.get_color())


def identifier(name: str) -> str:
    """`name` as a part of an XML id; different names give different ids."""
    return "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in name)


def colour_of(row: Row) -> str:
    """The colour of the row in all plots."""
    return SERIES[_SCHEME_COLOURS.get(row.scheme, sum(map(ord, row.scheme)) % len(SERIES))]


def one_line(text: str, most: int) -> str:
    """`text` in one line of at most `most` characters, without those that XML or a font cannot show."""
    line = printable(text, " ")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shorten_middle(text: str, most: int) -> str:
    """`text` with its middle cut to fit `most` characters: names of runs and schemes differ at both ends."""
    line = one_line(text, len(text))
    return line if len(line) <= most else f"{line[: most // 3]}…{line[-(most - most // 3 - 1) :]}"


def locator(integer: bool) -> Any:
    """A matplotlib locator for at most six round ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=integer)


def positive_scale(axes: Any, values: Sequence[float]) -> None:
    """Scale the horizontal axis for positive `values`: from zero, or logarithmic if their ratio exceeds `LOG_RATIO`."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    low, high = min(values, default=1.0), max(values, default=1.0)
    if high / low <= LOG_RATIO:
        axes.set_xlim(0, high * 1.12)
        axes.xaxis.set_major_locator(locator(integer=False))
        return
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.5)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [s * 10.0**e for e in exponents for s in steps if low / 1.5 <= s * 10.0**e <= high * 1.5]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def svg(name: str, draw: Callable[[Any, Any], None], height: float = SIZE_INCHES[1]) -> str:
    """The drawing that `draw(figure, axes)` makes, as an `<svg>` element whose ids all start with `name`.

    Args:
        name: letters, digits, `-` and `_`; unique within the page.
        draw: draws on a matplotlib figure with one pair of axes.
        height: of the figure in inches.
    """
    import logging

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # characters that matplotlib's font lacks are measured as a box here and drawn in the browser's own font
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, figure.subplots())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _for_page(buffer.getvalue(), name)


def _for_page(text: str, name: str) -> str:
    """matplotlib's SVG file as an element of the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', text
    )
    # the page's own font replaces the wider one that the labels were measured with
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    return text
