"""`Record`: what a converted file declares about itself, in its metadata and in its sidecar.

One value, written by `to_tflite` and `to_onnx` and read by `read_record`: from inside the file, or from the `.json`
beside it.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from converters import strict_json
from converters.decisions import SIGMOID, SOFTMAX, OutputMeaning
from converters.errors import InputError, unknown
from converters.images.preprocessing import Preprocessing
from converters.parity import Parity
from converters.tflite.graph import Graph
from converters.tflite.metadata import read_embedded

MAX_AXES = 8  # of a tensor
MAX_BYTES = 1 << 24  # of a record; the names of 100,000 classes take a tenth of it
VALUES = ("logits", "probabilities")


@dataclass(frozen=True)
class TensorRecord:
    """The input or output tensor of a file.

    Attributes:
        name: of the tensor.
        shape: such as `(1, 224, 224, 3)`.
        dtype: numpy's name of its type.
        scale, zero_point: of its integers; None where it is float.
    """

    name: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_AXES or not all(0 <= side < 1 << 31 for side in self.shape):
            raise InputError(f"a tensor's shape must be at most {MAX_AXES} sides. Received: {self.shape!r:.80}")
        for name, value, least, most in (
            ("scale", self.scale, 0, math.inf),
            ("zero_point", self.zero_point, -(1 << 31), 1 << 31),
        ):
            if value is not None:
                strict_json.number(value, f"a tensor's {name}", least, most)

    @classmethod
    def of(cls, graph: Graph, tensor: int, **more: Any) -> Self:
        """The record of a graph's tensor; `more` are the fields of a subclass."""
        quantization = graph.quantization(tensor)
        scale, zero_point = None, None
        if quantization is not None:
            scale, zero_point = float(quantization[0][0]), int(quantization[1][0])
        return cls(graph.name(tensor), graph.shape(tensor), str(graph.dtype(tensor)), scale, zero_point, **more)


@dataclass(frozen=True)
class InputRecord(TensorRecord):
    """The input tensor of a file.

    Attributes:
        pixel_offset: what is added to a pixel 0..255 to make the tensor's integer; None where it is not an integer
            made from a pixel.
        takes_pixels: whether the model takes pixels 0..255.
        description: the input in words.
        mean, std: for R, G and B: the input is `(pixel - mean) / std`, then quantized by scale and zero point.
        range: the smallest and the largest input before quantization.
    """

    pixel_offset: int | None = None
    takes_pixels: bool | None = None
    description: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    range: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pixel_offset is not None:
            strict_json.integer(self.pixel_offset, "the input's pixel_offset", -(1 << 16), 1 << 16)
        for name, lengths in (("mean", (0, 1, 3)), ("std", (0, 1, 3)), ("range", (0, 2))):
            values = getattr(self, name)
            if len(values) not in lengths:
                raise InputError(f"the input's {name} must have {lengths} numbers. Received: {values!r:.80}")


@dataclass(frozen=True)
class OutputRecord(TensorRecord):
    """The output tensor of a file.

    Attributes:
        values: `logits` or `probabilities`.
        activation: from logits to probabilities: `softmax` or `sigmoid`; empty in records that do not declare it.
    """

    values: str = "logits"
    activation: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values not in VALUES:
            raise unknown("values of an output", self.values, VALUES)
        if self.activation not in ("", SOFTMAX, SIGMOID):
            raise unknown("activation of an output", self.activation, (SOFTMAX, SIGMOID))

    @property
    def meaning(self) -> OutputMeaning:
        """What the outputs mean."""
        return OutputMeaning(self.values == "probabilities", self.activation or SOFTMAX)

    @classmethod
    def of_outputs(cls, graph: Graph, meaning: OutputMeaning) -> OutputRecord:
        """The record of a graph's first output."""
        values = "probabilities" if meaning.probabilities else "logits"
        return cls.of(graph, graph.outputs[0], values=values, activation=meaning.activation)


@dataclass(frozen=True)
class Record:
    """A converted file's description of itself. Records of other programs may leave any of it out.

    Attributes:
        name: of the source model.
        scheme: such as `int8`.
        format: `tflite` or `onnx`.
        preprocessing: how a photo becomes the input; None where that is unknown.
        labels: class names in the order of the outputs; for a single output those of 0 and of 1.
        input, output: the tensors.
        macs: multiply-accumulates of one inference.
        source_sha256: the digest of the source model.
        date: when it was converted, ISO 8601 in UTC.
        versions: of Python and the packages that converted it.
        parity: how its outputs compare with the source model's.
        options: of the scheme.
        operators: the numbers of integer operators and of all, for TFLite.
        target: the device or runtime that it was converted for.
        mixed: the outcome of a mixed scheme.
        file, sha256, size_bytes: of the file, in a sidecar only.
    """

    name: str = ""
    scheme: str = ""
    format: str = ""
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    input: InputRecord = field(default_factory=InputRecord)
    output: OutputRecord = field(default_factory=OutputRecord)
    macs: int | None = None
    source_sha256: str = ""
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    parity: Parity | None = None
    options: dict[str, Any] = field(default_factory=dict)
    operators: tuple[int, int] | None = None
    target: str | None = None
    mixed: dict[str, Any] | None = None
    file: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        if any(count is not None and count < 0 for count in (self.macs, self.size_bytes, *(self.operators or ()))):
            raise InputError(
                f"a record's counts must be 0 or more. Received: {self.macs}, {self.size_bytes}, {self.operators}"
            )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        record: dict[str, Any] = {
            "name": self.name,
            "scheme": self.scheme,
            "preprocessing": None if self.preprocessing is None else self.preprocessing.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "macs": self.macs,
            "source_sha256": self.source_sha256,
            "date": self.date,
            "versions": self.versions,
            "parity": None if self.parity is None else _plain(asdict(self.parity)),
            "format": self.format,
            "options": self.options,
            "input": _plain(asdict(self.input)),
            "output": _plain(asdict(self.output)),
            "target": self.target,
        }
        if self.operators is not None:
            record["operators"] = dict(zip(("integer", "total"), self.operators, strict=True))
        if self.mixed is not None:
            record["mixed"] = self.mixed
        if self.file is not None:
            record = {"file": self.file, "sha256": self.sha256, "size_bytes": self.size_bytes, **record}
        return record

    @classmethod
    def from_json(cls, fields: Any, where: str) -> Record:
        """The record that `to_json` wrote.

        Args:
            fields: JSON values, which may be untrusted; absent and unknown fields are allowed.
            where: what holds them, for error messages.

        Raises:
            InputError: a field has a value of another kind.
        """
        record = strict_json.mapping(fields, f"{where}: a record")
        if record.get("operators") is not None:
            operators = strict_json.typed(_Operators, record["operators"], f"{where}: operators")
            record = {**record, "operators": [operators.integer, operators.total]}
        try:
            return strict_json.build(cls, record, f"{where}: record")
        except InputError as error:
            message = str(error)
            raise error if message.startswith(where) else InputError(f"{where}: {message}") from error


@dataclass(frozen=True)
class _Operators:
    """Numbers of operators, as JSON holds them."""

    integer: int
    total: int


def read_metadata(path: str | os.PathLike) -> dict[str, Any] | None:
    """The record of a `.tflite` or `.onnx` file as JSON values: from the file, or from the `.json` beside it.

    Returns:
        The values, unchecked; None when there are none.

    Raises:
        InputError: the file is missing, or is not a TFLite file although its name ends in `.tflite`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the artifact must be a file that exists. Received: {path}")
    if path.suffix == ".tflite":
        try:
            record = read_embedded(path.read_bytes())
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if record is not None:
            return record
    record = read_sidecar(path)
    return record if record is not None and record.get("file") == path.name else None


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The JSON object in the `.json` beside a model file, unchecked; None where there is none that can be read."""
    try:
        record = strict_json.read(path.with_suffix(".json"), "a sidecar", MAX_BYTES)
    except InputError:
        return None
    return record if isinstance(record, dict) else None


def read_record(path: str | os.PathLike) -> Record | None:
    """The Record of a `.tflite` or `.onnx` file: from the file, or from the `.json` beside it.

    Returns:
        The record; None when there is none.

    Raises:
        InputError: the file cannot be read, or a field of the record has a value of another kind.
    """
    fields = read_metadata(path)
    return None if fields is None else Record.from_json(fields, str(path))


def _plain(value: Any) -> Any:
    """The value with lists in the place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value
