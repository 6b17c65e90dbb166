"""The quantization schemes, one frozen dataclass each: its options, and how it is made of a float model.

A new scheme is one more dataclass here with a `name`, the limits that its result must keep, and `convert`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from converters.calibration import activation_ranges, clipped_ranges
from converters.errors import InputError, unknown
from converters.float_model import FloatModel, NormalizedGraph, strip_normalization
from converters.images.preprocessing import Preprocessing
from converters.quantization.equalization import equalized
from converters.quantization.gptq import METHODS, Candidate, corrected
from converters.quantization.mixed import Point, search
from converters.quantization.rewrite import dynamic_int8_weights, float16_weights, full_integer, with_io
from converters.tflite.graph import Graph
from converters.tflite.metadata import with_channels

IO_TYPES = ("int8", "uint8", "float32")
RANGES = ("mse", "minmax")
WIDE = ("float32", "int16")
MIN_MIXED_IMAGES = 8


@dataclass(frozen=True)
class Converted:
    """What a scheme made.

    Attributes:
        content: the TFLite file.
        pixel_offset: how a pixel becomes its input's integer; None: it does not.
        record: what more the metadata shall say.
    """

    content: bytes
    pixel_offset: int | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Float32:
    """The model as it is.

    Attributes:
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
    """

    min_sqnr_db: float = 60.0
    name: ClassVar[str] = "float32"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(model.content)


@dataclass(frozen=True)
class Float16:
    """Weights stored as float16: half the size, the speed of float32 on a CPU, and what a GPU delegate computes in."""

    min_sqnr_db: float = 30.0
    name: ClassVar[str] = "float16"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(float16_weights(model.content))


@dataclass(frozen=True)
class DynamicInt8:
    """int8 weights with float activations, which need no calibration; a quarter of the size, seldom faster for CNNs."""

    min_sqnr_db: float = 3.0
    name: ClassVar[str] = "dynamic_int8"
    integer: ClassVar[bool] = False

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        return Converted(dynamic_int8_weights(model.content))


@dataclass(frozen=True)
class Int8:
    """int8 weights, activations, input and output.

    Weights have a scale a channel (dense layers one scale), activations a scale and a zero point a tensor
    (https://arxiv.org/abs/1712.05877). Channels that share a tensor's scale are equalized first
    (https://arxiv.org/abs/1906.04721), and a range is as wide as costs the least mean square error
    (https://arxiv.org/abs/1810.05723). Then weights and biases are chosen anew, layer by layer, so that each layer
    answers as the float one does on the calibration images: GPTQ (https://arxiv.org/abs/2210.17323,
    https://arxiv.org/abs/2504.02692) and bias correction (https://arxiv.org/abs/1906.04721). Each is kept only where it
    helps on images held out. The operators, the size and the latency stay those of the plain file.

    Attributes:
        equalization: whether channels are equalized.
        ranges: of activations: `mse`, of the least mean square error, or `minmax`, from the smallest to the largest.
        correction: `rounding`, weights and biases; `bias`, biases only, in a tenth of the time; or `none`.
        damping: how little `rounding` trusts the images, above 0; None tries some until one helps on images held out.
        io: `int8`; `uint8`, what MediaPipe and camera bytes want; or `float32`, quantized and dequantized inside.
        min_sqnr_db: the conversion fails its check when the logits' SQNR against the source model is lower.
        min_integer_share: it fails as well when a smaller share of the operators, 0..1, is integer.
    """

    io: str = "int8"
    equalization: bool = True
    ranges: str = "mse"
    correction: str = "rounding"
    damping: float | None = None
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int8"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_integer(self)
        if self.ranges not in RANGES:
            raise unknown("ranges of an int8 scheme", self.ranges, RANGES)

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        body = strip_normalization(model, preprocessing)
        inputs = body.feed(images)
        options = self.equalization, self.ranges, self.correction, self.damping
        content, _ = model.once(f"int8 {body.zero_point} {options}", images, lambda: self.files(body, inputs))
        return _with_ends(content, self.io, body)

    def files(self, body: NormalizedGraph, inputs: np.ndarray) -> tuple[bytes, bytes]:
        """The file with int8 at both ends, and the float graph, equalized or not, that it is nearest to."""
        input_range = body.range_of(inputs)

        def maker(equalize: bool, clip: bool) -> Callable[[np.ndarray], Candidate]:
            def make(images: np.ndarray) -> Candidate:
                content, maps = equalized(body.content, images) if equalize else (body.content, {})
                ranges = activation_ranges(content, images)
                if clip:
                    ranges = clipped_ranges(content, images, ranges)
                return Candidate(content, full_integer(content, ranges, input_range), maps)

            return make

        clip = self.ranges == "mse"
        ways = dict.fromkeys([(self.equalization, clip), (False, clip), (False, False)])
        makers = [maker(*way) for way in ways]
        content, start = corrected(makers, inputs, method=self.correction, damping=self.damping)
        return with_channels(content, start.channels), start.float_content


@dataclass(frozen=True)
class Int16x8:
    """int8 weights and int16 activations, the size of int8 and nearly the answers of float.

    Meant for processors that have kernels for it (Ethos-U, Hexagon); CPUs run reference kernels, many times slower
    than float. Weights and biases are chosen against the calibration images, as for int8.

    Attributes:
        io: as of Int8; int16 is inside.
        correction, damping, min_sqnr_db, min_integer_share: as of Int8.
    """

    io: str = "int8"
    correction: str = "rounding"
    damping: float | None = None
    min_sqnr_db: float = 3.0
    min_integer_share: float = 0.5
    name: ClassVar[str] = "int16x8"
    integer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_integer(self)

    def convert(self, model: FloatModel, images: np.ndarray | None, preprocessing: Preprocessing | None) -> Converted:
        body = strip_normalization(model, preprocessing)
        inputs = body.feed(images)

        ranges = model.once(f"ranges {body.zero_point}", images, lambda: activation_ranges(body.content, inputs))

        def plain(given: np.ndarray) -> Candidate:
            own = ranges if given is inputs else activation_ranges(body.content, given)
            return Candidate(body.content, full_integer(body.content, own, body.range_of(inputs), activation_bits=16))

        def made() -> bytes:
            return corrected([plain], inputs, method=self.correction, damping=self.damping)[0]

        content = model.once(f"int16x8 {body.zero_point} {self.correction} {self.damping}", images, made)
        graph = Graph(body.content)
        return _with_ends(content, self.io, body, (body.range_of(inputs), ranges[graph.name(graph.outputs[0])]))


@dataclass(frozen=True)
class Mixed:
    """int8 with the layers that hurt most kept wider, as few as a budget allows.

    Layers are ranked by the error that each alone causes (https://arxiv.org/abs/2004.10568, section 5), then the worst
    are kept wide, more and more, until the budget holds on the fifth of the images that the int8 file was not made
    with. Of the files for which it holds the fastest on this machine is taken; the others are in the metadata, under
    `mixed`, with the trade-off. Where no file is within the budget, the best is returned and `budget_met` is false.

    Attributes:
        sqnr_db: budget: the logits' SQNR must be at least this. None leaves it open, as for the others.
        agreement: budget: the share of images, 0..1, with the float model's top-1 must be at least this.
        top1_drop: budget: the accuracy, 0..1, must not drop by more. Images have no labels here: what is held is that
            no more images than that change their top-1, and accuracy cannot drop by more than that.
        wide: `float32`; or `int16`, int8 weights with int16 activations for layers that have such kernels, which
            accelerators run fast and CPUs do not.
        io, min_sqnr_db: as of Int8.
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
        if self.io not in IO_TYPES:
            raise unknown("io of a mixed scheme", self.io, IO_TYPES)
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
        if len(images) < MIN_MIXED_IMAGES:
            raise InputError(
                f"calibration must hold at least {MIN_MIXED_IMAGES} images for a mixed scheme, which measures on a "
                f"fifth of them. Received: {len(images)}"
            )
        body = strip_normalization(model, preprocessing)
        inputs = body.feed(images)
        held_out = np.arange(len(inputs)) % 5 == 4
        int8, float_content = model.once(
            f"mixed {body.zero_point}", images, lambda: Int8().files(body, inputs[~held_out])
        )
        found = search(float_content, int8, inputs[held_out], self._holds, kind=self.wide)
        record = {
            "budget_met": found.met,
            "wide_layers": list(found.wide),
            "curve": [asdict(point) for point in found.curve],
            "alone_sqnr_db": found.errors,
        }
        made = _with_ends(found.content, self.io, body)
        return Converted(made.content, made.pixel_offset, {"mixed": record})

    def _holds(self, point: Point) -> bool:
        return (
            (self.sqnr_db is None or point.sqnr_db >= self.sqnr_db)
            and (self.agreement is None or point.agreement >= self.agreement)
            and (self.top1_drop is None or 1 - point.agreement <= self.top1_drop + 1e-9)
        )


def _check_integer(scheme: Int8 | Int16x8) -> None:
    what = f"an {scheme.name} scheme"
    if scheme.io not in IO_TYPES:
        raise unknown(f"io of {what}", scheme.io, IO_TYPES)
    if scheme.correction not in METHODS:
        raise unknown(f"correction of {what}", scheme.correction, METHODS)
    if scheme.damping is not None and not 0 < scheme.damping < float("inf"):
        raise InputError(f"damping must be above 0. Received: {scheme.damping}")
    if not 0 <= scheme.min_integer_share <= 1:
        raise InputError(f"min_integer_share must be in 0..1. Received: {scheme.min_integer_share}")


def _with_ends(
    content: bytes, io: str, body: NormalizedGraph, ends: Sequence[tuple[float, float]] | None = None
) -> Converted:
    offset = {"int8": -128, "uint8": 0, "float32": None}[io]
    return Converted(with_io(content, io, body, ends), None if body.zero_point is None else offset)


SCHEMES = (Float32, Float16, DynamicInt8, Int8, Int16x8, Mixed)
Scheme = Float32 | Float16 | DynamicInt8 | Int8 | Int16x8 | Mixed


def names() -> tuple[str, ...]:
    """The schemes' names, from the widest to the narrowest."""
    return tuple(scheme.name for scheme in SCHEMES)


def parse(scheme: str | Scheme) -> Scheme:
    """The scheme with its default options for a name; a scheme as it is. Raises InputError for anything else."""
    if hasattr(scheme, "convert"):
        return scheme
    for known in SCHEMES:
        if scheme == known.name:
            return known()
    raise unknown("scheme", scheme, names())
