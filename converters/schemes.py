"""The quantization schemes, one frozen dataclass each: its options, and how it converts a float model.

A new scheme is one more dataclass here with a `name`, the limits that its result must keep, and `convert`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from converters.calibration import held_out
from converters.errors import InputError, unknown
from converters.float_model import FloatModel
from converters.images.preprocessing import Preprocessing
from converters.quantization.candidates import METHODS, Candidate, best_candidate
from converters.quantization.int8 import WEIGHTS, Int8Options, int8_files
from converters.quantization.mixed import Point, search
from converters.quantization.normalization import NormalizedGraph, strip_normalization, with_io
from converters.quantization.qat import int8_of_fake_quantized, nearest_int8
from converters.quantization.ranges import activation_ranges
from converters.quantization.rewrite import dynamic_int8_weights, float16_weights, full_integer
from converters.tflite.graph import Graph

PIXEL_OFFSETS = {"int8": -128, "uint8": 0, "float32": None}  # what is added to a pixel to make the input's integer
IO_TYPES = tuple(PIXEL_OFFSETS)
RANGES = ("mse", "minmax")
EFFORTS = ("normal", "high")
WIDE = ("float32", "int16")
MIN_MIXED_IMAGES = 8


@dataclass(frozen=True)
class Converted:
    """The result of a scheme.

    Attributes:
        content: the TFLite file.
        pixel_offset: what is added to a pixel 0..255 to make its input's integer; None where it does not take pixels
            as integers.
        mixed: the outcome of a mixed scheme, for the metadata; None for the others.
    """

    content: bytes
    pixel_offset: int | None = None
    mixed: dict[str, Any] | None = None


@dataclass(frozen=True)
class Float32:
    """The model without quantization.

    Attributes:
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
    """

    min_sqnr_db: float = 60.0
    min_integer_share: ClassVar[float] = 0.0
    name: ClassVar[str] = "float32"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(model.content)


@dataclass(frozen=True)
class Float16:
    """Weights stored as float16: half the size of float32, the same speed on a CPU, and the type of GPU delegates.

    Attributes:
        min_sqnr_db: as in Float32.
    """

    min_sqnr_db: float = 30.0
    min_integer_share: ClassVar[float] = 0.0
    name: ClassVar[str] = "float16"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(float16_weights(model.content))


@dataclass(frozen=True)
class DynamicInt8:
    """int8 weights with float activations: a quarter of the size, no calibration, and rarely faster for CNNs.

    Attributes:
        min_sqnr_db: as in Float32.
    """

    min_sqnr_db: float = 3.0
    min_integer_share: ClassVar[float] = 0.0
    name: ClassVar[str] = "dynamic_int8"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(dynamic_int8_weights(model.content))


@dataclass(frozen=True)
class Int8:
    """int8 weights, activations, input and output.

    Weights have a scale for each channel (dense layers one scale), activations a scale and a zero point for each tensor
    (https://arxiv.org/abs/1712.05877). The file is made in four steps:

    1. Channels that share a tensor's scale are equalized (cross-layer equalization, https://arxiv.org/abs/1906.04721).
    2. Each activation's range is clipped for the least mean square error (https://arxiv.org/abs/1810.05723).
    3. Weights are re-optimized layer by layer against the float layer's output on the calibration images
       (GPTQ, https://arxiv.org/abs/2210.17323 and https://arxiv.org/abs/2504.02692).
    4. Biases are corrected for the remaining shift of each channel's mean (https://arxiv.org/abs/1906.04721).

    Each step is kept only where it helps on held-out images. A model that was trained with fake quantization gets its
    learned ranges and rounded weights instead. Zeros of a pruned model stay zero, and a clustered model keeps its few
    values. Operators, size and latency are those of the plain file.

    Attributes:
        io: `int8`; `uint8`, for MediaPipe and camera bytes; or `float32`, quantized and dequantized inside.
        equalization: whether channels are equalized.
        ranges: of activations, and of weights with one scale a layer: `mse`, the least mean square error, or `minmax`,
            from the smallest to the largest value. Where only an activation such as swish reads a tensor, the error is
            that of the activation's result.
        correction: `gptq`, weights and biases; `bias`, biases only, in a tenth of the time; or `none`.
        damping: GPTQ's Hessian damping, above 0; None tries a few values on held-out images.
        effort: `normal`, or `high`, minutes instead of seconds: channels of linear tensors are mixed, others equalized
            also through RELU6, with gains and ranges by their effect on the outputs, on the images and their mirror
            images.
        weights: `per_channel`; `per_tensor`, one scale for all weights of a layer, which some NPUs require; or
            `per_tensor_pow2`, a power of two. Both take some times as long, and use the mirror images too.
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
        min_integer_share: it fails as well when a smaller share of the operators, 0..1, is integer.
    """

    io: str = "int8"
    equalization: bool = True
    ranges: str = "mse"
    correction: str = "gptq"
    damping: float | None = None
    effort: str = "normal"
    weights: str = "per_channel"
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int8"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_integer(self)
        if self.ranges not in RANGES:
            raise unknown("ranges of an int8 scheme", self.ranges, RANGES)
        if self.effort not in EFFORTS:
            raise unknown("effort of an int8 scheme", self.effort, EFFORTS)
        if self.weights not in WEIGHTS:
            raise unknown("weights of an int8 scheme", self.weights, WEIGHTS)

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        images = _required(images)
        normalized = strip_normalization(model, preprocessing)
        if model.learned_ranges:
            return _converted(int8_of_fake_quantized(model, normalized, images), self.io, normalized)
        inputs = normalized.normalize(images)
        options = self.equalization, self.ranges, self.correction, self.damping, self.effort, self.weights
        key = f"int8 {normalized.zero_point} {options}"
        content, _ = model.once(key, images, lambda: self.files(normalized, inputs))
        return _converted(content, self.io, normalized)

    def files(self, normalized: NormalizedGraph, inputs: np.ndarray) -> tuple[bytes, bytes]:
        """The int8 file with int8 input and output, and the float graph, equalized or not, that it was made from."""
        options = Int8Options(self.equalization, self.ranges, self.correction, self.damping, self.effort, self.weights)
        return int8_files(normalized, inputs, options)


@dataclass(frozen=True)
class Int8FromQat:
    """int8 as `Int8` makes it, with weights rounded to the nearest and ranges from quantization-aware training.

    Attributes:
        ranges: minimum and maximum of computed tensors, by the names of `fake_quant_ranges`; the ranges of other
            tensors are calibrated. Not part of the record: they are in the file, as the tensors' scales.
        io, min_sqnr_db, min_integer_share: as in Int8.
    """

    ranges: InitVar[Mapping[str, tuple[float, float]]]
    io: str = "int8"
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int8"
    integer: ClassVar[bool] = True

    def __post_init__(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        _check_io(self)
        object.__setattr__(self, "_ranges", dict(ranges))

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        normalized = strip_normalization(model, preprocessing)
        return _converted(nearest_int8(normalized, _required(images), vars(self)["_ranges"]), self.io, normalized)


@dataclass(frozen=True)
class Int16x8:
    """int8 weights and int16 activations: the size of int8 and nearly the accuracy of float.

    For processors with kernels for it (Ethos-U, Hexagon); CPUs run reference kernels, many times slower than float.
    Weights and biases are optimized on the calibration images, as for int8.

    Attributes:
        io: as in Int8; the activations inside are int16.
        correction, damping, min_sqnr_db, min_integer_share: as in Int8.
    """

    io: str = "int8"
    correction: str = "gptq"
    damping: float | None = None
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int16x8"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_integer(self)

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        images = _required(images)
        normalized = strip_normalization(model, preprocessing)
        inputs = normalized.normalize(images)
        input_range = normalized.input_range(inputs)
        ranges = model.once(
            f"ranges {normalized.zero_point}", images, lambda: activation_ranges(normalized.content, inputs)
        )

        def candidate(given: np.ndarray) -> Candidate:
            of_given = ranges if given is inputs else activation_ranges(normalized.content, given)
            content = full_integer(normalized.content, of_given, input_range, activation_bits=16)
            return Candidate(normalized.content, content)

        def convert() -> bytes:
            return best_candidate([candidate], inputs, method=self.correction, damping=self.damping)[0]

        content = model.once(f"int16x8 {normalized.zero_point} {self.correction} {self.damping}", images, convert)
        graph = Graph(normalized.content)
        output_range = ranges[graph.name(graph.outputs[0])]
        return _converted(content, self.io, normalized, (input_range, output_range))


@dataclass(frozen=True)
class Mixed:
    """int8 with the most sensitive layers kept wide, as few as a budget allows.

    Layers are ranked by the error that each alone causes (https://arxiv.org/abs/2004.10568, section 5). Then the most
    sensitive ones, more and more of them, are kept wide until the budget holds on the held-out fifth of the images. The
    fastest file on this machine that keeps the budget is returned; the metadata lists all files that were measured,
    under `mixed`. Where no file keeps the budget, the best one is returned and `budget_met` is false.

    Attributes:
        sqnr_db: budget: the least SQNR of the logits. None sets no limit, as for the other two.
        agreement: budget: the least share of images, 0..1, with the float model's top-1.
        top1_drop: budget: the largest loss of accuracy, 0..1. Calibration images have no labels: the share of images
            whose top-1 changes is kept below it, which bounds the loss.
        wide: `float32`; or `int16`, int8 weights with int16 activations for layers with such kernels, which
            accelerators run fast and CPUs do not.
        io, min_sqnr_db: as in Int8.
    """

    sqnr_db: float | None = 30.0
    agreement: float | None = None
    top1_drop: float | None = None
    wide: str = "float32"
    io: str = "int8"
    min_sqnr_db: float = 3.0
    min_integer_share: ClassVar[float] = 0.0
    name: ClassVar[str] = "mixed"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_io(self)
        if self.wide not in WIDE:
            raise unknown("wide of a mixed scheme", self.wide, WIDE)
        for what in ("agreement", "top1_drop"):
            share = getattr(self, what)
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"{what} of a mixed scheme must be a share in 0..1. Received: {share}")
        if self.sqnr_db is not None and not np.isfinite(self.sqnr_db):
            raise InputError(f"sqnr_db of a mixed scheme must be a number of decibels. Received: {self.sqnr_db}")
        if self.sqnr_db is None and self.agreement is None and self.top1_drop is None:
            raise InputError("a mixed scheme must have a budget: sqnr_db, agreement or top1_drop. Received: none")

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        images = _required(images)
        if len(images) < MIN_MIXED_IMAGES:
            raise InputError(
                f"calibration must hold at least {MIN_MIXED_IMAGES} images for a mixed scheme, which measures on a "
                f"fifth of them. Received: {len(images)}"
            )
        normalized = strip_normalization(model, preprocessing)
        inputs = normalized.normalize(images)
        measured = held_out(len(inputs))
        int8, float_content = model.once(
            f"mixed {normalized.zero_point}", images, lambda: Int8().files(normalized, inputs[~measured])
        )
        result = search(float_content, int8, inputs[measured], self._holds, kind=self.wide)
        record = {
            "budget_met": result.met,
            "wide_layers": list(result.wide),
            "curve": [asdict(point) for point in result.curve],
            "alone_sqnr_db": result.errors,
        }
        converted = _converted(result.content, self.io, normalized)
        return Converted(converted.content, converted.pixel_offset, record)

    def _holds(self, point: Point) -> bool:
        return (
            (self.sqnr_db is None or point.sqnr_db >= self.sqnr_db)
            and (self.agreement is None or point.agreement >= self.agreement)
            and (self.top1_drop is None or 1 - point.agreement <= self.top1_drop + 1e-9)
        )


def _check_io(scheme: Int8 | Int8FromQat | Int16x8 | Mixed) -> None:
    if scheme.io not in IO_TYPES:
        article = "a" if scheme.name == "mixed" else "an"
        raise unknown(f"io of {article} {scheme.name} scheme", scheme.io, IO_TYPES)


def _check_integer(scheme: Int8 | Int16x8) -> None:
    _check_io(scheme)
    if scheme.correction == "rounding":
        warnings.warn('correction="rounding" is now correction="gptq"', DeprecationWarning, stacklevel=4)
        object.__setattr__(scheme, "correction", "gptq")
    if scheme.correction not in METHODS:
        raise unknown(f"correction of an {scheme.name} scheme", scheme.correction, METHODS)
    if scheme.damping is not None and not 0 < scheme.damping < float("inf"):
        raise InputError(f"damping must be above 0. Received: {scheme.damping}")
    if not 0 <= scheme.min_integer_share <= 1:
        raise InputError(f"min_integer_share must be in 0..1. Received: {scheme.min_integer_share}")


def _required(images: np.ndarray | None) -> np.ndarray:
    if images is None:
        raise InputError("an integer scheme needs calibration images. Received: None")
    return images


def _converted(
    content: bytes,
    io: str,
    normalized: NormalizedGraph,
    io_ranges: Sequence[tuple[float, float]] | None = None,
) -> Converted:
    pixel_offset = None if normalized.zero_point is None else PIXEL_OFFSETS[io]
    return Converted(with_io(content, io, normalized, io_ranges), pixel_offset)


SCHEMES = (Float32, Float16, DynamicInt8, Int8, Int16x8, Mixed)
Scheme = Float32 | Float16 | DynamicInt8 | Int8 | Int8FromQat | Int16x8 | Mixed


def names() -> tuple[str, ...]:
    """The schemes' names, from the widest to the narrowest."""
    return tuple(scheme.name for scheme in SCHEMES)


def parse(scheme: str | Scheme) -> Scheme:
    """The scheme with default options for a name; a scheme value unchanged.

    Raises:
        InputError: there is no scheme of this name.
    """
    if not isinstance(scheme, str) and hasattr(scheme, "convert"):
        return scheme
    for kind in SCHEMES:
        if scheme == kind.name:
            return kind()
    raise unknown("scheme", str(scheme), names())
