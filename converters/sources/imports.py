"""Layers of a user's own: a Python file whose classes and functions the model files may name."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.sources.tensorflow_backend import require_tensorflow_backend

_imported: dict[Path, bytes] = {}


def import_layers(path: str | os.PathLike) -> tuple[str, ...]:
    """Run a Python file of the caller's own, and register its classes and functions for model files that name them.

    Args:
        path: the file, such as `my_layers.py`. Its code is run: only for files that you trust.

    Returns:
        The names of its classes and functions.

    Raises:
        InputError: the file is missing, cannot be run, or defines neither a class nor a function.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"the file to import must be a Python file that exists. Received: {path}")
    require_tensorflow_backend()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"the file to import must be a Python file. Received: {path}")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.absolute())
    sys.path.insert(0, folder)  # it may import files beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file's own code raises whatever it likes
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"{path} cannot be imported: {type(error).__name__}: {reason}") from error
    finally:
        sys.path.remove(folder)
    found = {
        name: value
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    }
    if not found:
        raise InputError(f"the file to import must define the model's layers. Received: {path} without a class")
    _register(found)
    _imported[path.absolute()] = path.read_bytes()
    return tuple(found)


def imported_digest() -> bytes:
    """The SHA-256 of all files that were imported; empty where none was."""
    return hashlib.sha256(b"".join(_imported.values())).digest() if _imported else b""


def _register(found: dict[str, Any]) -> None:
    """Register with Keras 3, or with tf_keras what derives from it."""
    import keras

    legacy = {name: value for name, value in found.items() if inspect.isclass(value) and _is_tf_keras(value)}
    keras.saving.get_custom_objects().update({name: value for name, value in found.items() if name not in legacy})
    if legacy:
        import tf_keras

        functions = {name: value for name, value in found.items() if inspect.isfunction(value)}
        tf_keras.saving.get_custom_objects().update(legacy | functions)


def _is_tf_keras(kind: type) -> bool:
    return any(base.__module__.split(".")[0] == "tf_keras" for base in kind.__mro__)
