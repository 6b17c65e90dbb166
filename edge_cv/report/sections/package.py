"""What was made for the target device: the section of the page that names the file and what the device dislikes."""

from __future__ import annotations

from edge_cv.report import sentences
from edge_cv.report.sections.section import Section, Table
from edge_cv.report.values import Report


def delivery(report: Report) -> Section | None:
    """The device, its file, its memory on a microcontroller, and the rules that the file breaks."""
    made = report.delivery
    if made is None:
        return None
    file = next((row.file for row in report.rows if row.scheme == made.scheme), made.scheme)
    told = [f"{file} is meant for it ({made.processor}), run by {made.runtime}."]
    if made.memory is not None:
        told.append(
            f"It takes {made.memory.flash_bytes:,} bytes of flash beside the program, and an arena of "
            f"{made.memory.arena_bytes:,} bytes: {made.memory.activations_bytes:,} for activations and scratch, which "
            f"are at their largest in {made.memory.widest}, and at most {made.memory.records_bytes:,} for the "
            "runtime's records."
        )
    if made.files:
        told.append(f"Also made of it: {', '.join(made.files)}.")
    tables = ()
    if made.findings:
        rows = tuple(
            (found.what, found.remedy, ", ".join(found.layers[:3]) + (", …" if len(found.layers) > 3 else ""))
            for found in made.findings
        )
        tables = (Table("What runs slowly or elsewhere there", (("rule", ""), ("remedy", ""), ("in", "")), rows, 3),)
    elif made.target is not None:
        told.append(f"It keeps all rules of the target {made.target}.")
    timed = sorted({str(entry["host"]) for row in report.rows for entry in row.latency})
    notes = (f"Latency was measured on {sentences.joined(timed)}.",) if timed else ()
    return Section(f"For {made.name}", tuple(told), tables, notes=notes)
