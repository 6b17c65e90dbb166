"""Arm's compiler Vela for the NPUs Ethos-U55, U65 and U85: https://pypi.org/project/ethos-u-vela."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.devices.compiled import Compiler, CpuOperator, Job, Result
from converters.errors import InputError
from converters.packages import package_versions
from converters.tflite.graph import Graph, Operator, count_operators, read_graph

PACKAGE = "ethos-u-vela"

TIMEOUT_SECONDS = 600
_KIB = 1024
_REASON = re.compile(r"^Warning \(supported operators\) operator: \S+, ofm: '(.*)'\nReason: (.+)$", re.MULTILINE)


def check(path: Path, content: bytes) -> None:
    """Raise InputError for a file that is not an integer TFLite file: an Ethos-U computes in integers."""
    if count_operators(read_graph(path, content))[0] == 0:
        raise InputError(
            f"the file to compile must be an integer one: edge-cv convert --scheme int8. Received: {path}, all of "
            "whose operators are float"
        )


def run(job: Job) -> Result:
    """Compile a TFLite file for an Ethos-U; the results are written beside it.

    Raises:
        InputError: Vela fails, with its own reason, takes longer than ten minutes, or writes only a part.
    """
    path, target = job.file, job.target
    out = path.parent / "vela"
    options = ("--accelerator-config", target, "--show-cpu-operations", "--output-dir", str(out))
    command = (sys.executable, "-m", "ethosu.vela", str(path), *options)
    try:
        done = subprocess.run(
            command, cwd=path.parent, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"Vela must compile for {target} within {TIMEOUT_SECONDS} s. It was stopped") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"Vela cannot compile the file for {target}: {lines[-1][:300]}")
    compiled, summary = out / f"{path.stem}_vela.tflite", _summary(out)
    if not compiled.is_file() or summary is None:
        raise InputError(f"Vela must write a compiled file and a summary for {target}. It wrote only a part of them")
    left = _on_cpu(compiled.read_bytes(), dict(_REASON.findall(done.stdout)))
    return Result(
        file=compiled,
        npu_operators=sum(1 for _ in Graph(path.read_bytes()).operators()) - len(left),
        cpu_operators=left,
        command=("vela", path.name, *options[:-1], "DIR"),
        cycles=int(float(summary["cycles_total"])),
        clock_mhz=float(summary["core_clock"]) / 1e6,
        memory_system=f"{summary['system_config']}, {summary['memory_mode']}",
        sram_bytes=_bytes(summary, "sram_memory_used"),
        dram_bytes=_bytes(summary, "dram_memory_used"),
        flash_bytes=_bytes(summary, "on_chip_flash_memory_used") + _bytes(summary, "off_chip_flash_memory_used"),
    )


def _on_cpu(compiled: bytes, reasons: Mapping[str, str]) -> tuple[CpuOperator, ...]:
    """The operators that a compiled file leaves to the CPU.

    Args:
        compiled: the compiled TFLite file, in which the NPU's part is custom operators.
        reasons: Vela's reason, by the name of an operator's output.
    """
    graph = Graph(compiled)
    left = [(operator, graph.name(operator.outputs[0])) for operator in graph.operators() if operator.name != "CUSTOM"]
    return tuple(
        CpuOperator(operator.name, name, reasons.get(name, _reason(graph, operator))) for operator, name in left
    )


def _reason(graph: Graph, operator: Operator) -> str:
    """Why Vela leaves an operator to the CPU, where it does not say so itself."""
    floats = [str(graph.dtype(t)) for t in operator.outputs if graph.dtype(t) == np.float32]
    return "its output is float32" if floats else "the compiler gives no reason"


def _summary(folder: Path) -> dict[str, str] | None:
    """The one row of Vela's table, or None if there is none."""
    for file in sorted(folder.glob("*_summary_*.csv")):
        with file.open(newline="", encoding="utf-8") as table:
            return next(csv.DictReader(table), None)
    return None


def _bytes(summary: dict[str, str], field: str) -> int:
    return round(float(summary[field]) * _KIB)


COMPILER = Compiler(
    package=PACKAGE,
    install="pip install 'edge-cv[ethos-u]'",
    targets=(
        *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
        *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
    ),
    reads=".tflite",
    writes=".tflite",
    quantizes=False,
    version=lambda: package_versions([PACKAGE]).get(PACKAGE),
    check=check,
    run=run,
)
