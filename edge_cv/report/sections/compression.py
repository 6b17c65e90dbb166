"""What compression brought: the section of the page that sets each stage beside the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from edge_cv.report import plots, sentences
from edge_cv.report.comparison import latency_on, settings
from edge_cv.report.sections.section import Figure, Section, Table
from edge_cv.report.values import Report, Row

SAME_MACS = 0.99  # of the dense model's: what computes as much, to the rounding of channel counts
MOST_NAMED = 5  # layers beside the plot


def compression(report: Report) -> Section | None:
    """Each stage against the dense model: accuracy, zeros, operations, size as it is and compressed, and latency."""
    made = [row for row in report.rows if row.sparsity is not None]
    if not made:
        return None
    pairs = [(row, dense_of(row, report.rows)) for row in made]
    dense = [row for row in report.rows if any(row is other for _, other in pairs)]
    return Section(
        "What compression brought",
        sentences=(*(_brought(row, of) for row, of in pairs if of and _integer(row)), *_only_smaller(pairs)),
        tables=(_table([*dense, *made], report.rows),),
        figures=_figures(made),
        notes=(
            "Sparsity is the share of zeros in the weights of convolutions and dense layers, of all together and, in "
            "brackets, of the least and the most sparse layer; depthwise filters, a small part of a network, are not "
            "pruned. The size after gzip is about what a download or an app's package takes; on the device the file "
            "has its full size. Each figure under a row is against the dense model of the same scheme.",
        ),
    )


def dense_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The dense row of the same run and scheme: `int8` of `pruned_int8`."""
    found = [
        other
        for other in rows
        if other.run == row.run and other.sparsity is None and row.scheme.endswith(f"_{other.scheme}")
    ]
    return max(found, key=lambda other: len(other.scheme), default=None)


def _integer(row: Row) -> bool:
    return row.scheme.endswith("_int8")


def _brought(row: Row, dense: Row) -> str:
    """What one stage won and lost in int8, in one sentence."""
    parts = []
    if row.macs and dense.macs and row.macs < SAME_MACS * dense.macs:
        parts.append(f"{_percent(row.macs / dense.macs)} of the multiply-accumulates")
    if row.gzip_bytes and dense.gzip_bytes:
        parts.append(f"{_percent(row.gzip_bytes / dense.gzip_bytes)} of the size after gzip")
    if row.size_bytes and dense.size_bytes:
        parts.append(f"{_percent(row.size_bytes / dense.size_bytes)} of the size as it is")
    if times := _latencies(row, dense):
        parts.append(f"{_percent(times[0] / times[1])} of the latency")
    text = f"{row.name} has {sentences.joined(parts)} of {dense.name}" if parts else row.name
    if row.top1 is not None and dense.top1 is not None and row.images:
        points = 100 * (row.top1 - dense.top1)
        photos = round(abs(row.top1 - dense.top1) * row.images)
        more = "more" if points > 0 else "less"
        change = f"{abs(points):.1f} points {more} top-1" if photos else "the same top-1"
        unsure = "" if photos >= sentences.SIGN_TEST_PHOTOS or not photos else ", which so few photos cannot tell apart"
        text += f", and {change} on {row.images:,} photos{unsure}"
    return f"{text}."


def _only_smaller(pairs: Sequence[tuple[Row, Row | None]]) -> tuple[str, ...]:
    """Says where zeros and equal weights made a file that compresses better, and the network no faster."""
    found = []
    for row, dense in pairs:
        times = _latencies(row, dense) if dense and _integer(row) else None
        if times is None or not (row.gzip_bytes and dense.gzip_bytes and row.macs and dense.macs):
            continue
        smaller = row.gzip_bytes * sentences.SAME < dense.gzip_bytes
        if smaller and row.macs >= SAME_MACS * dense.macs and times[0] * sentences.SAME > times[1]:
            found.append(f"{row.name} ({sentences.milliseconds(times[0])} against {sentences.milliseconds(times[1])})")
    if not found:
        return ()
    return (
        f"Smaller to download, not faster: {sentences.joined(found)}. The runtime multiplies by zeros and by equal "
        "weights as by any others; only removed channels, or a runtime with sparse kernels, save time.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _latencies(row: Row, dense: Row) -> tuple[float, float] | None:
    """The medians of both at the first setting that both were timed with."""
    for host, threads in settings([row, dense]):
        ours, theirs = latency_on(row, host, threads), latency_on(dense, host, threads)
        if ours and theirs and ours["p50_ms"] and theirs["p50_ms"]:
            return ours["p50_ms"], theirs["p50_ms"]
    return None


def _table(rows: Sequence[Row], every: Sequence[Row]) -> Table:
    timed = settings(rows)
    where = f"median, {sentences.threads(timed[0][1])}" if timed else ""

    def cells(row: Row) -> tuple[str, ...]:
        dense = None if row.sparsity is None else dense_of(row, every)

        def against(value: float | None, other: float | None) -> str:
            return f"\n{_percent(value / other)} of {dense.scheme}" if dense and value and other else ""

        shares = sorted((row.sparsity or {}).values())
        ends = [_percent(share) for share in (*shares[:1], *shares[-1:])]
        extent = f"\n({ends[0]} to {ends[1]})" if len(set(ends)) > 1 else ""
        times = _latencies(row, dense or row)
        sure = sentences.interval(row.top1_ci95, row.images)
        return (
            row.name,
            sentences.percent(row.top1, row.images) + (f"\n{sure}" if sure else ""),
            f"{_percent(row.total_sparsity or 0)}{extent}" if shares else "–",
            sentences.count(row.macs) + against(row.macs, dense and dense.macs),
            sentences.size(row.size_bytes) + against(row.size_bytes, dense and dense.size_bytes),
            sentences.size(row.gzip_bytes) + against(row.gzip_bytes, dense and dense.gzip_bytes),
            sentences.milliseconds(times[0] if times else None) + (against(*times) if times and dense else ""),
        )

    return Table(
        "",
        (
            ("Model", ""),
            ("Top-1", "95 % interval"),
            ("Sparsity", "by layer"),
            ("MACs", ""),
            ("File", ""),
            ("After gzip", ""),
            ("Latency", where),
        ),
        tuple(cells(row) for row in rows),
    )


def _figures(made: Sequence[Row]) -> tuple[Figure, ...]:
    """Sparsity layer by layer, of rows that differ in it; none where nothing was pruned."""
    different: dict[tuple[tuple[str, float], ...], Row] = {}
    for row in made:
        if row.sparsity and max(row.sparsity.values()) > 0:
            different.setdefault(tuple((name, round(share, 2)) for name, share in row.sparsity.items()), row)
    if not different:
        return ()
    rows = list(different.values())
    last = rows[-1].sparsity or {}
    least = tuple((name, _percent(last[name])) for name in sorted(last, key=lambda name: last[name])[:MOST_NAMED])
    listed = "; ".join(f"{name} {share}" for name, share in least)
    return (
        Figure(
            "Zeros layer by layer",
            f"Share of zeros in the weights of each of {len(last)} layers. The least sparse of {rows[-1].name}:",
            f"Sparsity layer by layer; least: {listed}.",
            plots.sparsity(rows),
            least,
        ),
    )
