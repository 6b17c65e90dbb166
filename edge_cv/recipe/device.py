"""The part of a recipe that describes the device that its files are for."""

from __future__ import annotations

from dataclasses import dataclass

from converters import strict_json
from converters.devices.compiled import CLOCKS_MHZ
from converters.errors import InputError, unknown
from edge_cv.recipe.fields import Part, renamed_fields

PACKAGES = ("c_array", "web", "android")


@renamed_fields(delivery="package")
@dataclass(frozen=True)
class TargetDevice(Part):
    """The device that a recipe's files are for.

    Attributes:
        name: its usual name, such as `Raspberry Pi 5`.
        processor: the processor that runs the model.
        runtime: the runtime, and its kernels or delegate.
        scheme: the name of the output for it, such as `int8` or `onnx_int8`.
        target: the rules of `edge-cv check --target` that this output must meet. None means no rules.
        package: what to make of the output in addition: `c_array`, the sources of a program for a
            microcontroller; `web`, a page for the browser; `android`, a copy among the models of the Android app in
            this checkout. None means nothing.
        compiler: the NPU that the output is compiled for, a target of `edge-cv compile`, such as `ethos-u55-256` or
            `rk3588`; its row gets the compiler's estimates, and the agreement of the vendor's simulator where it has
            one. None compiles nothing.
        quantize: let a compiler that reads float files quantize them to int8 on the calibration images.
        clock_mhz: the NPU's clock; None is the one that the compiler assumes.
    """

    name: str
    processor: str
    runtime: str
    scheme: str = "int8"
    target: str | None = None
    package: str | None = None
    compiler: str | None = None
    quantize: bool = False
    clock_mhz: float | None = None

    def check(self) -> None:
        if self.package is not None and self.package not in PACKAGES:
            raise unknown("TargetDevice.package", self.package, PACKAGES)
        if self.compiler is not None:
            from converters.devices.compilers import TARGETS, check_target  # loads numpy

            check_target(self.compiler)
            quantizes = TARGETS[self.compiler].quantizes
            if quantizes and self.package is not None:
                raise InputError(f"TargetDevice.package must be None for {self.compiler}. Received: {self.package}")
            if self.quantize and not quantizes:
                raise InputError(
                    "TargetDevice.quantize is for a compiler that reads float files. Received: it with "
                    f"compiler={self.compiler!r}"
                )
            if self.package not in (None, "c_array"):
                raise InputError(
                    "TargetDevice.package must be c_array, or None, for a file that is compiled for an NPU. "
                    f"Received: {self.package}"
                )
        if self.clock_mhz is not None:
            if self.compiler is None:
                raise InputError(f"TargetDevice.clock_mhz needs a compiler. Received: {self.clock_mhz} without one")
            strict_json.number(self.clock_mhz, "TargetDevice.clock_mhz", *CLOCKS_MHZ)
