"""What a vendor's compiler makes of a file: the values that every compiler of an NPU returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters import strict_json

CLOCKS_MHZ = (0.001, 1e6)  # the least and the most of an NPU


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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a compiler expects of a file on an NPU; nothing of it is measured.

    Attributes:
        target: the NPU and its size.
        compiler: its package and version.
        cycles: of the NPU for one image: the compiler's estimate.
        clock_mhz: the clock that makes milliseconds of them.
        memory_system: the system and the use of its memories that the estimate assumes.
        npu_operators: operators of the file that the NPU runs.
        cpu_operators: those that it does not.
        sram_bytes, dram_bytes, flash_bytes: memory in use, by kind.
    """

    target: str
    compiler: str
    cycles: int
    clock_mhz: float
    memory_system: str
    npu_operators: int
    cpu_operators: tuple[CpuOperator, ...]
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int

    def __post_init__(self) -> None:
        for name in ("cycles", "npu_operators", "sram_bytes", "dram_bytes", "flash_bytes"):
            strict_json.integer(getattr(self, name), f"an estimate's {name}", 0, 1 << 53)
        strict_json.number(self.clock_mhz, "an estimate's clock_mhz", *CLOCKS_MHZ)

    @property
    def milliseconds(self) -> float:
        """The estimated latency of one image on the NPU, without the operators on the CPU."""
        return self.cycles / self.clock_mhz / 1000

    @property
    def source(self) -> str:
        """The NPU, its clock and who estimates."""
        return f"{self.target} at {self.clock_mhz:g} MHz, estimated by {self.compiler}"


@dataclass(frozen=True, kw_only=True)
class Compiled(Estimate):
    """A file compiled for an NPU, and what its compiler expects of it there.

    Attributes:
        file: the compiled file.
        command: the command line that ran.
    """

    file: Path
    command: tuple[str, ...]

    def at(self, clock_mhz: float | None) -> Estimate:
        """The estimate alone, at another clock; None is the compiler's own."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(Estimate)}
        return Estimate(**fields | ({} if clock_mhz is None else {"clock_mhz": clock_mhz}))


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
