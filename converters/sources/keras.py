"""Keras models and whole-model files: Keras 3 and tf_keras models, `.keras` archives and `.h5` files.

A file may be untrusted: a Lambda layer, which holds Python code, is not run unless the caller allows it, and a file
that unpacks to far more than its size is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.native_logs import import_tensorflow
from converters.sources.source import (
    Source,
    check_input_shape,
    check_output_shape,
    chosen_output,
    default_preprocessing,
)

MAX_UNPACKED_RATIO = 50  # weights hardly compress: a file that unpacks to more is a decompression bomb


def load(path: str | os.PathLike, *, unsafe: bool = False) -> Any:
    """Load the Keras 3 model in a `.keras` or `.h5` file.

    Args:
        path: the file.
        unsafe: run the Python code in the file's Lambda layers. Only for files from a trusted author.

    Returns:
        The `keras.Model`, not compiled.

    Raises:
        InputError: the file is missing, of another kind or corrupt, or it needs code that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the model must be a file that exists. Received: {path}")
    if path.suffix == ".keras":
        _check_archive(path)
    elif path.suffix == ".h5":
        _check_hdf5(path, unsafe=unsafe)
    else:
        raise InputError(
            "a Keras model file must be a .keras archive or a whole model in an .h5 file (save it with "
            f"model.save('x.keras')). Received: {path}"
        )
    _require_tensorflow_backend()
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=not unsafe)
    except Exception as error:  # Keras raises whatever the file's content provokes
        text = str(error)
        if not unsafe and ("safe_mode" in text or "safe mode" in text):
            raise _holds_code(path) from error
        text = text.rpartition("Exception encountered:")[2].strip() or text.strip() or type(error).__name__
        raise InputError(f"{path} cannot be loaded as a Keras 3 model: {text.splitlines()[0][:200]}") from error


def open_keras_file(
    path: Path, *, unsafe: bool = False, input_size: tuple[int, int] | None = None, output: str | None = None
) -> Source:
    """The Source of a `.keras` or `.h5` file; its sidecar's preprocessing is used when the model declares none."""
    return open_keras_model(load(path, unsafe=unsafe), _sidecar_preprocessing(path), input_size, output)


def is_keras_model(model: Any) -> bool:
    """Whether the object is a Keras 3 or tf_keras model."""
    return any(base.__module__.split(".")[0] in ("keras", "tf_keras") for base in type(model).__mro__)


def open_keras_model(
    model: Any,
    sidecar: Preprocessing | None = None,
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
) -> Source:
    """The Source of a Keras 3 or tf_keras model.

    Args:
        model: the model.
        sidecar: its preprocessing, where the model itself declares none.
        input_size: `(height, width)`, where the model's are free.
        output: the name of the output to convert, where there are several.

    Raises:
        InputError: the model is not one image in and one row of classes out, or its weights are not finite.
    """
    if any(base.__module__.split(".")[0] == "keras" for base in type(model).__mro__):
        _require_tensorflow_backend()
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise InputError(
            "the model must be functional or a built Sequential, so that its input is known. "
            f"Received: {model.name!r}, a {type(model).__name__} without one"
        )
    at = chosen_output([tensor.name.split(":")[0] for tensor in inputs], output_names(model), output)
    shape = check_input_shape(inputs[0].shape, input_size)
    check_output_shape(outputs[at].shape)
    structure = getattr(model, "input", None)  # a Sequential that was not called yet has none
    name = next(iter(structure)) if isinstance(structure, dict) else inputs[0].name.split(":")[0]

    def call(images: Any) -> Any:
        import tensorflow as tf

        images = tf.reshape(images, (-1, *shape.images[:2])) if shape.without_channels else images
        return tf.nest.flatten(model({name: images} if isinstance(structure, dict) else images, training=False))[at]

    preprocessing = getattr(model, "preprocessing", None) or sidecar
    if not isinstance(preprocessing, Preprocessing):
        preprocessing = default_preprocessing(name, shape.images)
    return Source(
        name=model.name,
        digest=_digest(model, shape.images, at),
        input_name=name,
        input_shape=shape.images,
        preprocessing=preprocessing,
        call=call,
        batched=shape.batch is None,
        variables=tuple(getattr(v, "value", v) for v in model.variables),
        takes_integers="int" in str(inputs[0].dtype),
    )


def output_names(model: Any) -> list[str]:
    """The names of a model's outputs in the order of `model.outputs`: a dictionary's keys, else the layers' names."""
    structure = getattr(model, "output", None) if len(model.outputs) > 1 else None
    if isinstance(structure, dict) and len(structure) == len(model.outputs):
        return sorted(structure)  # the order in which a dictionary is flattened
    names = [tensor._keras_history[0].name for tensor in model.outputs]
    return names if len(set(names)) == len(names) else [f"{name}_{nth}" for nth, name in enumerate(names)]


def _holds_code(path: Path) -> InputError:
    return InputError(
        f"{path} holds a Lambda layer, which is Python code in the file; it runs only if you trust the author and "
        "allow it with converters.load(path, unsafe=True)"
    )


def _check_archive(path: Path) -> None:
    """Raise InputError when the file is not a `.keras` archive, or a decompression bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a .keras archive, or is corrupt ({error})") from error
    if not {"config.json", "metadata.json"} <= names:
        raise InputError(f"{path} is not a .keras archive: it must hold config.json and metadata.json")
    _check_unpacked(path, unpacked)


def _check_unpacked(path: Path, unpacked: int) -> None:
    if unpacked > MAX_UNPACKED_RATIO * path.stat().st_size:
        raise InputError(f"{path} unpacks to {unpacked} bytes, over {MAX_UNPACKED_RATIO} times its size: refused")


def _check_hdf5(path: Path, *, unsafe: bool) -> None:
    """Raise InputError when the file is not a whole model, reads other files, or holds code that is not allowed."""
    import h5py

    sizes: list[int] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise InputError(f"{path} refers to data in other files ({name}), and is not read")
            sizes.append(item.nbytes)

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise InputError(
                    f"an .h5 file must hold a whole model, as model.save writes it, not weights alone. Received: {path}"
                )
            config = json.loads(text)
            file.visititems(visit)
    except InputError:
        raise
    except Exception as error:  # HDF5 and JSON raise whatever the bytes provoke
        raise InputError(f"{path} is not an HDF5 file of a Keras model, or is corrupt") from error
    _check_unpacked(path, sum(sizes))
    if not unsafe and any("ambda" in name for name in _class_names(config)):
        raise _holds_code(path)


def _class_names(config: Any) -> Iterator[str]:
    """Every `class_name` in a model's configuration."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield str(value.get("class_name"))
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _require_tensorflow_backend() -> None:
    if "keras" not in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "conversion needs Keras's TensorFlow backend: save the model and convert the .keras file with "
            f"KERAS_BACKEND=tensorflow. Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def _sidecar_preprocessing(path: Path) -> Preprocessing | None:
    try:
        return Preprocessing.from_dict(json.loads(path.with_suffix(".json").read_text())["preprocessing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(model: Any, shape: tuple[int, int, int], output: int) -> str:
    """SHA-256 of the architecture and the weights; InputError when a weight is NaN or infinite."""
    digest = hashlib.sha256(_architecture(model))
    if None in tuple(model.inputs[0].shape)[1:3] or output:  # what the architecture leaves open
        digest.update(json.dumps([shape, output]).encode())
    for weight in model.get_weights():
        if not np.isfinite(weight).all():
            raise InputError(f"the model's weights must be finite. Received: {model.name!r} with NaN or infinity")
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _architecture(model: Any) -> bytes:
    """What distinguishes the model from another with the same weights."""
    try:
        return json.dumps(model.get_config(), sort_keys=True, default=str).encode()
    except NotImplementedError:  # a custom layer without get_config: the model equals no other
        return os.urandom(32)
