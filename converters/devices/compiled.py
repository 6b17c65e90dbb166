"""What a vendor's compiler makes of a file: the values that every compiler of an NPU returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuOperator:
    """An operator that a compiler leaves to the CPU.

    Attributes:
        kind: in TFLite's schema, such as `MEAN`.
        layer: the name of its output.
        reason: of the compiler.
    """

    kind: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Compiled:
    """A file compiled for an NPU, and what its compiler expects of it there.

    Attributes:
        target: the NPU and its size.
        file: the compiled file.
        compiler: its package and version.
        command: the command line that ran.
        cycles: of the NPU for one image: the compiler's estimate.
        clock_mhz: the clock that the estimate assumes.
        memory_system: the system and the use of its memories that the estimate assumes.
        npu_operators: operators of the file that the NPU runs.
        cpu_operators: those that it does not.
        sram_bytes, dram_bytes, flash_bytes: memory in use, by kind.
    """

    target: str
    file: Path
    compiler: str
    command: tuple[str, ...]
    cycles: int
    clock_mhz: float
    memory_system: str
    npu_operators: int
    cpu_operators: tuple[CpuOperator, ...]
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int

    @property
    def milliseconds(self) -> float:
        """The estimated latency of one image on the NPU, without the operators on the CPU."""
        return self.cycles / self.clock_mhz / 1000


@dataclass(frozen=True)
class Result:
    """What one run of a compiler wrote and printed: see `Compiled`.

    Attributes:
        file: the compiled file, in the compiler's temporary folder.
        reasons: why an operator is left to the CPU, by the name of its output.
    """

    file: Path
    command: tuple[str, ...]
    cycles: int
    clock_mhz: float
    memory_system: str
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Compiler:
    """A vendor's compiler.

    Attributes:
        package: its distribution on PyPI.
        extra: the extra of this project that installs it.
        targets: the NPUs that it compiles for.
        run: compiles a file beside itself for a target; raises InputError with the compiler's own reason.
    """

    package: str
    extra: str
    targets: tuple[str, ...]
    run: Callable[[Path, str], Result]
