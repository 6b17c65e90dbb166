"""The results of one model file on several runtimes: light values, which reports read without numpy."""

from __future__ import annotations

from dataclasses import dataclass

from converters.errors import InputError

MAX_EXECUTORS = 100


@dataclass(frozen=True)
class ExecutorResult:
    """What one executor computes, compared with the reference.

    Attributes:
        executor, version: its name, and the version of its package.
        max_steps: largest difference of an output, in steps: of the output's scale, or of 2^-16 of the largest float
            output.
        differing: share of the outputs, 0..1, that differ by a step or more.
        flipped: number of images whose top-1 class differs.
        flipped_ci95: 95 % Wilson interval of the share of such images.
        operator, layer: the first operator whose output differs, and the name of its output, on the image with the
            largest difference. None without a difference, and for ONNX.
        ms_per_image: mean time of one inference on one thread; None in an emulation.
        error: why the executor cannot run the file; all figures are None then.
    """

    executor: str
    version: str
    max_steps: float | None = None
    differing: float | None = None
    flipped: int | None = None
    flipped_ci95: tuple[float, float] | None = None
    operator: str | None = None
    layer: str | None = None
    ms_per_image: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Conformance:
    """One file on every executor at hand.

    Attributes:
        file: its name.
        reference: the name of the executor that the others are compared with.
        images: number of images.
        results: of each executor, the reference first.
        not_run: executors that did not run, and how to run or install them.
    """

    file: str
    reference: str
    images: int
    results: tuple[ExecutorResult, ...]
    not_run: dict[str, str]

    def __post_init__(self) -> None:
        if not 0 < len(self.results) <= MAX_EXECUTORS or self.images < 1:
            raise InputError(
                f"a comparison of runtimes must have images, and 1 to {MAX_EXECUTORS} results. "
                f"Received: {self.images} images, {len(self.results)} results"
            )
