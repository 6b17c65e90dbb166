"""`Record`: what a converted file declares about itself, in its metadata and in its sidecar.

One value, written by `to_tflite` and `to_onnx` and read by `read_record`: from inside the file, or from the `.json`
beside it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from converters.decisions import SOFTMAX, OutputMeaning
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.parity import LayerError, Parity
from converters.tflite.graph import Graph
from converters.tflite.metadata import read_embedded

_T = TypeVar("_T")


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


@dataclass(frozen=True)
class OutputRecord(TensorRecord):
    """The output tensor of a file.

    Attributes:
        values: `logits` or `probabilities`.
        activation: from logits to probabilities: `softmax` or `sigmoid`; empty in records that do not declare it.
    """

    values: str = "logits"
    activation: str = ""

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
        read = _Fields(fields, where)
        operators = read.part("operators")
        preprocessing = read.get("preprocessing", dict)
        try:
            return cls(
                name=read.text("name"),
                scheme=read.text("scheme"),
                format=read.text("format"),
                preprocessing=None if preprocessing is None else Preprocessing.from_dict(preprocessing),
                labels=read.texts("labels"),
                input=_input_from(read.part("input") or _Fields({}, where)),
                output=_output_from(read.part("output") or _Fields({}, where)),
                macs=read.whole("macs"),
                source_sha256=read.text("source_sha256"),
                date=read.text("date"),
                versions={str(k): str(v) for k, v in (read.get("versions", dict) or {}).items()},
                parity=_parity_from(read.part("parity")),
                options=read.get("options", dict) or {},
                operators=None if operators is None else (operators.count("integer"), operators.count("total")),
                target=read.get("target", str),
                mixed=read.get("mixed", dict),
                file=read.get("file", str),
                sha256=read.get("sha256", str),
                size_bytes=read.whole("size_bytes"),
            )
        except InputError as error:
            message = str(error)
            raise error if message.startswith(where) else InputError(f"{where}: {message}") from error


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
    try:
        record = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("file") == path.name else None


def read_record(path: str | os.PathLike) -> Record | None:
    """The Record of a `.tflite` or `.onnx` file: from the file, or from the `.json` beside it.

    Returns:
        The record; None when there is none.

    Raises:
        InputError: the file cannot be read, or a field of the record has a value of another kind.
    """
    fields = read_metadata(path)
    return None if fields is None else Record.from_json(fields, str(path))


class _Fields:
    """Reads JSON values of the expected kinds; None where a field is absent or null."""

    def __init__(self, fields: Any, where: str) -> None:
        if not isinstance(fields, dict):
            raise InputError(f"{where}: a record must be a JSON object. Received: {type(fields).__name__}")
        self._fields, self._where = fields, where

    def get(self, key: str, kind: type[_T]) -> _T | None:
        value = self._fields.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            raise self._error(key, {str: "text", int: "a whole number", list: "a list"}.get(kind, "an object"), value)
        return value

    def text(self, key: str) -> str:
        return self.get(key, str) or ""

    def whole(self, key: str) -> int | None:
        return self.get(key, int)

    def count(self, key: str) -> int:
        value = self.get(key, int)
        if value is None or value < 0:
            raise self._error(key, "a whole number of 0 or more", value)
        return value

    def number(self, key: str) -> float | None:
        value = self._fields.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._error(key, "a finite number", value)
        return float(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self.get(key, list) or []
        if not all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
            raise self._error(key, "a list of finite numbers", values)
        return tuple(float(v) for v in values)

    def texts(self, key: str) -> tuple[str, ...] | None:
        values = self.get(key, list)
        if values is not None and not all(isinstance(value, str) for value in values):
            raise self._error(key, "a list of texts", values)
        return None if values is None else tuple(values)

    def part(self, key: str) -> _Fields | None:
        value = self.get(key, dict)
        return None if value is None else _Fields(value, f"{self._where}: {key}")

    def parts(self, key: str) -> tuple[_Fields, ...]:
        return tuple(_Fields(value, f"{self._where}: {key}") for value in self.get(key, list) or [])

    def _error(self, key: str, kind: str, value: Any) -> InputError:
        return InputError(f"{self._where}: {key} must be {kind}. Received: {str(value)[:100]!r}")


def _tensor_from(read: _Fields) -> dict[str, Any]:
    shape = read.numbers("shape")
    return {
        "name": read.text("name"),
        "shape": tuple(int(n) for n in shape),
        "dtype": read.text("dtype"),
        "scale": read.number("scale"),
        "zero_point": read.whole("zero_point"),
    }


def _input_from(read: _Fields) -> InputRecord:
    return InputRecord(
        **_tensor_from(read),
        pixel_offset=read.whole("pixel_offset"),
        takes_pixels=read.get("takes_pixels", bool),
        description=read.text("description"),
        mean=read.numbers("mean"),
        std=read.numbers("std"),
        range=read.numbers("range"),
    )


def _output_from(read: _Fields) -> OutputRecord:
    values, activation = read.text("values") or "logits", read.text("activation")
    return OutputRecord(**_tensor_from(read), values=values, activation=activation)


def _parity_from(read: _Fields | None) -> Parity | None:
    if read is None:
        return None
    layers = tuple(
        LayerError(
            layer=part.text("layer"),
            sqnr_db=part.number("sqnr_db") or 0.0,
            operator=part.text("operator"),
            weights_sqnr_db=part.number("weights_sqnr_db"),
            saturated=part.number("saturated"),
            unused=part.number("unused"),
        )
        for part in read.parts("worst_layers")
    )
    return Parity(
        top1_agreement=read.number("top1_agreement") or 0.0,
        max_abs_error=read.number("max_abs_error") or 0.0,
        sqnr_db=read.number("sqnr_db") or 0.0,
        worst_layers=layers,
        images=read.whole("images") or 0,
    )


def _plain(value: Any) -> Any:
    """The value with lists in the place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value
