"""The recipe of a run, from a model to a report.

A recipe file is a page of Python that ends in `RECIPE = Recipe(...)`. A recipe and its parts are frozen dataclasses
that check their values. The values are numbers, text and tuples, so that `report.json` can hold the recipe.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from converters.errors import InputError, unknown
from edge_cv.recipe.compression import STAGES, ChannelPrune, Prune, Qat, WeightClustering, check_together
from edge_cv.recipe.device import TargetDevice
from edge_cv.recipe.evaluation import Analysis, Limits, Measure
from edge_cv.recipe.fields import Part, renamed_fields, to_dict, with_settings
from edge_cv.recipe.model import Data, Model
from edge_cv.recipe.output import Output
from edge_cv.recipe.training import Fit

ONNX_SCHEMES = ("float32", "int8")


@renamed_fields(explain="analysis")
@dataclass(frozen=True)
class Recipe(Part):
    """One run, from a model to a report.

    Attributes:
        name: of the run, in the report; the default folder is `runs/NAME`.
        model: the architecture and its weights, or a model file.
        data: the images for calibration and measurement.
        fit: how the model is trained. None does not train it.
        channel_prune, prune, cluster, qat: stages of compression, in this order. Each stage continues from the one
            before it, trains on the training images, and has its own rows in the report.
        schemes: the TFLite files to make. The first one is the reference if it is `float32`, which is recommended.
        io: input and output type of the integer TFLite files: `int8`, `uint8` or `float32`.
        effort: of int8: `normal`, or `high`, which takes minutes; see `converters.Int8`.
        weights: scales of int8's weights: `per_channel`, `per_tensor` or `per_tensor_pow2`; None takes what the
            device's rules need.
        onnx: the ONNX files to make: `float32`, `int8`. Their rows are named `onnx_float32` and `onnx_int8`.
        measure: how latency is measured.
        analysis: what the report analyzes beyond accuracy.
        limits: limits that the outputs must meet.
        notes: sentences to print in the report.
        device: the device that the files are for.
    """

    name: str
    model: Model
    data: Data = field(default_factory=Data)
    fit: Fit | None = None
    channel_prune: ChannelPrune | None = None
    prune: Prune | None = None
    cluster: WeightClustering | None = None
    qat: Qat | None = None
    schemes: tuple[str, ...] = ("float32", "float16", "dynamic_int8", "int8")
    io: str = "int8"
    effort: str = "normal"
    weights: str | None = None
    onnx: tuple[str, ...] = ()
    measure: Measure = field(default_factory=Measure)
    analysis: Analysis = field(default_factory=Analysis)
    limits: tuple[Limits, ...] = ()
    notes: tuple[str, ...] = ()
    device: TargetDevice | None = None

    def check(self) -> None:
        from converters.schemes import EFFORTS, IO_TYPES, WEIGHTS, names  # loads numpy

        if not self.name.strip() or "/" in self.name or self.name.startswith("."):
            raise InputError(f"Recipe.name must be usable as a folder's name. Received: {self.name!r}")
        if not self.schemes:
            raise InputError("Recipe.schemes must name at least one scheme. Received: ()")
        for schemes in (self.schemes, self.onnx):
            if len(set(schemes)) < len(schemes):
                raise InputError(f"a recipe must name each scheme once. Received: {', '.join(schemes)}")
        for field_name, chosen, known in (("schemes", self.schemes, names()), ("onnx", self.onnx, ONNX_SCHEMES)):
            for scheme in chosen:
                if scheme not in known:
                    raise unknown(f"scheme in Recipe.{field_name}", scheme, known)
        for field_name, chosen_one, options in (
            ("io", self.io, IO_TYPES),
            ("effort", self.effort, EFFORTS),
            ("weights", self.weights or WEIGHTS[0], WEIGHTS),
        ):
            if chosen_one not in options:
                raise unknown(f"Recipe.{field_name}", chosen_one, options)
        check_together(prune=self.prune, cluster=self.cluster, qat=self.qat)
        outputs = {output.name: output for output in self.outputs()}
        for part in (*self.limits, *([self.device] if self.device else [])):
            if part.scheme not in outputs:
                raise unknown(f"scheme in {type(part).__name__}", part.scheme, list(outputs))
        if self.device is not None:
            _check_device(self.device, outputs[self.device.scheme])

    def compression(self) -> dict[str, ChannelPrune | Prune | WeightClustering | Qat]:
        """The stages of compression in their order, by the names of their fields."""
        stages = {name: getattr(self, name) for name in STAGES}
        return {name: part for name, part in stages.items() if part is not None}

    def outputs(self) -> tuple[Output, ...]:
        """The files to make, one for each row of the report: of the model itself, then of each stage of compression."""
        dense = [Output("", "tflite", scheme) for scheme in self.schemes]
        dense += [Output("", "onnx", scheme) for scheme in self.onnx]
        return (*dense, *(output for name in self.compression() for output in self._stage_outputs(name)))

    def _stage_outputs(self, name: str) -> list[Output]:
        """int8, and float32 unless the stage trains for int8."""
        stage, is_float = STAGES[name], name != "qat"
        outputs = [Output(stage, "tflite", "float32")] if is_float and "float32" in self.schemes else []
        outputs += [Output(stage, "tflite", "int8")] if "int8" in self.schemes else []
        return outputs + ([Output(stage, "onnx", "float32")] if is_float and "float32" in self.onnx else [])

    def extras(self) -> list[str]:
        """The extras of this package that training, compression and conversion need; a report needs its own."""
        stages = self.compression().values()
        needed = {
            "onnx": bool(self.onnx),
            "train": self.fit is not None or bool(stages),
            "probe": self.fit is not None and self.fit.probe is not None,
            "compress": any(getattr(stage, "engine", None) == "tfmot" for stage in stages),
        }
        return [extra for extra, is_needed in needed.items() if is_needed]

    def quick(self) -> Recipe:
        """The same steps on few images with few timed runs: a test of the chain, not of the model."""
        data = dataclasses.replace(self.data, images=min(8, self.data.images or 8), calibration_images=8)
        measure = dataclasses.replace(self.measure, runs=5, warmup=1, threads=self.measure.threads[:1])
        few = {name: min(2, getattr(self.analysis, name)) for name in ("corruptions", "conform")}
        analysis = dataclasses.replace(self.analysis, **few)
        fit = None if self.fit is None else self.fit.quick()
        stages: dict[str, Any] = {name: part.quick() for name, part in self.compression().items()}
        device = self.device
        if device is not None and device.package == "android":  # it writes outside the run's folder
            device = dataclasses.replace(device, package=None)
        return dataclasses.replace(
            self, data=data, fit=fit, measure=measure, analysis=analysis, limits=(), device=device, **stages
        )

    def with_data(self, folder: str) -> Recipe:
        """The recipe with the images of one folder for training, calibration and measurement."""
        data = dataclasses.replace(self.data, measure=str(folder), calibrate=None)
        fit = self.fit and dataclasses.replace(self.fit, data=None, validation=None)
        return dataclasses.replace(self, data=data, fit=fit)

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """The recipe with fields replaced, as `edge_cv.recipe.with_settings`.

        Args:
            settings: `FIELD=VALUE` each, such as `measure.runs=20`, `schemes=float32,int8` or
                `model.weights=None`.

        Raises:
            InputError: there is no such field, or the field does not accept the value.
        """
        return with_settings(self, settings)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as `report.json` holds it, with the deprecated field names in addition."""
        return to_dict(self)


def _check_device(device: TargetDevice, output: Output) -> None:
    """Raise InputError unless the device's output has the form that its package and its compiler take."""
    from converters.schemes import parse

    if device.package is not None and output.format == "onnx":
        raise InputError(
            f"TargetDevice.package={device.package!r} must be for a TFLite output. Received: scheme={device.scheme!r}"
        )
    if device.compiler is None:
        return
    from converters.devices.compilers import TARGETS

    compiler = TARGETS[device.compiler]
    if compiler.reads != f".{output.format}" or parse(output.scheme).integer == compiler.quantizes:
        wanted = "the output onnx_float32" if compiler.quantizes else "an integer TFLite output, such as int8"
        raise InputError(
            f"TargetDevice.compiler={device.compiler!r} must be for {wanted}. Received: scheme={device.scheme!r}"
        )
