"""The plots of a report, as SVG to put into a page.

Text stays text, so that it takes the page's font and can be searched; colours are CSS variables of the page (`--ink`,
`--muted`, `--line`, `--paper`, `--c0` ... `--c5`), so that one drawing serves light and dark; ids carry the name of the
plot, so that several drawings live in one page.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from edge_cv.report import sentences
from edge_cv.report.comparison import latency_on, settings
from edge_cv.report.values import Epoch, Row

SIZE_INCHES = (5.0, 3.4)
"""Wide enough for two in a row on a desk, narrow enough that 11 point text stays readable on a phone."""

# Stand-ins that matplotlib can draw with; `_svg` replaces them by the page's variables.
_INK, _MUTED, _LINE, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = tuple(f"#0{n}0{n}1{n}" for n in range(6))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line", _PAPER: "--paper"} | {
    colour: f"--c{n}" for n, colour in enumerate(_SERIES)
}

_SCHEME_COLOURS = {"float32": 0, "float16": 1, "dynamic_int8": 2, "int8": 3, "int16x8": 4, "mixed": 5}

_STYLE = {
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
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}

LOG_RATIO = 8.0
"""An axis whose values span more than this ratio is logarithmic."""

MOST_BOXES = 14
MOST_NAMES, LONGEST_NAME = 7, 20
"""With more points than this, or longer names, a point bears its row's number instead of its name."""

WORST_LAYERS = 5


def numbered(rows: Sequence[Row]) -> bool:
    """Whether `accuracy_against` writes the rows' numbers, from 1, instead of their names."""
    return len(rows) > MOST_NAMES or any(len(row.name) > LONGEST_NAME for row in rows)


def pareto(
    rows: Sequence[Row], costs: Sequence[float | None], on: Sequence[bool], *, number: int, threads: int | None
) -> str:
    """Top-1 against cost, in ms at `threads` or, where that is None, in bytes, the front as steps, as SVG.

    Args:
        rows: of the report.
        costs: of each row, None where it was not measured.
        on: whether each row is on the front.
        number: of the drawing, which its ids bear.
        threads: see above.
    """
    scale = 1e6 if threads is None else 1.0
    points = [
        (cost / scale, 100 * row.top1, row, str(place) if numbered(rows) else row.name, member)
        for place, (row, cost, member) in enumerate(zip(rows, costs, on, strict=True), 1)
        if cost is not None and row.top1 is not None
    ]

    def draw(figure: Any, axes: Any) -> None:
        members = sorted((x, y) for x, y, _, _, member in points if member)
        axes.plot(*zip(*members, strict=True), drawstyle="steps-post", color=_MUTED, linewidth=1.4, zorder=1)
        for x, y, row, _, member in points:
            marker, colour = "s" if row.file.lower().endswith(".onnx") else "o", _colour(row)
            face = {} if member else {"markerfacecolor": _PAPER, "markeredgecolor": colour}
            axes.plot([x], [y], marker=marker, markersize=8 if member else 6, color=colour, zorder=3, **face)
        _scale(axes, [x for x, *_ in points])
        low, high = min(y for _, y, *_ in points), max(y for _, y, *_ in points)
        room = max(high - low, 2.0) * 0.15
        axes.set_ylim(max(-2.0, low - room), high + room)
        axes.yaxis.set_major_locator(_locator(integer=high - low > 4))
        axes.grid(axis="y")
        axes.set_xlabel("file size, MB" if threads is None else f"p50 latency, ms ({sentences.threads(threads)})")
        axes.set_ylabel("top-1 accuracy, %")
        _label_points(figure, axes, [(x, y, name, _colour(row)) for x, y, row, name, _ in points], [None] * len(points))

    return _svg(f"pareto-{number}", draw)


def accuracy_against(rows: Sequence[Row], what: str) -> str | None:
    """Top-1 (agreement where there are no labels) against `what`, "latency" or "size", with 95 % intervals, as SVG.

    Returns:
        The drawing, or None when no row has both figures.
    """
    labelled = any(row.top1 is not None for row in rows)
    pairs = settings(rows)
    points = []
    for number, row in enumerate(rows, 1):
        name = str(number) if numbered(rows) else row.name
        share = row.top1 if labelled else row.agreement
        ends = row.top1_ci95 if labelled else row.agreement_ci95
        if what == "latency":
            entry = latency_on(row, *pairs[0]) if pairs else None
            x = entry["p50_ms"] if entry else None
        else:
            x = row.size_bytes / 1e6 if row.size_bytes else None
        if share is not None and x:
            points.append((x, 100 * share, tuple(100 * end for end in ends) if ends else None, row, name))
    if not points:
        return None

    def draw(figure: Any, axes: Any) -> None:
        for x, y, ends, row, _ in points:
            colour = _colour(row)
            if ends:
                axes.plot([x, x], ends, color=colour, linewidth=1.4, alpha=0.55, solid_capstyle="butt", zorder=2)
                for end in ends:
                    axes.plot([x], [end], marker="_", color=colour, markersize=7, alpha=0.55, zorder=2)
            marker = "s" if row.file.lower().endswith(".onnx") else "o"
            axes.plot([x], [y], marker=marker, markersize=8, color=colour, markeredgecolor=_PAPER, zorder=3)
        xs = [p[0] for p in points]
        _scale(axes, xs)
        low = min(min(p[2]) if p[2] else p[1] for p in points)
        high = max(max(p[2]) if p[2] else p[1] for p in points)
        room = max(high - low, 2.0) * 0.12
        axes.set_ylim(max(-2.0, low - room), min(102.0, high + room) if high < 100 else 100 + room)
        axes.yaxis.set_major_locator(_locator(integer=high - low > 4))
        axes.grid(axis="y")
        axes.set_xlabel(f"p50 latency, ms ({sentences.threads(pairs[0][1])})" if what == "latency" else "file size, MB")
        axes.set_ylabel("top-1 accuracy, %" if labelled else "agreement with float, %")
        _label_points(figure, axes, [(p[0], p[1], p[4], _colour(p[3])) for p in points], [p[2] for p in points])

    return _svg(f"accuracy-{what}", draw)


def latency_distributions(rows: Sequence[Row]) -> str | None:
    """The spread of single inferences for each artifact and number of threads, as SVG; None when nothing was timed.

    Boxes span the quartiles and whiskers p5 to p95 of the samples; without samples a line runs from p50 to p90 and p99.
    """
    boxes = [(row, entry) for row in rows for entry in row.latency]
    if len(boxes) > MOST_BOXES and boxes:
        host, number = settings(rows)[0]
        boxes = [(row, entry) for row, entry in boxes if (entry["host"], entry["threads"]) == (host, number)]
    if not boxes:
        return None
    several = len({entry["threads"] for _, entry in boxes}) > 1
    hosts = len({entry["host"] for _, entry in boxes}) > 1

    def draw(figure: Any, axes: Any) -> None:
        import numpy as np

        seen = []
        for place, (row, entry) in enumerate(boxes):
            colour, samples = _colour(row), entry.get("samples_ms") or ()
            if len(samples) >= 5:
                low, first, middle, third, high = np.percentile(samples, (5, 25, 50, 75, 95))
                spread = np.random.default_rng(place).uniform(-0.16, 0.16, len(samples))
                kept = slice(None, None, max(1, len(samples) // 100))
                inside = np.clip(samples, None, high + 3 * (high - low))
                axes.plot(inside[kept], place + spread[kept], ".", color=colour, alpha=0.28, markersize=3.5)
                axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
                axes.barh(place, third - first, left=first, height=0.5, color=colour, alpha=0.35, linewidth=0)
                seen += [low, high, *inside]
            else:
                middle = entry["p50_ms"]
                ends = [v for v in (entry["p90_ms"], entry["p99_ms"]) if v is not None]
                axes.plot([middle, *ends], [place] * (1 + len(ends)), "|-", color=colour, linewidth=1.4, markersize=9)
                seen += [middle, *ends]
            axes.plot([middle, middle], [place - 0.27, place + 0.27], color=colour, linewidth=2.6)
        _scale(axes, [v for v in seen if v > 0])
        names = []
        for row, entry in boxes:
            name = _middle(row.name, 26)
            name += f", {entry['threads']} t" if several and len(boxes) > 1 else ""
            names.append(name + (f", {_short(entry['host'], 14)}" if hosts else ""))
        axes.set_yticks(range(len(boxes)), names)
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(boxes) - 0.5, -0.5)
        axes.grid(axis="x")
        only = sorted({entry["threads"] for _, entry in boxes})
        axes.set_xlabel("latency, ms" + (f" ({sentences.threads(only[0])})" if len(only) == 1 else ""))

    height = max(SIZE_INCHES[1], 0.9 + 0.27 * len(boxes))
    return _svg("latency-distributions", draw, height)


def worst_layers(row: Row) -> list[dict[str, Any]]:
    """The layers with the lowest SQNR, worst first."""
    known = [layer for layer in row.layers if layer["sqnr_db"] is not None]
    return sorted(known, key=lambda layer: layer["sqnr_db"])[:WORST_LAYERS]


def layer_errors(row: Row) -> str | None:
    """SQNR of every layer's output in the network's order, as SVG, the worst ones numbered; None without layers."""
    places = [(n, layer) for n, layer in enumerate(row.layers, 1) if layer["sqnr_db"] is not None]
    if not places:
        return None

    def draw(figure: Any, axes: Any) -> None:
        xs, ys = [n for n, _ in places], [layer["sqnr_db"] for _, layer in places]
        colour = _colour(row)
        axes.plot(xs, ys, color=colour, linewidth=1.2, alpha=0.6)
        axes.plot(
            xs, ys, "o", color=colour, markersize=4 if len(xs) > 20 else 6, markeredgecolor=_PAPER, markeredgewidth=0.5
        )
        weights = [(n, layer["weights_sqnr_db"]) for n, layer in places if layer.get("weights_sqnr_db") is not None]
        if weights:
            axes.plot(*zip(*weights, strict=True), "s", color=_MUTED, markersize=3, alpha=0.6, zorder=1)
        seen = [*ys, *(value for _, value in weights)]
        room = max(max(seen) - min(seen), 2.0)
        axes.set_ylim(min(seen) - 0.2 * room, max(seen) + 0.08 * room)
        worst = worst_layers(row)
        marks = []
        for number, layer in enumerate(worst, 1):
            x = next(n for n, other in places if other is layer)
            axes.plot(
                [x], [layer["sqnr_db"]], "o", color=colour, markersize=7, markeredgecolor=_INK, markeredgewidth=1.2
            )
            marks.append((x, layer["sqnr_db"], str(number), _INK))
        margin = max(1.0, 0.03 * len(row.layers))
        axes.set_xlim(1 - margin, len(row.layers) + margin)
        axes.xaxis.set_major_locator(_locator(integer=True))
        axes.yaxis.set_major_locator(_locator(integer=room > 4))
        axes.grid(axis="y")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("SQNR, dB (higher is better)")
        _label_points(figure, axes, marks, [None] * len(marks), obstacles=list(zip(xs, ys, strict=True)))

    return _svg("layer-errors", draw)


def reliability(rows: Sequence[Row]) -> str | None:
    """Accuracy against confidence, a line for each row, the more photos a point has the larger, as SVG."""
    rows = [row for row in rows if row.confidence is not None]
    if not rows:
        return None

    def draw(figure: Any, axes: Any) -> None:
        axes.plot([0, 100], [0, 100], ":", color=_MUTED, linewidth=1.2)
        for row in rows:
            bins, colour = row.confidence.bins, _colour(row)
            xs, ys = [100 * b.confidence for b in bins], [100 * b.accuracy for b in bins]
            areas = [12 + 160 * b.images / row.confidence.images for b in bins]
            axes.plot(xs, ys, color=colour, linewidth=1.3, alpha=0.7, label=_middle(row.name, 26))
            axes.scatter(xs, ys, s=areas, color=colour, alpha=0.6, linewidths=0)
        axes.set_xlim(0, 103)
        axes.set_ylim(-3, 104)
        axes.grid(axis="y")
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("accuracy, %")
        _legend(axes, "upper left")

    return _svg("reliability", draw, 4.2)


def confusion_matrix(row: Row) -> str | None:
    """The share of each class's photos that each answer got, as SVG; None where the whole matrix is not kept."""
    scores = row.classes
    if scores is None or not scores.matrix:
        return None
    count = len(scores.matrix)

    def draw(figure: Any, axes: Any) -> None:
        from matplotlib.patches import Rectangle

        colour = _colour(row)
        for y, counts in enumerate(scores.matrix):
            for x, number in enumerate(counts):
                if number:
                    share = number / sum(counts)
                    axes.add_patch(
                        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=0.12 + 0.75 * share, linewidth=0)
                    )
                    if count <= 12:
                        axes.text(x, y, str(number), ha="center", va="center", fontsize=9 if count > 8 else 10)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_aspect("equal")
        size = 10 if count <= 12 else max(5.0, 130 / count)
        names = [_short(name, 14) for name in scores.matrix_names]
        places = range(0, count, 1 if count <= 26 else 2)
        axes.set_yticks(places, [names[n] for n in places], fontsize=max(size, 7))
        axes.set_xticks(places, [names[n] for n in places], fontsize=max(size, 7), rotation=90)
        axes.tick_params(length=0)
        axes.set_xlabel("answer")
        axes.set_ylabel("true class")

    return _svg(f"confusion-{_identifier(row.name)}", draw, 5.0)


def against_severity(rows: Sequence[Row]) -> str | None:
    """Mean top-1 over the corruptions against their severity, a line for each row, as SVG."""
    rows = [row for row in rows if row.robustness is not None]
    if not rows:
        return None

    def draw(figure: Any, axes: Any) -> None:
        for row in rows:
            ys = [100 * row.robustness.at_severity(severity) for severity in range(6)]
            axes.plot(range(6), ys, "o-", color=_colour(row), linewidth=1.5, markersize=5, label=_middle(row.name, 26))
        axes.set_ylim(0, 104)
        axes.set_xticks(range(6), ["clean", *map(str, range(1, 6))])
        axes.grid(axis="y")
        axes.set_xlabel("severity")
        axes.set_ylabel("top-1 accuracy, %")
        _legend(axes, "upper right")

    return _svg("severity", draw)


def training(epochs: Sequence[Epoch], what: str) -> str:
    """`loss` or `score` of the training images and, where there are some, of the validation images, as SVG."""
    percent = 100 if what == "score" else 1

    def draw(figure: Any, axes: Any) -> None:
        for prefix, name, colour in (("", "training", _SERIES[0]), ("validation_", "validation", _SERIES[3])):
            points = [(e.epoch, getattr(e, prefix + what)) for e in epochs if getattr(e, prefix + what) is not None]
            if points:
                axes.plot([x for x, _ in points], [percent * y for _, y in points], color=colour, label=name)
                if len(points) == 1:
                    axes.plot(*[[n] for n in (points[0][0], percent * points[0][1])], "o", color=colour)
        for before, after in itertools.pairwise(epochs):
            if after.phase != before.phase:
                axes.axvline(before.epoch + 0.5, color=_MUTED, linestyle=":", linewidth=1)
        axes.xaxis.set_major_locator(_locator(True))
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("score, %" if what == "score" else "cross-entropy")
        if axes.get_lines():
            _legend(axes, "best")

    return _svg(f"training-{what}", draw)


def sparsity(rows: Sequence[Row]) -> str:
    """The share of zeros in each layer of compressed rows, from input to output, a line for each row, as SVG."""

    def draw(figure: Any, axes: Any) -> None:
        count = max(len(row.sparsity or {}) for row in rows)
        for number, row in enumerate(rows):
            ys = [100 * share for share in (row.sparsity or {}).values()]
            # the later one within the earlier: both stay to be seen where they are equal
            axes.plot(
                range(1, len(ys) + 1),
                ys,
                "o-",
                color=_SERIES[(3 * number) % len(_SERIES)],
                linewidth=1.1,
                markersize=(4 if count > 30 else 6) - 1.5 * min(number, 1),
                label=_middle(row.name, 26),
            )
        axes.set_xlim(1 - max(1.0, 0.03 * count), count + max(1.0, 0.03 * count))
        axes.set_ylim(0, 104)
        axes.xaxis.set_major_locator(_locator(integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("zeros, % of the weights")
        _legend(axes, "lower right")

    return _svg("sparsity", draw)


def _legend(axes: Any, place: str) -> None:
    legend = axes.legend(loc=place, frameon=False, fontsize=10, handlelength=1.4)
    for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True):
        text.set_color(line.get_color())


def _identifier(name: str) -> str:
    """`name` as a part of an id, a different one for each name."""
    return "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}" for c in name)


def _colour(row: Row) -> str:
    return _SERIES[_SCHEME_COLOURS.get(row.scheme, sum(map(ord, row.scheme)) % len(_SERIES))]


def _short(text: str, most: int) -> str:
    """`text` in one line of at most `most` characters, without what XML or a font cannot show."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _middle(text: str, most: int) -> str:
    """`text` of at most `most` characters, shortened in its middle: names of runs and schemes differ at both ends."""
    line = _short(text, len(text))
    return line if len(line) <= most else f"{line[: most // 3]}…{line[-(most - most // 3 - 1) :]}"


def _locator(integer: bool) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=integer)


def _scale(axes: Any, values: Sequence[float]) -> None:
    """The horizontal axis for positive `values`: from zero, or logarithmic when they span too much."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    low, high = min(values, default=1.0), max(values, default=1.0)
    if high / low <= LOG_RATIO:
        axes.set_xlim(0, high * 1.12)
        axes.xaxis.set_major_locator(_locator(integer=False))
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


def _label_points(
    figure: Any,
    axes: Any,
    labels: Sequence[tuple[float, float, str, str]],
    bars: Sequence[tuple[float, float] | None],
    obstacles: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a label beside each point where it covers no other label or point, and as few error bars as may be.

    Args:
        labels: (x, y, text, colour) in data units.
        bars: the (low, high) of each point's error bar, or None.
        obstacles: further points that no label should cover.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    to_pixels = axes.transData.transform
    frame = axes.get_window_extent(renderer)
    unit = figure.dpi / 72
    points = [tuple(to_pixels((x, y))) for x, y, _, _ in labels] + [tuple(to_pixels(p)) for p in obstacles]
    rods = [
        (to_pixels((x, bar[0])), to_pixels((x, bar[1]))) for (x, _, _, _), bar in zip(labels, bars, strict=True) if bar
    ]
    taken: list[tuple[float, float, float, float]] = []
    for (x, y, text, colour), (px, py) in sorted(zip(labels, points, strict=False), key=lambda item: item[1]):
        written = axes.text(x, y, _short(text, 24), color=colour, fontsize=11, fontweight="bold")
        box = written.get_window_extent(renderer)
        width, height = box.width, box.height
        best = None
        for far in (8, 14, 22, 32, 44, 58, 74, 92):
            for side in ((1, 0), (1, 0.7), (1, -0.7), (0, 1), (0, -1), (-1, 0), (-1, 0.7), (-1, -0.7)):
                gap = far * unit
                left = px + side[0] * gap - width * (1 - side[0]) / 2
                low = py + side[1] * gap - height * (1 - side[1]) / 2
                place = (left, low, left + width, low + height)
                cost = far / 20 + _cost(place, taken, points, rods, frame, unit) + _doubt(place, (px, py), points, unit)
                if best is None or cost < best[0]:
                    best = (cost, place, far)
            if best is not None and best[0] < far / 20 + 0.5:
                break
        cost, place, far = best or (0, (px, py, px + width, py + height), 8)
        taken.append(place)
        written.set_position(axes.transData.inverted().transform(place[:2]))
        written.set_verticalalignment("bottom")
        if far > 16:
            near = (min(max(px, place[0]), place[2]), min(max(py, place[1]), place[3]))
            (x0, y0), (x1, y1) = axes.transData.inverted().transform([(px, py), near])
            axes.plot([x0, x1], [y0, y1], color=_MUTED, linewidth=0.7, zorder=1)


def _cost(
    place: tuple, taken: Sequence[tuple], points: Sequence[tuple], rods: Sequence[tuple], frame: Any, unit: float
):
    """How bad a label's place is: labels and points are never to be covered, error bars rather not."""
    left, low, right, high = place
    pad = 2 * unit
    apart = 8 * unit  # a browser's font may be wider than the one that is measured here
    cost = 0.0
    for other in taken:
        if left < other[2] + apart and other[0] < right + apart and low < other[3] + pad and other[1] < high + pad:
            cost += 100
    for x, y in points:
        cost += 40 * (left - 2 * pad < x < right + 2 * pad and low - 2 * pad < y < high + 2 * pad)
    for (x, bottom), (_, top) in rods:
        cost += 3 * (left - pad < x < right + pad and bottom < high and low < top)
    outside = max(0, frame.x0 - left) + max(0, right - frame.x1) + max(0, frame.y0 - low) + max(0, high - frame.y1)
    return cost + (200 + outside if outside > 0 else 0)


def _doubt(place: tuple, own: tuple[float, float], points: Sequence[tuple], unit: float) -> float:
    """How easily a label in that place is taken for another point's: one that is nearer, or on the line to its own."""
    left, low, right, high = place

    def away(x: float, y: float) -> float:
        return math.hypot(max(left - x, 0, x - right), max(low - y, 0, y - high))

    (x0, y0), far = own, away(*own)
    x1, y1 = min(max(x0, left), right), min(max(y0, low), high)
    doubt = 0.0
    for x, y in points:
        if math.hypot(x - x0, y - y0) < unit:
            continue
        doubt += 6 * (away(x, y) < far)
        along = max(0.0, min(1.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max(far * far, 1e-9)))
        doubt += 8 * (along > 0 and math.hypot(x0 + along * (x1 - x0) - x, y0 + along * (y1 - y0) - y) < 5 * unit)
    return doubt


def _svg(name: str, draw: Callable[[Any, Any], None], height: float = SIZE_INCHES[1]) -> str:
    """What `draw(figure, axes)` draws, as an `<svg>` element whose ids all begin with `name`."""
    import logging

    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a class name in a script that the font lacks is measured as a box here and shown by the browser's own font
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(SIZE_INCHES[0], height), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, figure.subplots())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
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
    # the page's own font takes the place of the wider one that the labels were measured with
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)
    return text
