"""Convert a model to one file or several, each checked against the model: `edge-cv convert`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, unknown
from edge_cv.pipeline.file_model import labels_of, preprocessing_of
from edge_cv.pipeline.inputs import CalibrationImages
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Output

if TYPE_CHECKING:
    import numpy as np

    from converters import Conversion
    from converters.images.preprocessing import Preprocessing
    from converters.schemes import Scheme
    from converters.sources import Source

NO_PHOTOS = "none"  # calibration on sample photos


@dataclass(frozen=True)
class ConversionRequest:
    """What to convert, and how.

    Attributes:
        model: a model file or SavedModel folder, or an architecture's name, which is built with its ImageNet weights.
        schemes: of the TFLite files.
        onnx: of the ONNX files: `float32`, `int8`.
        calibration: a folder of photos; needed by integer schemes. `none` takes sample photos that packages carry.
        labels: the class names in order; None reads them from the model's sidecar.
        io: input and output type of the integer TFLite files.
        effort: of the int8 files: `normal` or `high`, see `converters.Int8`.
        weights: of the int8 file: `per_channel`, `per_tensor` or `per_tensor_pow2`; None takes what the target needs.
        min_sqnr_db: the least SQNR of the logits for `mixed`, in dB.
        target: a device whose rules the TFLite files must keep (`converters.devices.targets`).
        preprocessing: fields of `Preprocessing` that replace those that the model declares.
        unsafe: run the Python code of the file's Lambda layers.
        architecture, alpha: the architecture whose weights a `.weights.h5` file holds, and its width multiplier.
        input_size: height and width for a model whose input has no fixed size: `224`, or `160x120` (height x width).
        output: the name of the output to convert, for a model with several.
        batch: of the ONNX files: `1`, or `free` for any number of images in one call.
        opset: the operator set of the ONNX files; None takes that of `converters.to_onnx`.
    """

    model: str
    schemes: Sequence[str]
    onnx: Sequence[str] = ()
    calibration: str | None = None
    labels: Sequence[str] | None = None
    io: str = "int8"
    effort: str = "normal"
    weights: str | None = None
    min_sqnr_db: float = 30.0
    target: str | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    unsafe: bool = False
    architecture: str | None = None
    alpha: float = 1.0
    input_size: str | None = None
    output: str | None = None
    batch: str = "1"
    opset: int | None = None


@dataclass(frozen=True)
class Converted:
    """A conversion, and the file that it was written to."""

    conversion: Conversion
    path: Path

    @property
    def best_sqnr_db(self) -> float | None:
        """The highest SQNR that `mixed` found, if that is under the request's `min_sqnr_db`; else None."""
        mixed = self.conversion.metadata.get("mixed")
        if mixed is None or mixed.get("budget_met", True):
            return None
        return max(point["sqnr_db"] for point in mixed["curve"])


def convert_model(request: ConversionRequest, out_dir: Path, *, progress: Progress = silent) -> list[Converted]:
    """Convert a model; each file is checked against the model before it is written.

    Args:
        request: what to convert, and how.
        out_dir: folder for the files; it is created if it is missing.
        progress: shows what is being done.

    Returns:
        The conversions: the TFLite files in the order of the schemes, then the ONNX files.

    Raises:
        InputError: the request cannot be met; nothing has been written if that is known before the conversion.
        CheckFailed: a conversion did not pass its check. The files that were written before it stay.
    """
    from converters import convert_all
    from converters.devices import targets
    from converters.memory import return_freed_tensors
    from converters.sources import open_source

    if request.effort == "high":
        return_freed_tensors()
    schemes = [_scheme(name, request) for name in request.schemes]
    if "int8" not in (*request.schemes, *request.onnx) and (request.effort != "normal" or request.weights is not None):
        given = f"effort {request.effort}" if request.weights is None else f"weights {request.weights}"
        raise InputError(f"effort and weights are options of the scheme int8. Received: {given} without it")
    _check_calibration(request, schemes)
    if request.target is not None:
        targets.target(request.target)
    onnx_options = _onnx_options(request)
    labels = request.labels or labels_of(Path(request.model))
    with progress(f"loading {request.model}"):
        source = open_source(
            _opened(request),
            unsafe=request.unsafe,
            input_size=request.input_size,
            output=request.output,
        )
    options: dict[str, Any] = {"labels": labels, "preprocessing": preprocessing_of(source, request.preprocessing)}
    if request.calibration is not None:
        options["calibration"] = _calibration_images(request, source, options["preprocessing"], progress)
    stem, converted = Path(request.model).stem or "model", []
    names = [*(scheme.name for scheme in schemes), *(f"ONNX {name}" for name in request.onnx)]
    with progress(f"converting to {', '.join(names)}") as update:
        onnx = [_scheme(name, request) if name == "int8" else name for name in request.onnx]
        for conversion in convert_all(source, schemes, onnx, target=request.target, **options, **onnx_options):
            path = out_dir / Output("", conversion.format, conversion.scheme).file_name(stem)
            converted.append(Converted(conversion, conversion.save(path)))
            update(len(converted), len(names))
    return converted


def _calibration_images(
    request: ConversionRequest, source: Source, preprocessing: Preprocessing | None, progress: Progress
) -> np.ndarray:
    """The calibration images in the range that the model takes."""
    from converters.calibration import gather
    from edge_cv.data import sample_calibration

    if preprocessing is None:
        raise InputError(
            "the model does not declare its preprocessing: give the rule by which photos are resized, and mean and "
            f"std unless the model takes pixels 0..255. Received: {request.model}"
        )
    if request.calibration == NO_PHOTOS:
        return CalibrationImages(sample_calibration(), preprocessing, progress).images
    with progress("decoding calibration photos"):
        return gather(request.calibration, source.input_shape, preprocessing=preprocessing, takes_pixels=False)


def _scheme(name: str, request: ConversionRequest) -> Scheme:
    from converters.schemes import Int8, Int16x8, Mixed, parse

    scheme = parse(name)
    if isinstance(scheme, Mixed):
        return dataclasses.replace(scheme, sqnr_db=request.min_sqnr_db, io=request.io)
    if isinstance(scheme, Int8):
        int8 = dataclasses.replace(scheme, io=request.io, effort=request.effort)
        return int8 if request.weights is None else dataclasses.replace(int8, weights=request.weights)
    return dataclasses.replace(scheme, io=request.io) if isinstance(scheme, Int16x8) else scheme


def _check_calibration(request: ConversionRequest, schemes: Sequence[Scheme]) -> None:
    if request.calibration is None and ("int8" in request.onnx or any(scheme.integer for scheme in schemes)):
        raise InputError(
            "an integer scheme needs calibration: a folder of photos, or none for sample photos of packages. "
            "Received: no calibration"
        )
    if request.calibration not in (None, NO_PHOTOS) and not Path(request.calibration).is_dir():
        raise InputError(f"calibration must be a folder that exists, or none. Received: {request.calibration}")


def _onnx_options(request: ConversionRequest) -> dict[str, Any]:
    """The options of the ONNX files, checked before the model is opened."""
    from converters.convert import check_onnx

    options: dict[str, Any] = {"batch": 1 if request.batch == "1" else request.batch}
    if request.opset is not None:
        if not request.onnx:
            raise InputError(
                "the opset is that of the ONNX files: request a float32 or an int8 ONNX file. "
                f"Received: opset {request.opset} without one"
            )
        options["opset"] = request.opset
    for name in request.onnx:
        check_onnx(name, **options)
    return options


def _opened(request: ConversionRequest) -> Any:
    """An architecture with its ImageNet weights or those of a file, or the path of a whole model as it is."""
    from converters.native_logs import import_tensorflow
    from converters.sources import parse_input_size
    from edge_cv import models
    from edge_cv.models.keras_files import count_classes

    path, size = Path(request.model), parse_input_size(request.input_size)
    by_name = request.architecture is None and request.model in models.names()
    if not path.exists() and not by_name:
        if not path.suffix and "/" not in request.model:
            raise unknown("model (neither a file nor a name)", request.model, models.names())
        raise InputError(f"the model must be a file that exists. Received: {path}")
    import_tensorflow()
    if request.architecture is not None:
        if size is not None and size[0] != size[1]:
            raise InputError(f"an architecture takes square images. Received: the input size {size[0]}x{size[1]}")
        image_size, classes = None if size is None else size[0], count_classes(path)
        return models.build(
            request.architecture, classes=classes, image_size=image_size, alpha=request.alpha, weights=path
        )
    return models.build(request.model, weights="imagenet") if by_name else path
