"""The vendors' own compilers: what becomes of a TFLite file on an NPU, before one owns the device.

Each compiler is a `Compiler` value in a file of its own; `compile_file` runs it in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.devices import vela
from converters.devices.compiled import Compiled, Compiler, CpuOperator
from converters.errors import InputError, unknown
from converters.files import temporary_folder, write_atomic
from converters.packages import missing_extra, package_versions
from converters.tflite.graph import Graph, Operator, count_operators, read_graph

COMPILERS: tuple[Compiler, ...] = (vela.COMPILER,)
TARGETS: Mapping[str, Compiler] = {target: compiler for compiler in COMPILERS for target in compiler.targets}


def compile_file(path: str | Path, target: str, out: str | Path) -> Compiled:
    """Compile an integer TFLite file for an NPU, and read what the compiler says of it.

    Args:
        path: the .tflite file.
        target: a key of `TARGETS`, such as `ethos-u55-256`.
        out: folder for the compiled file, `<name>_<target>.tflite`.

    Raises:
        InputError: the target is unknown, the file is no integer TFLite file, the compiler is not installed, fails or
            takes more than ten minutes. Nothing is written then.
    """
    path = Path(path)
    check_target(target)
    if path.suffix != ".tflite" or not path.is_file():
        raise InputError(f"the file to compile must be a .tflite file that exists. Received: {path}")
    content = path.read_bytes()
    graph = read_graph(path, content)
    _check_integer(graph, path)
    compiler, version = installed_compiler(target)
    with temporary_folder() as folder:
        source = Path(folder) / "model.tflite"  # the compiler need not take every name of a file
        source.write_bytes(content)
        result = compiler.run(source, target)
        compiled = result.file.read_bytes()
    left = on_cpu(compiled, result.reasons)
    return Compiled(
        target=target,
        file=write_atomic(Path(out) / f"{path.stem}_{target}.tflite", compiled),
        compiler=f"{compiler.package} {version}",
        command=result.command,
        cycles=result.cycles,
        clock_mhz=result.clock_mhz,
        memory_system=result.memory_system,
        npu_operators=sum(1 for _ in graph.operators()) - len(left),
        cpu_operators=left,
        sram_bytes=result.sram_bytes,
        dram_bytes=result.dram_bytes,
        flash_bytes=result.flash_bytes,
    )


def check_target(target: str) -> None:
    """Raise InputError unless a compiler compiles for the target."""
    if target not in TARGETS:
        raise unknown("target of a compiler", target, TARGETS)


def installed_compiler(target: str) -> tuple[Compiler, str]:
    """The compiler of a known target and its version; InputError if it is not installed."""
    compiler = TARGETS[target]
    versions = package_versions([compiler.package])
    if not versions:
        raise missing_extra(f"compiling for {target}", [compiler.package], [compiler.extra])
    return compiler, versions[compiler.package]


def _check_integer(graph: Graph, path: Path) -> None:
    """Raise InputError for a file that is not an integer one: an NPU computes in integers."""
    if count_operators(graph)[0] == 0:
        raise InputError(
            f"the file to compile must be an integer one: edge-cv convert --scheme int8. Received: {path}, all of "
            "whose operators are float"
        )


def on_cpu(compiled: bytes, reasons: Mapping[str, str]) -> tuple[CpuOperator, ...]:
    """The operators that a compiled file leaves to the CPU.

    Args:
        compiled: the compiled TFLite file, in which the NPU's part is custom operators.
        reasons: the compiler's reason, by the name of an operator's output.
    """
    graph = Graph(compiled)
    left = [(operator, graph.name(operator.outputs[0])) for operator in graph.operators() if operator.name != "CUSTOM"]
    return tuple(
        CpuOperator(operator.name, name, reasons.get(name, _reason(graph, operator))) for operator, name in left
    )


def _reason(graph: Graph, operator: Operator) -> str:
    """Why the compiler leaves an operator to the CPU, where it does not say so itself."""
    floats = [str(graph.dtype(t)) for t in operator.outputs if graph.dtype(t) == np.float32]
    return "its output is float32" if floats else "the compiler gives no reason"
