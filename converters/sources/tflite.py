"""Float `.tflite` files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.sources.source import Source, check_input_shape, check_output_shape, default_preprocessing
from converters.tflite.channels import CHANNELS_NAME
from converters.tflite.graph import Graph
from converters.tflite.metadata import OWN_NAME, STANDARD_NAME, read_embedded
from converters.tflite.runtime import interpreter


def open_tflite(path: Path) -> Source:
    """The Source of a float32 TFLite file.

    Raises:
        InputError: the file is missing, corrupt or quantized, or not one RGB image in and one row of classes out.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the model must be a file that exists. Received: {path}") from error
    try:
        graph, record = Graph(content), read_embedded(content) or {}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(
            "the model must have one input and one output. Received: "
            f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        )
    _require_float(graph, path)
    shape = check_input_shape(graph.shape(graph.inputs[0]))
    check_output_shape(graph.shape(graph.outputs[0]))
    name = graph.name(graph.inputs[0]) or "image"
    fields = record.get("preprocessing")
    for entry in (STANDARD_NAME, OWN_NAME, CHANNELS_NAME):
        graph.remove_metadata(entry)
    content = graph.to_bytes()  # without labels and metadata
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
        input_shape=shape,
        preprocessing=Preprocessing.from_dict(fields) if fields else default_preprocessing(name, shape),
        call=call,
        batched=False,
        tflite=content,
    )


def _require_float(graph: Graph, path: Path) -> None:
    """Raise InputError unless the model is float32 throughout."""
    for tensor in range(len(graph.tensors)):
        dtype = graph.dtype(tensor)
        if graph.quantization(tensor) is not None or dtype in (np.int8, np.uint8, np.int16, np.float16):
            raise InputError(
                f"a TFLite file must be float32 to be converted. Received: {path}, which is quantized "
                f"({graph.name(tensor)!r} is {dtype}); convert the float model instead"
            )
        values = graph.constant(tensor) if dtype == np.float32 else None
        if values is not None and not np.isfinite(values).all():
            raise InputError(f"the model's weights must be finite. Received: {path} with NaN or infinity")
