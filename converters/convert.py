"""`to_tflite`, `to_onnx` and `verify`: convert, then measure what came out before anybody gets it."""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata as packages
from typing import Any

import numpy as np

from converters.calibration import gather
from converters.conversion import Conversion
from converters.devices import targets
from converters.errors import CheckFailed, InputError, unknown
from converters.float_model import FloatModel, convert_float, output_values
from converters.images.preprocessing import Preprocessing
from converters.parity import Parity, compare
from converters.schemes import Scheme, parse
from converters.sources.source import Source, open_source
from converters.tflite import metadata
from converters.tflite.graph import Graph, count_macs, count_operators
from converters.tflite.layers import layer_errors, worst
from converters.tflite.runtime import predict, predict_onnx

SOURCE_IMAGES = 16  # the float conversion is compared with the source model on so many; the rest with the conversion
FLOAT_SQNR_DB = 60.0  # float against float: only the order of additions differs
ONNX_SQNR_DB = {"float32": FLOAT_SQNR_DB, "int8": 3.0}  # an ONNX file fails its check below
ONNX_TARGETS = ("onnxruntime", "tensorrt")
RANDOM_IMAGES = 8  # compared when the caller gives no images
VERSIONED = ("tensorflow", "keras", "ai-edge-litert", "ai-edge-quantizer", "tf2onnx", "onnx", "onnxruntime", "numpy")

logger = logging.getLogger(__name__)


def to_tflite(
    model: Any,
    scheme: str | Scheme = "int8",
    *,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    target: str | None = None,
) -> Conversion:
    """A checked TFLite file of an image classifier.

    Several schemes of one model share one float conversion.

    Args:
        model: a Keras 3 or tf_keras model of one RGB image input `(batch, height, width, 3)` and one output
            `(batch, classes)`, or the path of a `.keras` file or a SavedModel folder.
        scheme: `float32`, `float16`, `dynamic_int8`, `int8`, `int16x8`, `mixed`, or a value: `Int8(io="uint8")`.
        calibration: an iterable of arrays `(batch, height, width, 3)` in the range that the model takes, or a folder of
            images for a model whose preprocessing is known. Integer schemes need it; the others are checked on it.
        labels: class names in the order of the outputs.
        preprocessing: how a photo becomes the model's input; default: what the model says itself.
        target: a device of `converters.devices.targets.names()`, or a runtime such as `tflite-2.3`. Input and
            output get the types that it takes; a file that it would refuse is an error.

    Returns:
        The Conversion; `save(path)` writes it.

    Raises:
        InputError: the model, the scheme, the images or the labels cannot be used.
        CheckFailed: the result is not what it should be; the message names the check and its number.
    """
    scheme = parse(scheme)
    scheme = scheme if target is None else targets.suited(scheme, target)
    source = open_source(model)
    preprocessing = _agreed(preprocessing, source)
    float_model = convert_float(source)
    images = _images(float_model, calibration, preprocessing, required=scheme.integer)
    _check_labels(labels, float_model)
    converted = scheme.convert(float_model, images, preprocessing)
    if images is None:
        images = _random_images(float_model, preprocessing)
    reference = _reference(float_model, images)
    outputs = predict(converted.content, images, pixel_offset=converted.pixel_offset)
    what = f"{source.name} as {scheme.name}"
    parity = _checked(compare(reference, outputs), scheme.min_sqnr_db, what)
    for finding in () if target is None else targets.require(converted.content, target):
        logger.warning("for %s, %s. Remedy: %s", target, finding.what, finding.remedy)
    integer, total = count_operators(Graph(converted.content))
    if scheme.integer and integer < scheme.min_integer_share * total:
        raise CheckFailed(
            f"{what}: at least {scheme.min_integer_share:.0%} of the operators must be integer. "
            f"Measured: {integer} of {total}"
        )
    if scheme.integer:
        errors = layer_errors(float_model.content, converted.content, images, pixel_offset=converted.pixel_offset)
        parity = Parity(**{**vars(parity), "worst_layers": worst(errors)})
    record = _record(float_model, scheme.name, preprocessing, labels, parity)
    record |= {
        "format": "tflite",
        "options": asdict(scheme),
        "input": _input_record(converted.content, converted.pixel_offset, float_model, preprocessing, images),
        "output": _output_record(converted.content),
        "operators": {"integer": integer, "total": total},
        "target": target,
        **converted.record,
    }
    content = metadata.embed(converted.content, record, labels)
    return Conversion(content, scheme.name, "tflite", record, parity)


def to_onnx(
    model: Any,
    scheme: str = "float32",
    *,
    calibration: Any = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    opset: int = 17,
    target: str | None = None,
) -> Conversion:
    """A checked ONNX file of an image classifier, batch 1, input NHWC as the model takes it.

    Args:
        model, calibration, labels, preprocessing: as `to_tflite` takes them.
        scheme: `float32`, or `int8`: QDQ by ONNX Runtime's quantizer, input and output float32.
        opset: the ONNX operator set, 13 or later.
        target: `onnxruntime` (None is the same) or `tensorrt`, whose int8 has no zero points: an activation's range
            reaches as far down as up, which costs those behind a ReLU half of their steps.

    Returns:
        The Conversion, of format `onnx`.

    Raises:
        InputError, CheckFailed: as `to_tflite`.
    """
    from converters.onnx.export import MIN_OPSET, embed_record, from_float_tflite, max_opset
    from converters.onnx.quantization import static_int8

    if scheme not in ONNX_SQNR_DB:
        raise unknown("ONNX scheme", scheme, ONNX_SQNR_DB)
    if target is not None and target not in ONNX_TARGETS:
        raise unknown("ONNX target", target, ONNX_TARGETS)
    if not isinstance(opset, int) or not MIN_OPSET <= opset <= max_opset():
        raise InputError(f"opset must be a whole number in {MIN_OPSET}..{max_opset()}. Received: {opset!r}")
    source = open_source(model)
    preprocessing = _agreed(preprocessing, source)
    float_model = convert_float(source)
    images = _images(float_model, calibration, preprocessing, required=scheme == "int8")
    _check_labels(labels, float_model)
    content = from_float_tflite(float_model.content, opset)
    if scheme == "int8":
        content = static_int8(content, images, symmetric=target == "tensorrt")
    if images is None:
        images = _random_images(float_model, preprocessing)
    outputs = predict_onnx(content, images)
    parity = _checked(
        compare(_reference(float_model, images), outputs), ONNX_SQNR_DB[scheme], f"{source.name} as ONNX {scheme}"
    )
    record = _record(float_model, scheme, preprocessing, labels, parity)
    record |= {
        "format": "onnx",
        "options": {"opset": opset},
        "target": target,
        "input": _input_record(float_model.content, None, float_model, preprocessing, images),
        "output": _output_record(float_model.content),
    }
    return Conversion(embed_record(content, record), scheme, "onnx", record, parity)


def verify(reference: Any, conversion: Conversion, images: Any) -> Parity:
    """Measure a conversion against a reference on images.

    Args:
        reference: the model that it was made from, as `to_tflite` takes it, or another Conversion.
        conversion: what is measured.
        images: an iterable of arrays `(batch, height, width, 3)` in the range that the model takes.

    Returns:
        The Parity; its `worst_layers` are the activations that lost most, where both are TFLite graphs.

    Raises:
        InputError: the images have another shape or range than the model takes.
    """
    if not isinstance(conversion, Conversion):
        raise InputError(f"what is verified must be a Conversion. Received: {type(conversion).__name__}")
    if isinstance(reference, Conversion):
        shape = tuple(reference.metadata["input"]["shape"][1:])
        takes_pixels = reference.metadata["input"]["takes_pixels"]
        images = gather(images, shape, preprocessing=_own_preprocessing(reference), takes_pixels=takes_pixels)
        wanted = _run(reference, images)
        float_content = reference.content if reference.format == "tflite" and reference.scheme == "float32" else None
    else:
        source = open_source(reference)
        float_model = convert_float(source)
        preprocessing = _own_preprocessing(conversion)
        takes_pixels = _takes_pixels(float_model, preprocessing)
        images = gather(images, source.input_shape, preprocessing=preprocessing, takes_pixels=takes_pixels)
        wanted = source.predict(images)
        float_content = float_model.content
    outputs = _run(conversion, images)
    if outputs.shape != wanted.shape:
        raise InputError(
            f"the reference must have the conversion's classes, {outputs.shape[1]}. Received: {wanted.shape[1]}"
        )
    errors = ()
    if float_content is not None and conversion.format == "tflite":
        errors = layer_errors(float_content, conversion.content, images, pixel_offset=conversion.pixel_offset)
    return compare(wanted, outputs, worst(errors))


def _run(conversion: Conversion, images: np.ndarray) -> np.ndarray:
    if conversion.format == "onnx":
        return predict_onnx(conversion.content, images)
    return predict(conversion.content, images, pixel_offset=conversion.pixel_offset)


def _own_preprocessing(conversion: Conversion) -> Preprocessing | None:
    fields = conversion.metadata["preprocessing"]
    return None if fields is None else Preprocessing.from_dict(fields)


def _agreed(given: Preprocessing | None, source: Source) -> Preprocessing | None:
    preprocessing = given or source.preprocessing
    if preprocessing is not None:
        size = (preprocessing.image_size, preprocessing.image_size)
        if size != source.input_shape[:2]:
            raise InputError(
                f"the preprocessing's image_size must be the model's input, {source.input_shape[0]}x"
                f"{source.input_shape[1]}. Received: {preprocessing.image_size}"
            )
    return preprocessing


def _takes_pixels(model: FloatModel, preprocessing: Preprocessing | None) -> bool:
    return preprocessing.takes_pixels if preprocessing is not None else model.takes_pixels


def _images(
    model: FloatModel, calibration: Any, preprocessing: Preprocessing | None, *, required: bool
) -> np.ndarray | None:
    if calibration is None and not required:
        return None
    return gather(
        calibration,
        model.source.input_shape,
        preprocessing=preprocessing,
        takes_pixels=_takes_pixels(model, preprocessing),
    )


def _random_images(model: FloatModel, preprocessing: Preprocessing | None) -> np.ndarray:
    """Seeded noise in the model's range: enough to find a wrong conversion, not to say how good a quantized one is."""
    noise = np.random.default_rng(0).uniform(0, 255, (RANDOM_IMAGES, *model.source.input_shape)).astype(np.float32)
    if preprocessing is not None:
        return preprocessing.to_input(noise)
    return noise if model.takes_pixels else noise / np.float32(127.5) - 1


def _check_labels(labels: Sequence[str] | None, model: FloatModel) -> None:
    if labels is None:
        return
    graph = Graph(model.content)
    classes = graph.shape(graph.outputs[0])[-1]
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise InputError(f"labels must be a list of {classes} class names. Received: {type(labels).__name__}")
    if len(labels) != classes:
        raise InputError(f"labels must be {classes} class names, one an output. Received: {len(labels)}")
    wrong = [label for label in labels if not isinstance(label, str) or not label.strip() or "\n" in label]
    if wrong:
        raise InputError(f"labels must be names of one line. Received: {wrong[0]!r}")


def _reference(model: FloatModel, images: np.ndarray) -> np.ndarray:
    """What the source model says of the images; by its float conversion, once that is proved equal on some of them."""

    def measure() -> np.ndarray:
        some = images[:SOURCE_IMAGES]
        outputs = predict(model.content, images)
        wanted = model.source.predict(some)
        _checked(compare(wanted, outputs[: len(some)]), FLOAT_SQNR_DB, f"{model.source.name} as float32")
        return np.concatenate([wanted, outputs[len(some) :]])

    return model.once("reference", images, measure)


def _checked(parity: Parity, min_sqnr_db: float, what: str) -> Parity:
    if not np.isfinite(parity.max_abs_error):
        raise CheckFailed(f"{what}: the logits must be finite. Measured: NaN or infinity")
    if parity.sqnr_db < min_sqnr_db:
        raise CheckFailed(
            f"{what}: the logits' SQNR against the source model must be at least {min_sqnr_db:g} dB. "
            f"Measured: {parity.sqnr_db:.1f} dB on {parity.images} images (top-1 agreement {parity.top1_agreement:.1%})"
        )
    return parity


def _record(
    model: FloatModel,
    scheme: str,
    preprocessing: Preprocessing | None,
    labels: Sequence[str] | None,
    parity: Parity,
) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            versions[package] = packages.version(package)
        except packages.PackageNotFoundError:
            continue
    return {
        "name": model.source.name,
        "scheme": scheme,
        "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        "labels": None if labels is None else list(labels),
        "macs": count_macs(Graph(model.content)),
        "source_sha256": model.source.digest,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "parity": asdict(parity),
    }


def _tensor_record(graph: Graph, tensor: int) -> dict[str, Any]:
    quantization = graph.quantization(tensor)
    scale, zero_point = (None, None) if quantization is None else (float(quantization[0][0]), int(quantization[1][0]))
    return {
        "name": graph.name(tensor),
        "shape": list(graph.shape(tensor)),
        "dtype": str(graph.dtype(tensor)),
        "scale": scale,
        "zero_point": zero_point,
    }


def _input_record(
    content: bytes,
    pixel_offset: int | None,
    model: FloatModel,
    preprocessing: Preprocessing | None,
    images: np.ndarray,
) -> dict[str, Any]:
    graph = Graph(content)
    record = _tensor_record(graph, graph.inputs[0])
    takes_pixels = _takes_pixels(model, preprocessing)
    mean, std = [0.0] * 3, [1.0] * 3
    if record["scale"] is not None and pixel_offset is not None:
        # What a reader gets who normalizes, then quantizes by the tensor's own numbers: pixel + pixel_offset again.
        std = [1 / record["scale"]] * 3
        mean = [float(record["zero_point"] - pixel_offset)] * 3
        description = f"RGB, quantized as pixel {pixel_offset:+d}" if pixel_offset else "RGB pixels 0..255 as they are"
    elif takes_pixels:
        description = "RGB pixels 0..255"
    elif preprocessing is not None:
        mean, std = list(preprocessing.mean), list(preprocessing.std)
        description = "RGB, (pixel - mean) / std"
    else:
        description = "RGB in the range of the calibration images"
    if preprocessing is not None or takes_pixels:
        ends = [[(pixel - m) / s for m, s in zip(mean, std, strict=True)] for pixel in (0, 255)]
        value_range = [min(ends[0]), max(ends[1])]
    else:
        value_range = [float(images.min()), float(images.max())]
    return record | {
        "pixel_offset": pixel_offset,
        "takes_pixels": takes_pixels,
        "description": description,
        "mean": mean,
        "std": std,
        "range": value_range,
    }


def _output_record(content: bytes) -> dict[str, Any]:
    graph = Graph(content)
    return _tensor_record(graph, graph.outputs[0]) | {"values": output_values(graph)}
