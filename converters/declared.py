"""What a model file takes and returns: by its record, by the caller, by standard metadata, or by its own tensors."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters import strict_json
from converters.decisions import SIGMOID, SOFTMAX, check_labels
from converters.errors import InputError, unknown
from converters.float_model import find_normalization, output_meaning
from converters.images.preprocessing import Preprocessing
from converters.packages import require
from converters.record import InputRecord, OutputRecord, Record, TensorRecord, read_record
from converters.tflite import metadata
from converters.tflite.graph import Graph, read_graph
from converters.tflite.standard_metadata import StandardMetadata, read_standard
from converters.tflite.state import require_stateless

CHANNELS = ("rgb", "bgr", "grey")
_SYNONYMS = {"3": "rgb", "1": "grey", "gray": "grey"}
BACKGROUND_OUTPUTS = 1001  # of ImageNet models whose first class is the background
CLIPPED_STEPS = 64  # beyond the integers: a normalization that goes further is not meant for them
OFFSETS = {"int8": -128, "uint8": 0}
_WITHOUT_MEANING = ("DequantizeLinear", "QuantizeLinear", "Reshape", "Squeeze", "Flatten")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Declaration:
    """What the caller says about model files that do not declare it.

    Attributes:
        fields: of `Preprocessing`: `rule`, `mean` and `std`, in the order of the model's channels.
        channels: `rgb`, `bgr` or `grey`; None is RGB, or grey for an input of one channel.
        labels: class names in the order of the outputs.
    """

    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    channels: str | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.channels is not None:
            channels = str(self.channels).lower()
            object.__setattr__(self, "channels", _SYNONYMS.get(channels, channels))
            if self.channels not in CHANNELS:
                raise unknown("order of channels", self.channels, CHANNELS)


NOTHING = Declaration()


def declared_record(path: str | os.PathLike, declaration: Declaration = NOTHING) -> Record:
    """The record of a model file, its own or one made from the file.

    An integer input without a declared normalization takes pixels as they are (int8: minus 128), as all common runtimes
    give them.

    Args:
        path: a `.tflite` or `.onnx` file.
        declaration: replaces what the file declares.

    Returns:
        The record; its `preprocessing` is None where the range of a float input is not known.

    Raises:
        InputError: the file cannot be read, or the declaration does not fit it.
    """
    path = Path(path)
    record = read_record(path)
    if record is None or not record.input.shape:
        found = _onnx_record(path) if path.suffix.lower() == ".onnx" else _tflite_record(path, declaration)
        record = found if record is None else _completed(record, found)
    elif declaration.fields:
        record = _replaced(record, declaration.fields)
    channels = record.input.shape[-1:]
    if declaration.channels is not None and channels != ((1,) if declaration.channels == "grey" else (3,)):
        raise InputError(f"the channels must be those of {path}, {channels}. Received: {declaration.channels}")
    if path.suffix.lower() == ".onnx" and declaration.fields:
        record = _replaced(record, declaration.fields)
    if declaration.labels is not None:
        outputs = int(np.prod(record.output.shape))
        without_background = outputs == BACKGROUND_OUTPUTS and len(declaration.labels) == outputs - 1
        check_labels(declaration.labels, outputs - 1 if without_background else outputs)
        record = dataclasses.replace(record, labels=declaration.labels)
    return record


def undeclared(received: object) -> InputError:
    """The error for files whose preprocessing is not known; it says how to give it."""
    return InputError(
        "preprocessing must be given for a file that does not declare it: mean and std, such that the input is "
        "(pixel - mean) / std (--mean 127.5 --std 127.5 for -1..1, --mean 0 --std 255 for 0..1, --mean 0 --std 1 for "
        f"pixels), and the rule of resizing (--resize). Received: {received}"
    )


def _completed(record: Record, found: Record) -> Record:
    """A record without shapes, with what was found in the file."""
    offset = found.input.pixel_offset if record.preprocessing is None else record.input.pixel_offset
    return dataclasses.replace(
        record,
        preprocessing=record.preprocessing or found.preprocessing,
        labels=record.labels or found.labels,
        input=dataclasses.replace(found.input, pixel_offset=offset),
        output=found.output,
    )


def _replaced(record: Record, fields: Mapping[str, Any]) -> Record:
    preprocessing = record.preprocessing or _central(record.input.shape)
    changed = dataclasses.replace(preprocessing, **fields)
    offset = record.input.pixel_offset
    if fields.keys() & {"mean", "std"}:
        offset = _pixel_offset(record.input, changed)
    return dataclasses.replace(
        record, preprocessing=changed, input=dataclasses.replace(record.input, pixel_offset=offset)
    )


def _central(shape: tuple[int, ...]) -> Preprocessing:
    """The central part of a photo, as MediaPipe and the Android app take it for files of other converters."""
    if len(shape) != 4:
        raise InputError(f"a model must take one image, (1, height, width, channels). Received: {shape}")
    return Preprocessing(shape[1], width=shape[2], channels=shape[3], interpolation="bilinear")


def _tflite_record(path: Path, declaration: Declaration) -> Record:
    content = path.read_bytes()
    graph = read_graph(path, content)
    if len(graph.inputs) != 1 or not graph.outputs:
        raise InputError(f"{path} must have one input. Received: {len(graph.inputs)}")
    require_stateless(graph, path)
    signature = graph.tensors[graph.inputs[0]].shapeSignature
    _check_size(path, () if signature is None else signature, "convert the model again with a fixed size")
    tensor = TensorRecord.of(graph, graph.inputs[0])
    if len(tensor.shape) == 3:  # a grey image without an axis of channels
        tensor = dataclasses.replace(tensor, shape=(*tensor.shape, 1))
    if len(tensor.shape) != 4 or tensor.shape[3] not in (1, 3):
        raise InputError(f"{path} must take one image, (1, height, width, 3) or 1. Received: {tensor.shape}")
    standard = read_standard(content, graph) or StandardMetadata()
    outputs = OutputRecord.of_outputs(graph, output_meaning(graph))
    record = Record(
        path.stem, format="tflite", input=InputRecord(**vars(tensor)), output=outputs, labels=standard.labels
    )
    preprocessing, fields = _central(tensor.shape), dict(declaration.fields)
    if standard.mean is not None and standard.std is not None:
        fields = {"mean": standard.mean, "std": standard.std, **fields}
    known = bool(fields.keys() & {"mean", "std"})
    if not known and tensor.dtype not in OFFSETS and not _takes_pixels(graph):
        return record
    if "rule" not in fields and standard.mean is None:
        _warn_of_crop(path)
    preprocessing = dataclasses.replace(preprocessing, **fields)
    offset = _pixel_offset(record.input, preprocessing) if known else OFFSETS.get(tensor.dtype)
    given = dataclasses.replace(record.input, pixel_offset=offset, takes_pixels=preprocessing.takes_pixels)
    return dataclasses.replace(record, preprocessing=preprocessing, input=given)


@functools.cache
def _warn_of_crop(path: Path) -> None:
    logger.warning("%s does not declare how photos are cropped: the central part is used", path)


def _takes_pixels(graph: Graph) -> bool:
    """Whether a float graph begins with a rescaling of pixels."""
    found = find_normalization(graph)
    return found is not None and 1 / 300 < found.scale < 1 / 20


def _pixel_offset(tensor: TensorRecord, preprocessing: Preprocessing) -> int | None:
    """The offset that is added to pixels where the normalization means it, or leaves the integers far behind."""
    offset = OFFSETS.get(tensor.dtype)
    if offset is None or tensor.scale is None or not tensor.scale:
        return offset
    pixels = np.array([0.0, 255.0])[:, None]
    stored = (pixels - np.array(preprocessing.mean)) / np.array(preprocessing.std) / tensor.scale
    stored = stored + (tensor.zero_point or 0)
    limits = np.iinfo(tensor.dtype)
    beyond = stored.min() < limits.min - CLIPPED_STEPS or stored.max() > limits.max + CLIPPED_STEPS
    return offset if beyond or np.abs(stored - (pixels + offset)).max() <= 0.5 else None


def _onnx_record(path: Path) -> Record:
    """The record of an ONNX file: the shapes of its tensors, and what its last node computes."""
    require("reading an ONNX file", "onnx")
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
        graph = model.graph
    except Exception as error:  # whatever protobuf raises on untrusted bytes
        raise InputError(f"{path} cannot be opened: {' '.join(str(error).split())[:200]}") from error
    own = next((entry.value for entry in model.metadata_props if entry.key == metadata.OWN_NAME.decode()), None)
    if own is not None:
        return Record.from_json(strict_json.parse(own, f"{path}: its metadata"), str(path))
    constants = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or not graph.output:
        raise InputError(f"{path} must have one input. Received: {len(inputs)}")
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in inputs[0].type.tensor_type.shape.dim]
    _check_size(
        path,
        sizes,
        f"set it by python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {inputs[0].name} --input_shape "
        f"1,3,224,224 {path.name} fixed.onnx",
    )
    shape, outputs = _onnx_shape(inputs[0]), _onnx_shape(graph.output[0])
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        shape = (shape[0], shape[2], shape[3], shape[1])
    shape = (*shape, 1) if len(shape) == 3 else shape  # a grey image without an axis of channels
    kind = _last_operator(graph)
    values = "probabilities" if kind in ("Softmax", "Sigmoid") else "logits"
    activation = SIGMOID if kind == "Sigmoid" or outputs[-1:] == (1,) else SOFTMAX
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type).name
    except KeyError as error:
        raise InputError(f"the input of {path} must be a tensor of numbers. Received: type {error}") from error
    given = InputRecord(inputs[0].name, shape, dtype)
    record = Record(
        path.stem,
        format="onnx",
        input=given,
        output=OutputRecord(graph.output[0].name, outputs, values=values, activation=activation),
    )
    if dtype != "uint8" or len(shape) != 4:
        return record
    return dataclasses.replace(  # it can only take pixels
        record, preprocessing=_central(shape), input=dataclasses.replace(given, pixel_offset=0, takes_pixels=True)
    )


def _check_size(path: Path, sizes: Sequence[int], remedy: str) -> None:
    """Raise InputError for an image of a free height, width or depth: -1 in `sizes`, behind the batch."""
    if len(sizes) > 2 and min(sizes[1:]) < 0:
        written = ", ".join("free" if size < 0 else str(size) for size in sizes)
        raise InputError(f"the input of {path} must have one size. Received: ({written}); {remedy}")


def _last_operator(graph: Any) -> str:
    """The operator that computes the output, quantization and changes of shape left out."""
    makers = {name: node for node in graph.node for name in node.output}
    last = makers.get(graph.output[0].name)
    for _ in graph.node:  # a broken graph may have a cycle
        if last is None or last.op_type not in _WITHOUT_MEANING:
            break
        last = makers.get(last.input[0]) if last.input else None
    return "" if last is None else last.op_type


def _onnx_shape(value: Any) -> tuple[int, ...]:
    """The dimensions of a tensor; a free one is 1."""
    return tuple(max(1, int(dim.dim_value)) for dim in value.type.tensor_type.shape.dim)
