"""The package for the target device: its file, the memory it needs, and the rules of the device that it breaks."""

from __future__ import annotations

from converters.devices.compiled import Estimate
from edge_cv.deploy.package import Package
from edge_cv.report import formats
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report

MAX_LAYERS = 3  # named for each rule


def section(report: Report) -> Section | None:
    """The device's file, its memory on a microcontroller, and the rules that the file breaks."""
    package = report.delivery
    if package is None:
        return None
    sentences = []
    if memory := package.memory:
        sentences.append(
            f"The model needs {memory.flash_bytes:,} bytes of flash in addition to the program, and a tensor arena of "
            f"{memory.arena_bytes:,} bytes: {memory.activations_bytes:,} bytes for activations and scratch buffers, "
            f"with the peak at {memory.widest}, and at most {memory.records_bytes:,} bytes for the runtime's records."
        )
    if estimate := package.estimate:
        sentences += _estimated(estimate)
        sentences += [f"{one.kind} {one.layer} stays on the CPU: {one.reason}." for one in estimate.cpu_operators]
    if package.files:
        sentences.append(f"The package also contains {formats.joined(package.files)}.")
    tables: tuple[Table, ...] = ()
    if package.findings:
        rows = tuple(
            (found.what, found.remedy, ", ".join(found.layers[:MAX_LAYERS]) + _more(found.layers))
            for found in package.findings
        )
        columns = (("Rule", ""), ("Remedy", ""), ("Layers", ""))
        tables = (Table("Layers that run slowly or not on the accelerator", columns, rows, texts=3),)
    hosts = sorted({entry.host for row in report.rows for entry in row.latency})
    notes = (f"Latency was measured on {formats.joined(hosts)}.",) if hosts else ()
    return Section(f"Package for {package.name}", _finding(report, package), tuple(sentences), tables, notes=notes)


def _estimated(estimate: Estimate) -> list[str]:
    """What the compiler expects, and what its simulator computed."""
    time = "" if estimate.milliseconds is None else f"{formats.milliseconds(estimate.milliseconds)} or "
    facts = [] if estimate.cycles is None else [f"{time}{estimate.cycles:,} cycles for one image"]
    facts.append(f"{estimate.npu_operators} operators on the NPU and {len(estimate.cpu_operators)} on the CPU")
    facts += filter(None, [estimate.memory, estimate.memory_system and f"with the memories {estimate.memory_system}"])
    sentences = [f"On {estimate.source}: {', '.join(facts)}. The compiler estimates this; it is not a measurement."]
    if simulation := estimate.simulation:
        agreeing = round(simulation.top1_agreement * simulation.images)
        sentences.append(
            f"In the vendor's simulator the compiled file has the same top-1 as the file on {agreeing} of "
            f"{simulation.images} photos, with an SQNR of {formats.decibels(simulation.sqnr_db)}."
        )
    return sentences


def _finding(report: Report, package: Package) -> str:
    """The device's file, and whether it meets the rules of its target."""
    file = next((row.file for row in report.rows if row.scheme == package.scheme), package.scheme)
    text = f"The file for {package.name} ({package.processor}, {package.runtime}) is {file}"
    if package.findings:
        rules = "1 rule" if len(package.findings) == 1 else f"{len(package.findings)} rules"
        return f"{text}; it breaks {rules} of the target {package.target or package.name}."
    return f"{text}; it meets all rules of the target {package.target}." if package.target is not None else f"{text}."


def _more(layers: tuple[str, ...]) -> str:
    return ", …" if len(layers) > MAX_LAYERS else ""
