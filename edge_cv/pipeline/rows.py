"""The rows of a report, the limits that they break, and the notes for the reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.strict_json import typed
from edge_cv.evaluation import sensitivity
from edge_cv.evaluation.latency import BUSY_SHARE
from edge_cv.pipeline.model import CompressedModel, Convertible
from edge_cv.pipeline.steps import FLOAT32, EvaluationResult, ModelFile
from edge_cv.recipe import Limits, Output
from edge_cv.report import Row
from edge_cv.report.values import Epoch, StageTraining

if TYPE_CHECKING:
    from converters.devices.compiled import Estimate
    from edge_cv.data import Samples
    from edge_cv.deploy.package import Package
    from edge_cv.evaluation import Performance
    from edge_cv.evaluation.measurement import Measurement


@dataclass(frozen=True)
class Results:
    """What the steps of a run measured, each by the name of the row.

    Attributes:
        evaluation: accuracy, agreement and SQNR.
        performance: latency and memory.
        analysis: what the predictions show beyond the score.
        layers: the errors of each layer; integer schemes only.
        robustness: accuracy under corruptions.
        conformance: the outputs of several runtimes.
    """

    evaluation: EvaluationResult
    performance: Mapping[str, Performance]
    analysis: Mapping[str, Any]
    layers: Mapping[str, Any]
    robustness: Mapping[str, Any]
    conformance: Mapping[str, Any]


def run_row(file: ModelFile, model: Convertible, results: Results) -> Row:
    """The row of one file of a run."""
    stage = model.stage if isinstance(model, CompressedModel) else None
    performance = results.performance[file.name]
    return evaluated_row(
        file.output,
        file.path,
        results.evaluation.scores[file.name],
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        gzip_bytes=file.gzip_bytes,
        parameters=model.parameters,
        macs=file.macs,
        latency=performance.latency,
        peak_memory_bytes=performance.peak_memory_bytes,
        layers=results.layers.get(file.name, ()),
        robustness=results.robustness.get(file.name),
        conformance=results.conformance.get(file.name),
        sensitivity=sensitivity.of_file(file.path) if file.output.scheme == "mixed" else None,
        sparsity=stage and stage.sparsity,
        total_sparsity=stage and stage.total_sparsity,
        **results.analysis[file.name],
    )


def evaluated_row(output: Output, path: Path, score: Mapping[str, Any], **measured: Any) -> Row:
    """The row of a file that was evaluated.

    Args:
        output: the row's identity.
        path: the file.
        score: the fields of its `edge_cv.evaluation.Score`.
        measured: further fields of the row.
    """
    fields = {field: value for field, value in score.items() if field != "seconds_per_image"}
    return Row(output, file=path.name, **fields, **measured)


def with_device_latency(rows: Sequence[Row], measurements: Sequence[Measurement]) -> tuple[Row, ...]:
    """The rows with the device's latencies in the place of this machine's, for the files that it measured."""
    latency = {measured.sha256: measured.latency for measured in measurements}
    return tuple(dataclasses.replace(row, latency=latency.get(row.sha256, row.latency)) for row in rows)


def with_package(rows: Sequence[Row], package: Package | None) -> list[Row]:
    """The rows with the memory and the estimates of the target device's file, in its row."""
    if package is None:
        return list(rows)
    arena = None if package.memory is None else package.memory.arena_bytes
    return [
        dataclasses.replace(row, arena_bytes=arena, estimate=package.estimate) if row.scheme == package.scheme else row
        for row in rows
    ]


def fine_tuning(models: Iterable[Convertible]) -> tuple[StageTraining, ...]:
    """The epochs of the fine-tuning of each compressed model."""
    stages = {model.name: model.stage for model in models if isinstance(model, CompressedModel)}
    return tuple(
        StageTraining(name, typed(tuple[Epoch, ...], stage.history, f"the epochs of {name}"))
        for name, stage in stages.items()
        if stage.history
    )


def broken_limits(limits: Sequence[Limits], rows: Sequence[Row]) -> tuple[str, ...]:
    """One sentence for each limit that a row breaks, with the figure; also if the figure was not measured."""
    return tuple(sentence for part in limits for sentence in _broken(part, rows))


def _broken(limits: Limits, rows: Sequence[Row]) -> list[str]:
    (row,) = (row for row in rows if row.scheme == limits.scheme)
    reference = next((row for row in rows if row.output == FLOAT32), None)
    checks = (
        ("size in bytes", row.size_bytes, limits.max_size_bytes, "at most"),
        ("arena in bytes", row.arena_bytes, limits.max_arena_bytes, "at most"),
        (
            "size against float32",
            _ratio(row.size_bytes, None if reference is None else reference.size_bytes),
            limits.max_size_ratio,
            "at most",
        ),
        ("median latency in ms at one thread", _p50(row), limits.max_p50_ms, "at most"),
        (
            "latency against float32 at one thread",
            _ratio(_p50(row), _p50(reference)),
            limits.max_latency_ratio,
            "at most",
        ),
        ("top-1 agreement with float32", row.agreement, limits.min_agreement, "at least"),
        ("top-1 drop from float32", _top1_drop(row, reference), limits.max_top1_drop, "at most"),
        ("SQNR of the logits in dB", row.sqnr_db, limits.min_sqnr_db, "at least"),
        *_estimates(limits, row.estimate),
    )
    sentences = []
    for what, value, limit, side in checks:
        if limit is None:
            continue
        if value is None:
            sentences.append(f"{limits.scheme}: {what} must be {side} {limit:,.10g}, and was not measured")
        elif (value > limit) if side == "at most" else (value < limit):
            measured = f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
            sentences.append(f"{limits.scheme}: {what} must be {side} {limit:,.10g}. Measured: {measured}")
    return sentences


def _estimates(limits: Limits, estimate: Estimate | None) -> tuple[tuple[str, float | None, float | None, str], ...]:
    """The limits on a compiler's estimates, as in `_broken`."""
    cycles = None if estimate is None else estimate.cycles
    sram_bytes = None if estimate is None else estimate.sram_bytes
    left = None if estimate is None else len(estimate.cpu_operators)
    simulation = None if estimate is None else estimate.simulation
    agreement = None if simulation is None else simulation.top1_agreement
    by = "estimated" if estimate is None else f"estimated by {estimate.compiler}"
    return (
        (f"cycles of the NPU, {by},", cycles, limits.max_cycles, "at most"),
        (f"SRAM in bytes, {by},", sram_bytes, limits.max_sram_bytes, "at most"),
        (f"operators on the CPU, {by},", left, limits.max_cpu_operators, "at most"),
        ("top-1 agreement in the vendor's simulator", agreement, limits.min_simulated_agreement, "at least"),
    )


def _p50(row: Row | None) -> float | None:
    return next((entry.p50_ms for entry in row.latency if entry.threads == 1), None) if row else None


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _top1_drop(row: Row, reference: Row | None) -> float | None:
    if reference is None or reference.top1 is None or row.top1 is None:
        return None
    return reference.top1 - row.top1


def notes(
    test: Samples,
    calibration: Samples,
    evaluation: EvaluationResult,
    duplicates: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """What a reader of the report must know about its photos."""
    sentences = [
        f"Measured on {evaluation.images} photos of “{test.name}”; integer schemes calibrated on "
        f"{len(calibration)} others, of “{calibration.name}”."
    ]
    for where, names in duplicates.items():
        if names:
            sentences.append(
                f"{len(names)} calibration photos show the same as {where}, such as {names[0]}: "
                "remove them. Until then the figures of integer schemes are not reliable."
            )
    if evaluation.skipped:
        first = ", ".join(Path(file).name for file, _ in evaluation.skipped[:3])
        sentences.append(f"{len(evaluation.skipped)} photos could not be read and were left out: {first}.")
    return tuple(sentences)


def latency_notes(rows: Sequence[Row], machine: Mapping[str, Any]) -> tuple[str, ...]:
    """What a reader of the report must know about its latencies."""
    sentences = []
    share = min((entry.cpu_share for row in rows for entry in row.latency if entry.threads == 1), default=1.0)
    if share < BUSY_SHARE:
        sentences.append(
            "The machine was busy during the measurement of latency: at one thread the runtime had a processor only "
            f"{share:.0%} of the time. The latencies are too high; "
            "delete stages/measure.json and run again when the machine is idle."
        )
    if machine["int8_dot_product"] is False:
        sentences.append(
            "This processor has no instruction that multiplies and adds int8 numbers (VNNI on x86, dot product on "
            "ARM): int8 convolutions are hardly faster than float ones here, and may be much faster on the target."
        )
    return tuple(sentences)
