"""Conformance: what several runtimes compute from one and the same file."""

from __future__ import annotations

from edge_cv.evaluation.conformance import Conformance, ExecutorResult
from edge_cv.report import formats
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report, Row

NOTE = (
    "Differences are in steps: of the output's scale for integers, of 2^-16 of the largest output for floats. A few "
    "steps are normal, because every set of kernels rounds in its own way. The first operator that differs is that of "
    "the photo with the largest difference. Times are for one thread, with one photo after the other."
)


def section(report: Report) -> Section | None:
    """A table of the runtimes for each file that was compared."""
    compared = [(row, row.conformance) for row in report.rows if row.conformance is not None]
    if not compared:
        return None
    finding, *others = [summary(row.name, conformance) for row, conformance in compared]
    return Section(
        "Comparison of runtimes",
        finding,
        (*others, *(sentence for _, conformance in compared for sentence in _refusals(conformance))),
        tuple(_table(row, conformance, len(compared) > 1) for row, conformance in compared),
        notes=(NOTE, *(_not_run(conformance) for _, conformance in compared[:1] if conformance.not_run)),
    )


def summary(name: str, conformance: Conformance) -> str:
    """Whether the runtimes predict the same classes, in one sentence."""
    on = formats.photos(conformance.images)
    others = [result for result in conformance.results[1:] if result.error is None]
    refused = len(conformance.results) - 1 - len(others)
    failed = f"; {_runtimes(refused)} cannot run the file" if refused else ""
    if not others:
        return f"{name}: no other runtime was compared with {conformance.reference} on {on}{failed}."
    worst = max(others, key=lambda result: result.flipped or 0)
    if not worst.flipped:
        every = "The other runtime predicts" if len(others) == 1 else f"All {len(others)} other runtimes predict"
        return f"{every} the same classes as {conformance.reference} with {name}, on {on}{failed}."
    return (
        f"With {name}, {conformance.reference} and {worst.executor} predict different classes for {worst.flipped:,} of "
        f"{on}{failed}."
    )


def _runtimes(number: int) -> str:
    return "1 runtime" if number == 1 else f"{number} runtimes"


def _refusals(conformance: Conformance) -> list[str]:
    return [
        f"{result.executor} cannot run {conformance.file}: {result.error}."
        for result in conformance.results
        if result.error is not None
    ]


def _table(row: Row, conformance: Conformance, titled: bool) -> Table:
    return Table(
        row.name if titled else "",
        (
            ("Runtime", ""),
            ("Largest difference", "steps"),
            ("Outputs that differ", "by a step or more"),
            ("Other top-1", f"of {formats.photos(conformance.images)}"),
            ("Time", "per photo"),
            ("First operator that differs", ""),
        ),
        tuple(_cells(result, conformance.images) for result in conformance.results),
    )


def _cells(result: ExecutorResult, images: int) -> tuple[str, ...]:
    def known(value: float | None, text: str) -> str:
        return formats.MISSING if value is None else text

    steps, differing, flipped = result.max_steps, result.differing, result.flipped
    return (
        f"{result.executor} {result.version}".strip(),
        known(steps, f"{steps or 0:.3g}"),
        known(differing, f"{100 * (differing or 0):.1f} %"),
        known(flipped, f"{flipped or 0:,}\n{formats.interval(result.flipped_ci95, images)}".strip()),
        formats.milliseconds(result.ms_per_image),
        "\n".join(filter(None, (result.operator, result.layer))) or formats.MISSING,
    )


def _not_run(conformance: Conformance) -> str:
    listed = "; ".join(f"{name} ({how})" for name, how in conformance.not_run.items())
    return f"Not compared here, with what it takes: {listed}."
