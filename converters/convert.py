"""`to_tflite`, `to_onnx` and `verify`: convert a model, then measure the result before it is returned."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters.calibration import gather, noise
from converters.conversion import Conversion
from converters.decisions import OutputMeaning, check_labels
from converters.devices import targets
from converters.errors import CheckFailed, InputError, unknown
from converters.float_model import FloatModel, convert_float, output_meaning
from converters.images.preprocessing import Preprocessing
from converters.packages import package_versions, require
from converters.parity import Parity, compare
from converters.quantization.integer import check_integer
from converters.record import InputRecord, OutputRecord, Record, TensorRecord
from converters.schemes import Converted, Int8, Scheme, parse
from converters.sources import Source, open_source
from converters.tflite import metadata
from converters.tflite.graph import Graph, count_macs, count_operators
from converters.tflite.layers import layer_errors, worst
from converters.tflite.runtime import predict, predict_onnx

SOURCE_IMAGES = 16  # the float conversion is compared with the source model on as many; others with the conversion
FLOAT_SQNR_DB = 60.0  # of float against float, which differ in the order of additions only
BATCH_PIXELS = 450_000  # of the source model's batches: larger ones take longer in all, for new memory
ONNX_SQNR_DB = {"float32": FLOAT_SQNR_DB, "int8": 3.0}  # an ONNX file fails its check below
ONNX_TARGETS = ("onnxruntime", "tensorrt")
OPSET = 17
FREE = "free"  # batch size of an ONNX file
VERSIONED = ("tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer", "tf2onnx", "onnx", "onnxruntime", "numpy")

logger = logging.getLogger(__name__)

InputSize = int | str | tuple[int, ...] | None


def to_tflite(
    model: Any,
    scheme: str | Scheme = "int8",
    *,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    target: str | None = None,
    input_size: InputSize = None,
    output: str | None = None,
) -> Conversion:
    """Convert an image classifier to TFLite and check the result.

    Several schemes of one model share one float conversion.

    Args:
        model: a Keras 3 or tf_keras model with one image input, `(batch, height, width, 3)` for RGB or `(batch, height,
            width, 1)` or `(batch, height, width)` for grey, and one output `(batch, classes)`; or the path of a
            `.keras`, `.h5` or float `.tflite` file or of a SavedModel folder.
        scheme: `float32`, `float16`, `dynamic_int8`, `int8`, `int16x8`, `mixed`, or a value: `Int8(io="uint8")`.
        calibration: an iterable of arrays `(batch, height, width, channels)` in the range that the model takes, also
            with labels or as a function (TensorFlow's representative dataset), or a folder of images for a model with
            known preprocessing. Integer schemes need it; the others are checked on it.
        labels: class names in the order of the outputs; two for a model of one output, of 0 and of 1.
        preprocessing: how a photo becomes the model's input. Default: the model's own, if it declares one.
        target: a device of `converters.devices.targets.names()`, or a runtime such as `tflite-2.3`. Input and
            output get types that it accepts; a file that it would reject is an error.
        input_size: height and width for a model whose input has no fixed size: one number, `(height, width)` or
            `"HEIGHTxWIDTH"`. The file always takes one image of a fixed size, `(1, height, width, channels)`.
        output: the name of the output to convert, for a model with several.

    Returns:
        The Conversion; `save(path)` writes it.

    Raises:
        InputError: the model, the scheme, the images or the labels cannot be used.
        CheckFailed: the result fails a check; the message names the check and the measured value.
    """
    scheme = suited(scheme, target)
    source = open_source(model, input_size=input_size, output=output)
    return tflite_of(prepare(source, preprocessing, calibration, labels, required=scheme.integer), scheme, target)


def suited(scheme: str | Scheme, target: str | None) -> Scheme:
    """The scheme as a value, with the input and output types that the target accepts."""
    return parse(scheme) if target is None else targets.suited(parse(scheme), target)


def tflite_of(job: Job, scheme: Scheme, target: str | None) -> Conversion:
    """The TFLite Conversion of a job; `scheme` is suited to the target."""
    converted = scheme.convert(job.model, job.calibration, job.preprocessing)
    title = f"{job.model.source.name} as {scheme.name}"
    reference, outputs = _reference(job)
    if converted.content is not job.model.content:
        outputs = predict(converted.content, job.images, pixel_offset=converted.pixel_offset)
    limit = job.model.least_sqnr_db(scheme.min_sqnr_db)
    parity = _checked(compare(reference, outputs, meaning=job.meaning), limit, title)
    graph = Graph(converted.content)
    if target is not None:
        for diagnostic in targets.require(graph, target):
            logger.warning("for %s, %s. Remedy: %s", target, diagnostic.what, diagnostic.remedy)
    operators = count_operators(graph)
    if scheme.integer:
        check_integer(graph, operators, scheme.name, scheme.min_integer_share, title)
        errors = layer_errors(job.model.content, converted.content, job.images, pixel_offset=converted.pixel_offset)
        parity = dataclasses.replace(parity, worst_layers=worst(errors))
    record = dataclasses.replace(
        _record(job, scheme.name, parity, graph, converted),
        format="tflite",
        options=asdict(scheme),
        operators=operators,
        target=target,
        mixed=converted.mixed,
    )
    content = metadata.embed(graph, record.to_json(), job.labels)
    return Conversion(content, scheme.name, "tflite", record, parity)


def to_onnx(
    model: Any,
    scheme: str | Scheme = "float32",
    *,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = OPSET,
    target: str | None = None,
    batch: int | str = 1,
    input_size: InputSize = None,
    output: str | None = None,
) -> Conversion:
    """Convert an image classifier to ONNX and check the result; input NHWC as the model takes it.

    Args:
        model, calibration, labels, preprocessing, input_size, output: as in `to_tflite`.
        scheme: `float32`; or `int8`, or a value such as `Int8(effort="high")`: QDQ with the integers of the int8 TFLite
            file, input and output float32.
        opset: the ONNX operator set, 13 or later.
        target: `onnxruntime` (None is the same) or `tensorrt`, whose int8 has no zero points: an activation's range
            is symmetric about 0, so that activations after a ReLU use half of the steps only. ONNX Runtime's quantizer
            makes it.
        batch: 1, or `free` for any number of images in one call, as servers run them.

    Returns:
        The Conversion, of format `onnx`.

    Raises:
        InputError, CheckFailed: as in `to_tflite`.
    """
    check_onnx(scheme, opset, target, batch)
    source = open_source(model, input_size=input_size, output=output)
    job = prepare(source, preprocessing, calibration, labels, required=onnx_name(scheme) == "int8")
    return onnx_of(job, scheme, opset, target, batch)


def onnx_name(scheme: str | Scheme) -> str:
    """The name of a scheme of ONNX files."""
    return str(getattr(scheme, "name", scheme))


def check_onnx(scheme: str | Scheme, opset: int = OPSET, target: str | None = None, batch: int | str = 1) -> None:
    """Raise InputError when there is no such scheme, opset, target or batch size of ONNX files, or lacks a package."""
    require("an ONNX file", "onnx")
    from converters.onnx.export import MIN_OPSET, max_opset

    if onnx_name(scheme) not in ONNX_SQNR_DB:
        raise unknown("ONNX scheme", onnx_name(scheme), ONNX_SQNR_DB)
    if target is not None and target not in ONNX_TARGETS:
        raise unknown("ONNX target", target, ONNX_TARGETS)
    if not isinstance(opset, int) or (opset != OPSET and not MIN_OPSET <= opset <= max_opset()):
        raise InputError(f"opset must be a whole number in {MIN_OPSET}..{max_opset()}. Received: {opset!r}")
    if batch not in (1, FREE):
        raise InputError(f"the batch size of an ONNX file must be 1 or {FREE!r}. Received: {batch!r}")


def onnx_of(
    job: Job, scheme: str | Scheme, opset: int = OPSET, target: str | None = None, batch: int | str = 1
) -> Conversion:
    """The ONNX Conversion of a job."""
    from converters.onnx.batch import with_free_batch
    from converters.onnx.export import embed_record, from_tflite
    from converters.onnx.quantization import static_int8

    name, options = onnx_name(scheme), {"opset": opset} if batch == 1 else {"opset": opset, "batch": batch}
    if name == "float32":
        content = from_tflite(job.model.content, opset)
    elif target == "tensorrt":
        content = static_int8(from_tflite(job.model.content, opset), job.images, symmetric=True)
    else:
        int8 = parse(scheme)
        if isinstance(int8, Int8):
            int8 = dataclasses.replace(int8, io="float32")
            options |= {"effort": int8.effort, "weights": int8.weights}
        content = from_tflite(int8.convert(job.model, job.calibration, job.preprocessing).content, opset)
    if batch == FREE:
        content = with_free_batch(content, job.images)
    reference, _ = _reference(job)
    title = f"{job.model.source.name} as ONNX {name}"
    parity = compare(reference, predict_onnx(content, job.images), meaning=job.meaning)
    parity = _checked(parity, job.model.least_sqnr_db(ONNX_SQNR_DB[name]), title)
    record = dataclasses.replace(
        _record(job, name, parity, job.graph, Converted(content)),
        format="onnx",
        options=options,
        target=target,
    )
    return Conversion(embed_record(content, record.to_json()), name, "onnx", record, parity)


def verify(reference: Any, conversion: Conversion, images: Any, *, output: str | None = None) -> Parity:
    """Compare a conversion with a reference on images.

    Args:
        reference: the model that it was made from, as in `to_tflite`, or another Conversion.
        conversion: the conversion to measure.
        images: in the range that the model takes, in any form that `to_tflite` accepts as `calibration`.
        output: the name of the reference's output, if it has several.

    Returns:
        The Parity; `worst_layers` are the activations with the largest error, where both are TFLite graphs.

    Raises:
        InputError: the shape or the range of the images is not the model's.
    """
    if not isinstance(conversion, Conversion):
        raise InputError(f"what is verified must be a Conversion. Received: {type(conversion).__name__}")
    float_content: bytes | None = None
    if isinstance(reference, Conversion):
        record = reference.record
        images = gather(
            images,
            record.input.shape[1:],
            preprocessing=record.preprocessing,
            takes_pixels=bool(record.input.takes_pixels),
        )
        expected = _run(reference, images)
        if reference.format == "tflite" and reference.scheme == "float32":
            float_content = reference.content
    else:
        source = open_source(reference, input_size=conversion.record.input.shape[1:3], output=output)
        model = convert_float(source)
        preprocessing = conversion.record.preprocessing
        takes_pixels = _takes_pixels(model, preprocessing)
        images = gather(images, source.input_shape, preprocessing=preprocessing, takes_pixels=takes_pixels)
        expected, float_content = source.predict(images), model.content
    outputs = _run(conversion, images)
    if outputs.shape != expected.shape:
        raise InputError(
            f"the reference must have the conversion's classes, {outputs.shape[1]}. Received: {expected.shape[1]}"
        )
    meaning = conversion.record.output.meaning
    if float_content is None or conversion.format != "tflite":
        return compare(expected, outputs, meaning=meaning)
    errors = layer_errors(float_content, conversion.content, images, pixel_offset=conversion.pixel_offset)
    return compare(expected, outputs, worst(errors), meaning=meaning)


def _run(conversion: Conversion, images: np.ndarray) -> np.ndarray:
    if conversion.format == "onnx":
        return predict_onnx(conversion.content, images)
    return predict(conversion.content, images, pixel_offset=conversion.pixel_offset)


@dataclass(frozen=True, eq=False)
class Job:
    """The checked inputs of a conversion, or of several of one model.

    Attributes:
        model: the float model.
        graph: the float model's graph, to be read only.
        preprocessing: the caller's or the model's.
        calibration: images `(n, height, width, channels)`; None where none were given.
        images: those that are compared: the calibration, or seeded noise.
        labels: the class names.
        activation: of the source, if it declares one.
    """

    model: FloatModel
    graph: Graph
    preprocessing: Preprocessing | None
    calibration: np.ndarray | None
    images: np.ndarray
    labels: tuple[str, ...] | None
    activation: str | None = None

    @property
    def meaning(self) -> OutputMeaning:
        """What the model's outputs mean."""
        meaning = output_meaning(self.graph)
        return dataclasses.replace(meaning, activation=self.activation or meaning.activation)


def prepare(
    model: Any,
    preprocessing: Preprocessing | None,
    calibration: Any,
    labels: Sequence[str] | None,
    *,
    required: bool,
) -> Job:
    """Open and convert the model and gather the images; `required` is whether calibration must be given."""
    source = open_source(model)
    preprocessing = _agreed(preprocessing, source)
    float_model = convert_float(source)
    gathered = None
    if calibration is not None or required:
        gathered = gather(
            calibration,
            source.input_shape,
            preprocessing=preprocessing,
            takes_pixels=_takes_pixels(float_model, preprocessing),
        )
        gathered = np.rint(gathered) if source.takes_integers else gathered
    graph = Graph(float_model.content)
    names = None if labels is None else check_labels(labels, graph.shape(graph.outputs[0])[-1])
    takes_pixels = float_model.takes_pixels
    images = noise(source.input_shape, preprocessing, takes_pixels) if gathered is None else gathered
    return Job(float_model, graph, preprocessing, gathered, images, names, source.activation)


def _agreed(given: Preprocessing | None, source: Source) -> Preprocessing | None:
    preprocessing = given or source.preprocessing
    if preprocessing is not None:
        preprocessing.require(source.input_shape)
    return preprocessing


def _takes_pixels(model: FloatModel, preprocessing: Preprocessing | None) -> bool:
    return preprocessing.takes_pixels if preprocessing is not None else model.takes_pixels


def _reference(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The outputs to compare with, and the float conversion's outputs; measured once for all schemes.

    The first `SOURCE_IMAGES` are the source model's own outputs, with which the float conversion must agree; the rest
    are the float conversion's, which is faster. Of a source that simulates int8 all are its own.
    """
    model = job.model
    count = None if model.learned_ranges else SOURCE_IMAGES

    def measure() -> tuple[np.ndarray, np.ndarray]:
        batch = max(1, min(SOURCE_IMAGES, BATCH_PIXELS // (model.source.input_shape[0] * model.source.input_shape[1])))
        with ThreadPoolExecutor(max_workers=1) as pool:
            running = pool.submit(model.source.predict, job.images[:count], batch=batch)
            outputs = predict(model.content, job.images)
            expected = running.result()
        parity = compare(expected, outputs[: len(expected)], meaning=job.meaning)
        _checked(parity, model.least_sqnr_db(FLOAT_SQNR_DB), f"{model.source.name} as float32")
        return np.concatenate([expected, outputs[len(expected) :]]), outputs

    return model.once("reference", job.images, measure)


def _checked(parity: Parity, min_sqnr_db: float, title: str) -> Parity:
    if not np.isfinite(parity.max_abs_error):
        raise CheckFailed(f"{title}: the logits must be finite. Measured: NaN or infinity")
    if parity.sqnr_db < min_sqnr_db:
        raise CheckFailed(
            f"{title}: the logits' SQNR against the source model must be at least {min_sqnr_db:g} dB. "
            f"Measured: {parity.sqnr_db:.1f} dB on {parity.images} images (top-1 agreement {parity.top1_agreement:.1%})"
        )
    return parity


def _record(job: Job, scheme: str, parity: Parity, graph: Graph, converted: Converted) -> Record:
    """The Record of a file whose input and output are those of `graph`."""
    return Record(
        name=job.model.source.name,
        scheme=scheme,
        preprocessing=job.preprocessing,
        labels=job.labels,
        input=_input_record(job, graph, converted.pixel_offset),
        output=OutputRecord.of_outputs(graph, job.meaning),
        macs=count_macs(job.graph),
        source_sha256=job.model.source.digest,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **package_versions(VERSIONED)},
        parity=parity,
    )


def _input_record(job: Job, graph: Graph, pixel_offset: int | None) -> InputRecord:
    tensor = TensorRecord.of(graph, graph.inputs[0])
    preprocessing, takes_pixels = job.preprocessing, _takes_pixels(job.model, job.preprocessing)
    channels = tensor.shape[-1]
    mean, std, colour = (0.0,) * channels, (1.0,) * channels, "RGB" if channels == 3 else "grey"
    if tensor.scale is not None and tensor.zero_point is not None and pixel_offset is not None:
        # A reader who normalizes and then quantizes by the tensor's parameters gets pixel + pixel_offset again.
        std, mean = (1 / tensor.scale,) * channels, (float(tensor.zero_point - pixel_offset),) * channels
        how = f", quantized as pixel {pixel_offset:+d}" if pixel_offset else " pixels 0..255 as they are"
        description = colour + how
    elif takes_pixels:
        description = f"{colour} pixels 0..255"
    elif preprocessing is not None:
        mean, std = preprocessing.mean, preprocessing.std
        description = f"{colour}, (pixel - mean) / std"
    else:
        description = f"{colour} in the range of the calibration images"
    if preprocessing is not None or takes_pixels:
        black, white = ([(pixel - m) / s for m, s in zip(mean, std, strict=True)] for pixel in (0, 255))
        value_range = min(black), max(white)
    else:
        value_range = float(job.images.min()), float(job.images.max())
    return InputRecord(
        **vars(tensor),
        pixel_offset=pixel_offset,
        takes_pixels=takes_pixels,
        description=description,
        mean=mean,
        std=std,
        range=value_range,
    )
