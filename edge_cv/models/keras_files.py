"""Reads files of Keras weights: those of keras.applications, and a user's `.keras` or `.weights.h5` file.

Only arrays are read. The configuration in a `.keras` file is ignored, so no Lambda or custom class in it is created.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.sources.keras_storage import HDF5_SUFFIXES, check_arrays
from edge_cv.models.weight_layouts import HEAD, assign_keras, clear_head

if TYPE_CHECKING:
    import h5py
    import keras

log = logging.getLogger(__name__)


def read_keras(path: str | os.PathLike) -> list[tuple[str, list[np.ndarray]]]:
    """Read a file in Keras's old HDF5 format, in which keras.applications publishes weights.

    The file has one group per layer, in the network's order, which the attribute `layer_names` stores. The order alone
    identifies the layers, because their names depend on the version of Keras.

    Args:
        path: the file.

    Returns:
        Name and arrays of each layer that has weights, in the file's order.

    Raises:
        InputError: if the file cannot be read or is of another format.
    """
    import h5py

    def strings(group: h5py.Group, key: str) -> list[str]:
        """The strings of an attribute. A long list is divided into `key0`, `key1` and so on."""
        names = group.attrs.get(key)
        if names is None:
            parts = itertools.takewhile(group.attrs.__contains__, (f"{key}{number}" for number in itertools.count()))
            names = [name for part in parts for name in group.attrs[part]]
            if not names:
                raise ValueError(f"no {key}")
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            layers = []
            for name in strings(root, "layer_names"):
                arrays = [np.asarray(root[name][array]) for array in strings(root[name], "weight_names")]
                if arrays:
                    layers.append((name, arrays))
            return layers
    except Exception as error:  # h5py raises many types
        raise InputError(
            f"{path} must be a file of weights as keras.applications publishes them. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def check_path(path: str | os.PathLike) -> Path:
    """The path of a file of weights. Raises InputError if it is missing or of another type."""
    path = Path(path)
    if path.suffix not in (".keras", *HDF5_SUFFIXES):
        raise InputError(
            f'weights must be None, "imagenet" or the path of a .keras, .weights.h5 or .h5 file. Received: {path}'
        )
    if not path.is_file():
        raise InputError(f"weights must be an existing file. Received: {path}")
    return path


def load_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Load the weights of a `.keras`, `.weights.h5` or `.h5` file of the same architecture into a model.

    If the head in the file has another size, the model's head starts at zeros and a warning is logged.

    Args:
        model: the model.
        path: the file.

    Raises:
        InputError: if the file is missing, of another type, damaged, or of another architecture.
    """
    path = check_path(path)
    try:
        check_arrays(path)
        if _is_legacy(path):
            assign_keras(model, read_keras(path), head=True)
            return
        arrays = _count_arrays(path)
        if arrays != len(model.weights):
            raise ValueError(f"{arrays} arrays; {model.name} has {len(model.weights)}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            other_head = not _load_all(model, path)
        skipped = [str(warning.message) for warning in caught if warning.category is UserWarning]
        if skipped and not other_head:  # Keras only warns about layers that keep their random weights
            raise ValueError(skipped[0])
    except Exception as error:  # zipfile, h5py and Keras raise many types
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} must contain the weights of {model.name}. Received: {reason}") from error
    if other_head:
        clear_head(model)
        log.warning(
            "%s: weights loaded from %s without the head, which has another size in the file; the layer %r of %d "
            "classes starts at zeros",
            model.name,
            path,
            HEAD,
            model.output_shape[-1],
        )


def count_classes(path: str | os.PathLike) -> int:
    """The number of classes of the model whose weights a `.weights.h5` or `.h5` file holds: its last layer's outputs.

    Raises:
        InputError: if the file is missing, damaged or of another format.
    """
    import h5py

    path = Path(path)
    if path.suffix not in HDF5_SUFFIXES or not path.is_file():
        raise InputError(f"weights must be an existing .weights.h5 or .h5 file. Received: {path}")
    check_arrays(path)
    if _is_legacy(path):
        return int(read_keras(path)[-1][1][-1].shape[-1])
    heads: list[tuple[int, int]] = []  # place among the dense layers, outputs

    def visit(name: str, item: Any) -> None:
        found = re.fullmatch(r"layers/dense(?:_(\d+))?/vars", name)
        if found and isinstance(item, h5py.Group) and len(item):
            named = item.attrs.get("name") == HEAD
            heads.append((1 << 60 if named else int(found[1] or 0), int(item["0"].shape[-1])))

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    if not heads:
        raise InputError(f"weights must include a dense layer at the end. Received: {path} without one")
    return max(heads)[1]


def _is_legacy(path: Path) -> bool:
    """Whether an HDF5 file has one group for each layer, as Keras 2 and whole models have it."""
    import h5py

    if path.suffix not in HDF5_SUFFIXES:
        return False
    with h5py.File(path, "r") as file:
        return any(key.startswith("layer_names") for key in file.get("model_weights", file).attrs)


def _load_all(model: keras.Model, path: Path) -> bool:
    """Load every layer. Returns False if only the head does not fit; raises ValueError if other layers do not."""
    try:
        model.load_weights(path)
    except ValueError as error:  # raised after loading the layers that fit; its last line lists the others
        if str(error).splitlines()[-1] != f"[{model.get_layer(HEAD)}]":
            raise
        return False
    return True


def _count_arrays(path: Path) -> int:
    """The number of arrays in a file. Keras itself does not detect unused ones."""
    import h5py

    def count(file: Any) -> int:
        with h5py.File(file, "r") as stored:
            names: list[str] = []
            stored.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return sum(name.startswith("layers/") and "/seed_generator/" not in name for name in names)

    if path.suffix != ".keras":
        return count(path)
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
        return count(io.BytesIO(member.read()))
