"""The models that can be converted, each opened as one kind of value, a `Source`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.sources.imports import import_layers
from converters.sources.keras import is_keras_model, open_keras_file, open_keras_model, single_image_model
from converters.sources.keras_files import load
from converters.sources.saved_model import open_saved_model
from converters.sources.source import PIXELS_INPUT, Source, parse_input_size
from converters.sources.tflite import open_tflite

__all__ = ["PIXELS_INPUT", "Source", "import_layers", "load", "open_source", "parse_input_size", "single_image_model"]


def open_source(
    model: Any,
    *,
    unsafe: bool = False,
    input_size: int | str | tuple[int, ...] | None = None,
    output: str | None = None,
) -> Source:
    """The Source of a model.

    Args:
        model: a Keras 3 or tf_keras model, or the path of a `.keras`, `.h5` or float `.tflite` file or of a
            SavedModel folder.
        unsafe: run the Python code in a file's Lambda layers, and whatever operations a SavedModel holds. Only for
            models from a trusted author.
        input_size: height and width for a model whose input has no fixed size: one number, `(height, width)` or
            `"HEIGHTxWIDTH"`.
        output: the name of the output to convert, for a model with several.

    Raises:
        InputError: the model is missing, corrupt or unsafe, or not one image in and one row of classes out.
    """
    size = parse_input_size(input_size)
    if isinstance(model, Source):
        return model
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if path.is_dir():
            return open_saved_model(path, size, output, unsafe=unsafe)
        if path.suffix == ".tflite":
            return open_tflite(path, size, output)
        return open_keras_file(path, unsafe=unsafe, input_size=size, output=output)
    if is_keras_model(model):
        return open_keras_model(model, input_size=size, output=output)
    raise InputError(
        "a model must be a Keras model or the path of a .keras, .h5 or .tflite file or of a SavedModel. "
        f"Received: {type(model).__name__}"
    )
