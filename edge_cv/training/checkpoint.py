"""Checkpoints: everything that a training needs to go on to the same result, in one file that is only arrays."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.files import beside

if TYPE_CHECKING:
    import keras

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood.

    Attributes:
        arrays: the values of the variables, by group (`network`, `optimizer`, `metrics`), in their order.
        state: position, history and what else is no array; as JSON has it.
    """

    arrays: dict[str, list[np.ndarray]]
    state: dict[str, Any]


def values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of the variables' values, in memory of the host."""
    import keras

    tensors = (keras.ops.convert_to_tensor(variable) for variable in variables)  # of one replica, where there are more
    return [np.array(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


def restore(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray], where: str) -> None:
    """Give the variables these values.

    Raises:
        InputError: they are those of another model or optimizer; no variable is changed then.
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
        raise InputError(f"{where} must be a checkpoint of this model and its training. Received: {detail}")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def save(path: Path, arrays: Mapping[str, Sequence[np.ndarray]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place, then rename: a reader finds the old one or the new one, whole.

    Raises:
        InputError: it cannot be written, such as when the disk is full; the old one is untouched.
    """
    named = {f"{group}.{i}": array for group, every in arrays.items() for i, array in enumerate(every)}
    text = json.dumps({"format": FORMAT, **state}, allow_nan=False)
    try:
        with beside(path) as temporary, temporary.open("wb") as file:
            np.savez(file, state=np.frombuffer(text.encode(), np.uint8), **named)
            file.flush()
            os.fsync(file.fileno())
    except InputError as error:
        raise InputError(f"{error}; the checkpoint before it is kept") from error


def load(path: Path) -> Checkpoint | None:
    """The checkpoint in a file; None where there is none.

    Raises:
        InputError: the file is no checkpoint. Nothing in it is executed.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            state = json.loads(content["state"].tobytes())
            if state.pop("format") != FORMAT:
                raise ValueError("another format")
            arrays: dict[str, list[np.ndarray]] = {}
            for name in content.files:
                if name != "state":
                    group, number = name.split(".")
                    if int(number) != len(arrays.setdefault(group, [])):
                        raise ValueError(f"array {name} is out of order")
                    arrays[group].append(content[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path} must be a checkpoint of a training; remove it to start anew. Received: {error}"
        ) from error
    return Checkpoint(arrays, state)
