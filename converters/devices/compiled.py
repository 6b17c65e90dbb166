"""What a vendor's compiler makes of a file: the values that every compiler of an NPU returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters import strict_json

if TYPE_CHECKING:
    import numpy as np

CLOCKS_MHZ = (0.001, 1e6)  # the least and the most of an NPU
_BYTES = ("sram_bytes", "dram_bytes", "flash_bytes")


@dataclass(frozen=True)
class CpuOperator:
    """An operator that a compiler leaves to the CPU.

    Attributes:
        kind: as the compiler calls it, such as `MEAN`.
        layer: the name of its output.
        reason: of the compiler.
    """

    kind: str
    layer: str
    reason: str


@dataclass(frozen=True)
class Simulation:
    """A compiled file in the vendor's simulator, compared with the file that it was compiled from.

    Attributes:
        images: number of images.
        top1_agreement: share of images, 0..1, on which both have the same top-1.
        sqnr_db: signal-to-noise ratio of the outputs over all images.
    """

    images: int
    top1_agreement: float
    sqnr_db: float

    def __post_init__(self) -> None:
        strict_json.integer(self.images, "a simulation's images", 1, 1 << 53)
        strict_json.number(self.top1_agreement, "a simulation's top1_agreement", 0, 1)
        strict_json.number(self.sqnr_db, "a simulation's sqnr_db", -1000, 1000)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a compiler says of a file on an NPU. None is what it does not say.

    Attributes:
        npu_operators: operators that the NPU runs, counted after the compiler's own fusing where it says no others.
        cpu_operators: those that it does not.
        memory_system: the system and the use of its memories that the estimate assumes; empty if the compiler does
            not name them.
        cycles: of the NPU for one image: the compiler's estimate.
        clock_mhz: the clock that makes milliseconds of them.
        sram_bytes, dram_bytes, flash_bytes: memory in use, by kind.
    """

    npu_operators: int
    cpu_operators: tuple[CpuOperator, ...]
    memory_system: str = ""
    cycles: int | None = None
    clock_mhz: float | None = None
    sram_bytes: int | None = None
    dram_bytes: int | None = None
    flash_bytes: int | None = None

    def figures(self) -> dict[str, Any]:
        """The fields of this class, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Figures)}


@dataclass(frozen=True, kw_only=True)
class Estimate(Figures):
    """What a compiler expects of a file on an NPU; nothing of it is measured on one.

    Attributes:
        target: the NPU and its size.
        compiler: its package and version.
        simulation: the vendor's simulator on images; None if it was not asked.
    """

    target: str
    compiler: str
    simulation: Simulation | None = None

    def __post_init__(self) -> None:
        strict_json.integer(self.npu_operators, "an estimate's npu_operators", 0, 1 << 53)
        for name in ("cycles", *_BYTES):
            if (value := getattr(self, name)) is not None:
                strict_json.integer(value, f"an estimate's {name}", 0, 1 << 53)
        if self.clock_mhz is not None:
            strict_json.number(self.clock_mhz, "an estimate's clock_mhz", *CLOCKS_MHZ)

    @property
    def milliseconds(self) -> float | None:
        """The estimated latency of one image on the NPU, without the operators on the CPU."""
        return None if self.cycles is None or self.clock_mhz is None else self.cycles / self.clock_mhz / 1000

    @property
    def source(self) -> str:
        """The NPU, its clock and who estimates."""
        clock = "" if self.clock_mhz is None else f" at {self.clock_mhz:g} MHz"
        return f"{self.target}{clock}, estimated by {self.compiler}"

    @property
    def memory(self) -> str:
        """The memory in use by kind, such as `1,000 bytes of SRAM`; empty if the compiler says nothing."""
        kinds = [(name, getattr(self, name)) for name in _BYTES]
        said = [f"{value:,} bytes of {name.split('_')[0]}" for name, value in kinds if value is not None]
        return ", ".join(said).replace("sram", "SRAM").replace("dram", "DRAM")


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
        figures = self.figures() | ({} if clock_mhz is None else {"clock_mhz": clock_mhz})
        return Estimate(target=self.target, compiler=self.compiler, simulation=self.simulation, **figures)


@dataclass(frozen=True)
class Job:
    """What a compiler is to do.

    Attributes:
        file: the file to compile, in a temporary folder, beside which the compiler writes.
        target: the NPU.
        calibration: images `(n, height, width, channels)` as the file's input takes them, on which the compiler
            quantizes a float file; None leaves the file's own types.
        images: the same for the simulator; None does not simulate.
    """

    file: Path
    target: str
    calibration: np.ndarray | None = None
    images: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Result(Figures):
    """What one run of a compiler wrote and printed.

    Attributes:
        file: the compiled file, in the compiler's temporary folder.
        command: the command line that ran.
        outputs: of the simulator, `(images, outputs)` in float32; None if it did not run.
    """

    file: Path
    command: tuple[str, ...]
    outputs: np.ndarray | None = None


@dataclass(frozen=True)
class Compiler:
    """A vendor's compiler.

    Attributes:
        package: its distribution on PyPI.
        install: the command that installs it.
        targets: the NPUs that it compiles for.
        reads: the suffix of the files that it compiles.
        writes: the suffix of the compiled files.
        quantizes: whether it reads float files, makes integers of them if it gets images, and simulates; else it
            reads integer files.
        version: the installed version; None if it is missing.
        check: raises InputError for a file's path and content that it does not compile.
        run: compiles; raises InputError with the compiler's own reason.
    """

    package: str
    install: str
    targets: tuple[str, ...]
    reads: str
    writes: str
    quantizes: bool
    version: Callable[[], str | None]
    check: Callable[[Path, bytes], None]
    run: Callable[[Job], Result]
