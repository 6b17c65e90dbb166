"""The parts of a recipe that say what is measured, analyzed and required."""

from __future__ import annotations

from dataclasses import dataclass

from converters.errors import InputError
from edge_cv.recipe.fields import Part, renamed_fields


@dataclass(frozen=True)
class Measure(Part):
    """How latency is measured on this machine.

    Attributes:
        threads: thread counts of the runtime; each is measured.
        runs: timed inferences for each thread count, one image each.
        warmup: untimed inferences before them.
    """

    threads: tuple[int, ...] = (1, 2)
    runs: int = 100
    warmup: int = 10

    def check(self) -> None:
        self.check_at_least(1, "threads", "runs")
        self.check_at_most(1024, "threads")
        self.check_at_most(1_000_000, "runs", "warmup")
        self.check_at_least(0, "warmup")
        if not self.threads:
            raise InputError("Measure.threads must have at least one thread count. Received: ()")


@renamed_fields(attention="grad_cam")
@dataclass(frozen=True)
class Analysis(Part):
    """What the report analyzes beyond accuracy.

    Attributes:
        by: columns of `metadata`; the report gives the accuracy for each of their values.
        metadata: a CSV file whose column `file` names the images. None means the labels.csv of the measured folder.
        corruptions: number of images to measure under the 15 common corruptions at 5 severities; 0 skips this.
        grad_cam: number of images to show with a Grad-CAM heat map, the most confident mistakes first; 0 skips this.
        conform: number of images on which to compare the runtimes of this machine, as `edge-cv conform` does, with the
            file for the device, else the int8 file, else the first one; 0 skips this.
    """

    by: tuple[str, ...] = ()
    metadata: str | None = None
    corruptions: int = 0
    grad_cam: int = 9
    conform: int = 0

    def check(self) -> None:
        self.check_at_least(0, "corruptions", "grad_cam", "conform")


@dataclass(frozen=True)
class Limits(Part):
    """Limits for one output. A run that exceeds one names it and ends with exit code 1.

    Attributes:
        scheme: the name of the checked output, such as `int8` or `pruned_onnx_float32`.
        max_size_bytes: file size.
        max_size_ratio: file size, divided by the float32 file's.
        max_p50_ms: median latency with one thread, on the machine that measured.
        max_latency_ratio: median latency, divided by the float32 file's on the same machine.
        min_agreement: share of images, 0..1, with the float32 file's top-1 class.
        max_top1_drop: top-1 of float32 minus top-1 of this file, as a share, 0..1.
        min_sqnr_db: SQNR of the logits against float32.
        max_arena_bytes: memory that a microcontroller needs beside the file (`converters.devices.micro`).
        max_cycles, max_sram_bytes: of the NPU for one image, as the compiler of `TargetDevice.compiler` estimates them.
        max_cpu_operators: operators that this compiler leaves to the CPU.
        min_simulated_agreement: share of images, 0..1, on which the compiled file has the file's own top-1 class in the
            vendor's simulator.
    """

    scheme: str = "int8"
    max_size_bytes: int | None = None
    max_size_ratio: float | None = None
    max_p50_ms: float | None = None
    max_latency_ratio: float | None = None
    min_agreement: float | None = None
    max_top1_drop: float | None = None
    min_sqnr_db: float | None = None
    max_arena_bytes: int | None = None
    max_cycles: int | None = None
    max_sram_bytes: int | None = None
    max_cpu_operators: int | None = None
    min_simulated_agreement: float | None = None

    def check(self) -> None:
        self.check_at_least(
            0, "max_size_bytes", "max_arena_bytes", "max_size_ratio", "max_p50_ms", "max_latency_ratio", "min_agreement"
        )
        self.check_at_least(0, "max_cycles", "max_sram_bytes", "max_cpu_operators", "min_simulated_agreement")
        for name in ("min_agreement", "min_simulated_agreement"):
            if (share := getattr(self, name)) is not None and share > 1:
                raise InputError(f"Limits.{name} must be a share in 0..1. Received: {share}")
