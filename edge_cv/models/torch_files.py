"""Reads torch's files of weights without torch. Nothing in a file is executed.

Both formats store a state dictionary: tensors by name, each a view of a storage that a persistent id names.

- The legacy format has five pickles (magic number, protocol, system, state, storage keys), then each storage: its
  length as int64 and its raw elements.
- The newer format is a zip archive without compression, with the state in NAME/data.pkl and the raw elements of each
  storage in NAME/data/KEY.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from converters.errors import InputError
from converters.files import open_regular

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _StateUnpickler(pickle._Unpickler):
    """Unpickles plain values and descriptions of tensors. Every other global or instruction is refused.

    It is based on the pure-Python Unpickler, whose table of instructions can be reduced and which does not allocate
    memory at a hostile file's request. That is fast enough, because the pickles do not contain the arrays.
    """

    # fmt: off
    _INSTRUCTIONS = (
        pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK
        + pickle.MEMOIZE + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET
        + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
        + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1
        + pickle.BINUNICODE + pickle.SHORT_BINUNICODE
        + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
        + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS
        + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS
        + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.INST + pickle.REDUCE + pickle.BUILD + pickle.BINPERSID
    )
    # fmt: on
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: pickle._Unpickler.dispatch[code] for code in _INSTRUCTIONS
    }
    # BUILD sets attributes on an object (torch's `_metadata`). They are not needed and could do harm: ignore them.
    dispatch[pickle.BUILD[0]] = lambda self: self.stack.pop()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise InputError(
            f"a file of weights must contain only arrays. Received: the global {module}.{name}; not executed"
        )

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, length, *view = identity  # only the legacy format has views, and torch never wrote any
        if (
            kind != "storage"
            or not isinstance(dtype, np.dtype)
            or not isinstance(length, int)
            or view not in ([], [None])
        ):
            raise ValueError(f"persistent id {identity!r}")
        return _Storage(key, dtype, length)


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a torch state dictionary.

    Args:
        path: a file in one of torch's two formats.

    Returns:
        Read-only float32 or int64 arrays by name, in torch's layout: `(outputs, inputs, height, width)` for a
        convolution.

    Raises:
        InputError: if the file cannot be read, is truncated or of another format, or refers to a forbidden global.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _parse_zip(content) if content.startswith(b"PK") else _parse_legacy(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a crafted pickle can raise any exception
        raise InputError(
            f"{path} must be a complete state dictionary in a format of torch. Received: "
            f"{type(error).__name__}: {error}"
        ) from error


def _parse_legacy(content: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(content)

    def load() -> Any:
        return _StateUnpickler(stream).load()

    magic, protocol, _system = load(), load(), load()
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError(f"magic number {magic!r}, protocol {protocol!r}")
    state, keys = _tensors(load()), load()
    declared = {tensor.storage.key: tensor.storage for tensor in state.values()}
    storages = {}
    for key in keys:
        (length,) = struct.unpack("<q", stream.read(8))
        storage = declared[key]
        if length != storage.length or length < 0:
            raise ValueError(f"storage {key}: {length} elements where {storage.length} were declared")
        if stream.tell() + length * storage.dtype.itemsize > len(content):
            raise ValueError(f"storage {key}: truncated")
        storages[key] = np.frombuffer(content, storage.dtype, length, stream.tell())
        stream.seek(length * storage.dtype.itemsize, os.SEEK_CUR)
    return {name: _view(storages[tensor.storage.key], tensor) for name, tensor in state.items()}


def _parse_zip(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (pickled,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
        root = pickled.removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("a compressed entry; torch writes uncompressed ones")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("a byte order other than little-endian")
        state = _tensors(_StateUnpickler(io.BytesIO(archive.read(pickled))).load())
        storages = {}
        for storage in {tensor.storage for tensor in state.values()}:
            raw = archive.read(f"{root}data/{storage.key}")
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key}: {len(raw)} bytes for {storage.length} elements")
            storages[storage] = np.frombuffer(raw, storage.dtype)
    return {name: _view(storages[tensor.storage], tensor) for name, tensor in state.items()}


def _tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("not a dictionary of tensors")
    return state


def _view(elements: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor as a view of its storage. Raises ValueError if it exceeds the storage."""
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or last >= len(elements) or math.prod(shape) > len(elements):
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} exceeds its storage of {len(elements)} elements"
        )
    byte_strides = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], shape, byte_strides, writeable=False)
