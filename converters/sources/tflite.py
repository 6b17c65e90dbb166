"""Float `.tflite` files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.files import open_regular
from converters.images.preprocessing import Preprocessing
from converters.sources.channels_last import has_channels_first, with_channels_last
from converters.sources.single_image import (
    keep_output,
    of_one_image,
    output_names,
    with_channels_axis,
    with_float_input,
)
from converters.sources.source import (
    Source,
    check_input_shape,
    check_output_shape,
    chosen_output,
    default_preprocessing,
)
from converters.tflite.channels import CHANNELS_NAME
from converters.tflite.fake_quant import rounded_tensors
from converters.tflite.graph import Graph, count_operators
from converters.tflite.metadata import OWN_NAME, STANDARD_NAME, read_embedded
from converters.tflite.runtime import interpreter
from converters.tflite.standard_metadata import StandardMetadata, read_standard
from converters.tflite.state import require_stateless
from converters.tflite.trial import try_once


def open_tflite(path: Path, input_size: tuple[int, int] | None = None, output: str | None = None) -> Source:
    """The Source of a float32 TFLite file.

    Args:
        path: the file.
        input_size: `(height, width)`, where the model's are free.
        output: the name of the output to convert, where there are several.

    Raises:
        InputError: the file is missing, corrupt or quantized, or not one image in and one row of classes out.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"the model must be a file that exists. Received: {path}") from error
    try:
        graph, record = Graph(content), read_embedded(content) or {}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    inputs = [graph.name(tensor) for tensor in graph.inputs]
    keep_output(graph, graph.outputs[chosen_output(inputs, output_names(graph), output)])
    takes_integers = with_float_input(graph)
    _require_float(graph, path)
    require_stateless(graph, path)
    if has_channels_first(graph):
        with_channels_last(graph)
    declared = graph.tensors[graph.inputs[0]].shapeSignature
    shape = check_input_shape(graph.shape(graph.inputs[0]) if declared is None else declared, input_size)
    graph = of_one_image(graph, shape)
    check_output_shape(graph.shape(graph.outputs[0]))
    name = graph.name(graph.inputs[0]) or "image"
    if shape.without_channels:
        with_channels_axis(graph)
    fields, standard = record.get("preprocessing"), None if record else read_standard(content, graph)
    for entry in (STANDARD_NAME, OWN_NAME, CHANNELS_NAME):
        graph.remove_metadata(entry)
    content = graph.to_bytes()  # without labels and metadata
    try_once(content)
    at = interpreter(content)
    given, made = at.get_input_details()[0]["index"], at.get_output_details()[0]["index"]

    def call(images: np.ndarray) -> np.ndarray:
        at.set_tensor(given, images)
        at.invoke()
        return at.get_tensor(made)

    return Source(
        name=str(record.get("name") or path.stem),
        digest=hashlib.sha256(content).hexdigest(),
        input_name=name,
        input_shape=shape.images,
        preprocessing=Preprocessing.from_dict(fields) if fields else _undeclared(name, shape.images, standard),
        call=call,
        batched=False,
        tflite=content,
        takes_integers=takes_integers,
    )


def _undeclared(name: str, shape: tuple[int, int, int], standard: StandardMetadata | None) -> Preprocessing | None:
    """The preprocessing of a file without a record: by its standard metadata, or by its input's name."""
    if standard is None or standard.mean is None or standard.std is None:
        return default_preprocessing(name, shape)
    height, width, channels = shape
    mean, std = standard.mean, standard.std
    return Preprocessing(height, width=width, channels=channels, interpolation="bilinear", mean=mean, std=std)


def _require_float(graph: Graph, path: Path) -> None:
    """Raise InputError unless the model computes in float32 throughout; fake quantization is allowed."""
    fake = rounded_tensors(graph)
    types = {graph.dtype(tensor) for tensor in range(len(graph.tensors)) if tensor not in fake}
    quantized = [t for t in range(len(graph.tensors)) if graph.quantization(t) is not None and t not in fake]
    if quantized or types & {np.dtype(kind) for kind in (np.int8, np.uint8, np.int16, np.float16)}:
        raise InputError(
            f"a TFLite file must be float32 to be converted. Received: {path}, which is quantized: {_kind(graph)}; "
            "convert the float model instead"
        )
    for tensor in range(len(graph.tensors)):
        values = graph.constant(tensor) if graph.dtype(tensor) == np.float32 else None
        if values is not None and not np.isfinite(values).all():
            raise InputError(f"the model's weights must be finite. Received: {path} with NaN or infinity")


def _kind(graph: Graph) -> str:
    """How a file is quantized, in words."""
    integer, total = count_operators(graph)
    types = {graph.dtype(t) for t in range(len(graph.tensors)) if graph.constant(t) is not None}
    if np.dtype(np.float16) in types:
        return "float16 weights"
    bits = "int16 activations and int8 weights" if np.dtype(np.int16) in types else "int8 weights and activations"
    computing = sum(operator.name not in ("QUANTIZE", "DEQUANTIZE") for operator in graph.operators())
    if not integer:
        return "int8 weights and float activations (dynamic range)"
    return bits if integer >= computing else f"partly, {integer} of {total} operators are integer"
