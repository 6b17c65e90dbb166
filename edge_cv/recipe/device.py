"""The part of a recipe that describes the device that its files are for."""

from __future__ import annotations

from dataclasses import dataclass

from converters.errors import unknown
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
    """

    name: str
    processor: str
    runtime: str
    scheme: str = "int8"
    target: str | None = None
    package: str | None = None

    def check(self) -> None:
        if self.package is not None and self.package not in PACKAGES:
            raise unknown("TargetDevice.package", self.package, PACKAGES)
