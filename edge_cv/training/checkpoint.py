"""Checkpoints: the variables and the state from which a training resumes exactly, in one `.npz` file of arrays."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.files import beside, write_atomic

if TYPE_CHECKING:
    import keras

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        arrays: the values of the variables by group (`network`, `optimizer`, `metrics`), in the variables' order.
        state: position, history and everything else that is not an array, as JSON values.
    """

    arrays: dict[str, list[np.ndarray]]
    state: dict[str, Any]


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of the variables' values in host memory."""
    import keras

    tensors = (keras.ops.convert_to_tensor(variable) for variable in variables)  # of the first replica
    return [np.array(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def restore(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray], where: str) -> None:
    """Assign values to variables.

    Args:
        variables: of a model, an optimizer or metrics.
        arrays: one value per variable, in the same order.
        where: the values' source, for messages.

    Raises:
        InputError: if number or shapes differ; no variable is changed then.
    """
    wanted = [tuple(variable.shape) for variable in variables]
    received = [array.shape for array in arrays]
    if wanted != received:
        place = next((i for i, (a, b) in enumerate(zip(wanted, received, strict=False)) if a != b), None)
        detail = (
            f"{len(received)} arrays for {len(wanted)} variables"
            if place is None
            else f"{received[place]} for {variables[place].path} {wanted[place]}"
        )
        raise InputError(f"{where} must fit the model and its optimizer. Received: {detail}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def save(path: Path, arrays: Mapping[str, Sequence[np.ndarray]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint to a temporary file, then rename it: a reader finds the previous or the new one, complete.

    Args:
        path: the checkpoint's file.
        arrays: values by group.
        state: everything else, as JSON values.

    Raises:
        InputError: if it cannot be written, for example to a full disk; the previous checkpoint is kept.
    """
    text = json.dumps({"format": FORMAT, **state}, allow_nan=False)
    named: dict[str, np.ndarray] = {"state": np.frombuffer(text.encode(), np.uint8)}
    named |= {f"{group}.{i}": array for group, every in arrays.items() for i, array in enumerate(every)}
    try:
        with beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **named)
            file.flush()
            os.fsync(file.fileno())
    except InputError as error:
        raise InputError(f"{error}; the previous checkpoint is kept") from error


def save_weights(path: Path, network: keras.Model) -> None:
    """Write `.weights.h5`, as `network.save_weights` does.

    The file is made in memory, because HDF5 ends the process with SIGSEGV where the disk is full.

    Raises:
        InputError: if it cannot be written; an earlier file is kept.
    """
    from keras.src.saving import saving_lib

    stream = io.BytesIO()
    store = saving_lib.H5IOStore(stream, mode="w")
    saving_lib._save_state(network, weights_store=store, assets_store=None, inner_path="", visited_saveables=set())
    store.close()
    write_atomic(path, stream.getvalue())


def load(path: Path) -> Checkpoint | None:
    """Read a checkpoint. Nothing in the file is executed.

    Returns:
        The checkpoint, or None if the file does not exist.

    Raises:
        InputError: if the file is not a checkpoint.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            state = dict(json.loads(content["state"].tobytes()))
            if state.pop("format") != FORMAT:
                raise ValueError("an unknown format version")
            arrays: dict[str, list[np.ndarray]] = {}
            for name in content.files:
                if name != "state":
                    group, number = name.split(".")
                    if int(number) != len(arrays.setdefault(group, [])):
                        raise ValueError(f"array {name} is out of order")
                    arrays[group].append(content[name])
    except Exception as error:  # numpy, zipfile and json raise many types
        raise _broken(path, error) from error
    return Checkpoint(arrays, state)


def _broken(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"{path} must be a checkpoint of a training; delete {path.parent} to start over. Received: {reason}"
    )
