"""Compression: each stage compared with the dense model of the same scheme."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from edge_cv.report import formats
from edge_cv.report.comparison import latency_on, settings
from edge_cv.report.drawing import SERIES, legend, locator, shorten_middle, svg
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.sentences import SAME, SIGN_TEST_PHOTOS
from edge_cv.report.values import Report, Row

SAME_MACS = 0.99
"""Share of the dense model's operations from which a model has about as many: channel counts are rounded."""

LEAST_SPARSE_LAYERS = 5  # listed beside the plot

NOTE = (
    "Sparsity is the share of zeros in the weights of all convolution and dense layers; in parentheses, that of the "
    "least and of the most sparse layer. Depthwise filters, a small part of a network, are not pruned. The size after "
    "gzip is about the size of a download or of the file in an app package; on the device the file takes its full "
    "size. Percentages are relative to the dense (uncompressed) model of the same scheme."
)


def section(report: Report) -> Section | None:
    """Accuracy, sparsity, operations, size before and after gzip, and latency of each compressed model."""
    compressed = [row for row in report.rows if row.sparsity is not None]
    if not compressed:
        return None
    pairs = [(row, dense) for row in compressed if (dense := dense_of(row, report.rows)) is not None]
    dense_rows = [row for row in report.rows if any(row is dense for _, dense in pairs)]
    quantized = [(row, dense) for row, dense in pairs if row.output.scheme == "int8"]
    effects = [_effect(row, dense) for row, dense in quantized or pairs] or [_zeros(row) for row in compressed]
    return Section(
        "Compression",
        effects[-1],
        sentences=(*effects[:-1], *_not_faster(quantized)),
        tables=(_table([*dense_rows, *compressed], report.rows),),
        figures=_figures(compressed),
        notes=(NOTE,),
    )


def dense_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of the same run, format and scheme that is not compressed."""
    same = (row.run, row.output.format, row.output.scheme)
    return next(
        (
            other
            for other in rows
            if not other.output.stage and (other.run, other.output.format, other.output.scheme) == same
        ),
        None,
    )


def _effect(row: Row, dense: Row) -> str:
    """The sizes, latency and accuracy of a compressed model relative to the dense one, in one sentence."""
    parts = []
    if row.macs and dense.macs and row.macs < SAME_MACS * dense.macs:
        parts.append(f"{formats.whole_percent(row.macs / dense.macs)} of the multiply-accumulates")
    if row.gzip_bytes and dense.gzip_bytes:
        parts.append(f"{formats.whole_percent(row.gzip_bytes / dense.gzip_bytes)} of the size after gzip")
    if row.size_bytes and dense.size_bytes:
        parts.append(f"{formats.whole_percent(row.size_bytes / dense.size_bytes)} of the file size")
    if times := _latencies(row, dense):
        parts.append(f"{formats.whole_percent(times[0] / times[1])} of the latency")
    text = f"{row.name} has {formats.joined(parts)} of {dense.name}" if parts else row.name
    if row.top1 is not None and dense.top1 is not None and row.images:
        points = 100 * (row.top1 - dense.top1)
        photos = round(abs(row.top1 - dense.top1) * row.images)
        change = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} top-1" if photos else "the same top-1"
        text += f"{', and' if parts else ' has'} {change} on {formats.photos(row.images)}"
        text += ", a difference that may be chance" if 0 < photos < SIGN_TEST_PHOTOS else ""
    return f"{text}."


def _zeros(row: Row) -> str:
    return f"{formats.whole_percent(row.total_sparsity or 0)} of the weights of {row.name} are zero."


def _not_faster(pairs: Sequence[tuple[Row, Row]]) -> tuple[str, ...]:
    """A sentence on the models that zeros or shared weights made smaller after gzip, but not faster."""
    names = []
    for row, dense in pairs:
        times = _latencies(row, dense)
        if times is None or not (row.gzip_bytes and dense.gzip_bytes and row.macs and dense.macs):
            continue
        smaller = row.gzip_bytes * SAME < dense.gzip_bytes
        if smaller and row.macs >= SAME_MACS * dense.macs and times[0] * SAME > times[1]:
            names.append(f"{row.name} ({formats.milliseconds(times[0])} against {formats.milliseconds(times[1])})")
    if not names:
        return ()
    return (
        f"Smaller to download, but not faster: {formats.joined(names)}. The runtime computes with zeros and shared "
        "weights as with any other values; only removed channels or a runtime with sparse kernels save time.",
    )


def _latencies(row: Row, dense: Row) -> tuple[float, float] | None:
    """The medians of both at the first host and number of threads that both were measured with."""
    for host, threads in settings([row, dense]):
        own, other = latency_on(row, host, threads), latency_on(dense, host, threads)
        if own and other and own.p50_ms and other.p50_ms:
            return own.p50_ms, other.p50_ms
    return None


def _table(rows: Sequence[Row], every: Sequence[Row]) -> Table:
    timed = settings(rows)
    return Table(
        "",
        (
            ("Model", ""),
            ("Top-1", "95 % interval"),
            ("Sparsity", "by layer"),
            ("MACs", ""),
            ("File", ""),
            ("After gzip", ""),
            ("Latency", f"median, {formats.threads(timed[0][1])}" if timed else ""),
        ),
        tuple(_cells(row, None if row.sparsity is None else dense_of(row, every)) for row in rows),
    )


def _cells(row: Row, dense: Row | None) -> tuple[str, ...]:
    def relative(value: float | None, other: float | None) -> str:
        return f"\n{formats.whole_percent(value / other)} of {dense.short_name}" if dense and value and other else ""

    macs, size_bytes, gzip_bytes = (dense.macs, dense.size_bytes, dense.gzip_bytes) if dense else (None, None, None)
    shares = sorted((row.sparsity or {}).values())
    ends = [formats.whole_percent(share) for share in (*shares[:1], *shares[-1:])]
    extent = f"\n({ends[0]} to {ends[1]})" if len(set(ends)) > 1 else ""
    times = _latencies(row, dense or row)
    return (
        row.name,
        f"{formats.percent(row.top1, row.images)}\n{formats.interval(row.top1_ci95, row.images)}".strip(),
        f"{formats.whole_percent(row.total_sparsity or 0)}{extent}" if shares else formats.MISSING,
        formats.count(row.macs) + relative(row.macs, macs),
        formats.size(row.size_bytes) + relative(row.size_bytes, size_bytes),
        formats.size(row.gzip_bytes) + relative(row.gzip_bytes, gzip_bytes),
        formats.milliseconds(times[0] if times else None) + (relative(*times) if times else ""),
    )


def _figures(compressed: Sequence[Row]) -> tuple[Figure, ...]:
    """The sparsity of each layer, for rows that differ in it; none where nothing was pruned."""
    different: dict[tuple[tuple[str, float], ...], Row] = {}
    for row in compressed:
        if row.sparsity and max(row.sparsity.values()) > 0:
            different.setdefault(tuple((name, round(share, 2)) for name, share in row.sparsity.items()), row)
    if not different:
        return ()
    rows = list(different.values())
    last = rows[-1].sparsity or {}
    least = sorted(last, key=lambda name: last[name])[:LEAST_SPARSE_LAYERS]
    listed = tuple((name, formats.whole_percent(last[name])) for name in least)
    return (
        Figure(
            "Sparsity by layer",
            f"Share of zeros in the weights of each of {len(last)} layers. The least sparse layers of {rows[-1].name}:",
            f"Sparsity by layer; lowest: {'; '.join(f'{name} {share}' for name, share in listed)}.",
            functools.partial(plot, rows),
            listed,
        ),
    )


def plot(rows: Sequence[Row]) -> str:
    """The share of zeros in each layer from input to output, a line for each row, as SVG."""

    def draw(figure: Any, axes: Any) -> None:
        count = max(len(row.sparsity or {}) for row in rows)
        for number, row in enumerate(rows):
            ys = [100 * share for share in (row.sparsity or {}).values()]
            axes.plot(
                range(1, len(ys) + 1),
                ys,
                "o-",
                color=SERIES[(3 * number) % len(SERIES)],
                linewidth=1.1,
                # later markers are smaller, so that both are visible where the values are equal
                markersize=(4 if count > 30 else 6) - 1.5 * min(number, 1),
                label=shorten_middle(row.name, 26),
            )
        axes.set_xlim(1 - max(1.0, 0.03 * count), count + max(1.0, 0.03 * count))
        axes.set_ylim(0, 104)
        axes.xaxis.set_major_locator(locator(integer=True))
        axes.grid(axis="y")
        axes.set_xlabel("layer, from input to output")
        axes.set_ylabel("zeros, % of the weights")
        legend(axes, "lower right")

    return svg("sparsity", draw)
