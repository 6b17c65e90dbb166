"""Seeded changes of model files, field by field: flatbuffers, protocol buffers, Keras archives and HDF5."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mutations import damaged, mutated, written

# Lengths, indices and codes that a reader may not expect.
NUMBERS = (-(2**31), -2, -1, 0, 1, 2, 3, 7, 8, 16, 100, 127, 255, 1000, 20_000, 2**16, 10**7, 2**30, 2**31 - 1)
SCALARS = (0.0, -1.0, 1.0, 0.5, 1e-45, 1e-9, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
_ATTRIBUTE_BYTES = 60_000  # HDF5 holds no attribute above 64 KiB
TEXTS = (
    b"",
    b"\xff\xfe\xe9",
    b"a b",
    b"_a",
    b"a/b",
    b"\0",
    b"x" * 5000,
    "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
)


def changed_tflite(content: bytes, rng: random.Random) -> bytes:
    """A TFLite file with one to three fields changed, or with damaged bytes."""
    from ai_edge_litert import schema_py_generated as schema

    if rng.random() < 0.2:
        return content[:8] + damaged(content[8:], rng)
    while True:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change_field(*rng.choice(list(_fields(model))), rng)
        try:
            return _packed(model)
        except Exception:  # what the generated code cannot write
            continue


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _fields(table: Any) -> Iterator[tuple[Any, str]]:
    """Each table of a model with the name of a field, the tables inside it too."""
    for name, value in vars(table).items():
        yield table, name
        for part in value if isinstance(value, list) else [value]:
            if hasattr(part, "Pack"):
                yield from _fields(part)


def _change_field(table: Any, name: str, rng: random.Random) -> None:
    value = getattr(table, name)
    if rng.random() < 0.1:
        value = None
    elif isinstance(value, np.ndarray):
        value = _changed_array(value, rng)
    elif isinstance(value, bytes):
        value = rng.choice((*TEXTS, damaged(value, rng)))
    elif isinstance(value, list) and value:
        value = _changed_list(value, rng)
    elif isinstance(value, float):
        value = rng.choice(SCALARS)
    elif isinstance(value, int):
        value = rng.choice((*NUMBERS, value + 1, value - 1))
    setattr(table, name, value)


def _changed_array(values: np.ndarray, rng: random.Random) -> np.ndarray:
    kind, values = rng.randrange(4), values.copy()
    if kind == 0:
        return values[: rng.randint(0, len(values))]
    if kind == 1:
        return np.concatenate([values, values[: rng.choice((1, 5))]])
    if len(values):
        chosen = rng.choice(SCALARS) if values.dtype.kind == "f" else rng.choice(NUMBERS)
        with np.errstate(all="ignore"):
            values[rng.randrange(len(values)) :: rng.choice((1, 1000))] = np.array(chosen).astype(values.dtype)
    return values


def _changed_list(values: list[Any], rng: random.Random) -> list[Any]:
    values, at = list(values), rng.randrange(len(values))
    kind = rng.randrange(4)
    if kind == 0:
        del values[at]
    elif kind == 1:
        values.insert(at, rng.choice(values))
    elif kind == 2:
        values.reverse()
    else:
        values[at] = rng.choice(values)
    return values


def changed_message(message: Any, rng: random.Random) -> None:
    """Change one to three fields of a protocol buffer, in place."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(message))
        if places:
            _change_place(*rng.choice(places), rng)


def _places(message: Any) -> Iterator[tuple[Any, Any]]:
    """Each set field of a message and of those inside it; three of a repeated one are enough."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = list(value.values()) if hasattr(value, "values") else []
        else:
            inner = list(value)[-3:] if hasattr(value, "extend") else [value]
        for part in inner:
            if hasattr(part, "ListFields"):
                yield from _places(part)


def _change_place(message: Any, field: Any, rng: random.Random) -> None:
    value = getattr(message, field.name)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        del value[rng.choice(list(value))]
    elif hasattr(value, "extend"):
        _change_repeated(value, field, rng)
    elif field.message_type is None:
        setattr(message, field.name, _fitting(field, value, rng))


def _change_repeated(values: Any, field: Any, rng: random.Random) -> None:
    at, kind = rng.randrange(len(values)), rng.randrange(3)
    if kind == 0:
        del values[at]
    elif kind == 1:
        values.append(values[at])
    elif field.message_type is None:
        values[at] = _fitting(field, values[at], rng)


def _fitting(field: Any, value: Any, rng: random.Random) -> Any:
    """Another value that the field can hold."""
    if field.enum_type is not None:
        return rng.choice(list(field.enum_type.values_by_number))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
        return abs(rng.choice(NUMBERS)) if unsigned else max(-(2**31) + 1, rng.choice((*NUMBERS, -value)))
    if isinstance(value, float):
        return rng.choice(SCALARS)
    if isinstance(value, bytes):
        return rng.choice((b"", damaged(value[:10_000], rng)))
    return rng.choice(("", "a", "\N{LATIN SMALL LETTER E WITH ACUTE}", "a/b", "x" * 2000, f"{value}_1", value.upper()))


def changed_archive(content: bytes, rng: random.Random) -> bytes:
    """A `.keras` archive with a changed configuration or weights, or with damaged bytes."""
    if rng.random() < 0.1:
        return damaged(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    kind = rng.random()
    if kind < 0.75:
        parts["config.json"] = changed_config(parts["config.json"], rng)
    elif kind < 0.95:
        parts["model.weights.h5"] = changed_arrays(parts["model.weights.h5"], rng)
    else:
        parts["metadata.json"] = changed_config(parts["metadata.json"], rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


def changed_config(text: bytes | str, rng: random.Random) -> bytes:
    """A Keras configuration with one to three changes: numbers and names of layers, or anything at all."""
    config = json.loads(text)
    if rng.random() < 0.5:
        return written(mutated(config, rng)).encode(errors="surrogatepass")
    for _ in range(rng.choice((1, 1, 2))):
        parent, key = rng.choice(list(_leaves(config)))
        number = isinstance(parent[key], int | float) and not isinstance(parent[key], bool)
        parent[key] = rng.choice(NUMBERS) if number else rng.choice(TEXTS).decode(errors="replace")
    return json.dumps(config).encode()


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(part, dict | list):
            yield from _leaves(part)
        elif part is not None:
            yield value, key


def changed_arrays(content: bytes, rng: random.Random) -> bytes:
    """An HDF5 file with one to three arrays, groups or attributes changed, or with damaged bytes."""
    import h5py

    if rng.random() < 0.3:
        return damaged(content, rng)
    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        for _ in range(rng.choice((1, 1, 2))):
            names: list[str] = []
            file.visit(names.append)
            if names:
                rng.choice(_CHANGES)(file, rng.choice(names), rng)
    return stream.getvalue()


def _replace(file: Any, name: str, value: Any) -> None:
    del file[name]
    file[name] = value


def _attributes(file: Any, name: str, rng: random.Random) -> None:
    attributes = file[name].attrs if len(file[name].attrs) else file.attrs
    for key in list(attributes)[:2]:
        attributes[key] = rng.choice((np.zeros(3), b"\xff", "a", np.array([b"x"] * 2), 7))


def _large(file: Any, name: str, rng: random.Random) -> None:
    del file[name]
    file.create_dataset(name, (60_000, 60_000), "f4", chunks=(1000, 1000), compression="gzip")


_CHANGES: tuple[Callable[[Any, str, random.Random], None], ...] = (
    lambda file, name, rng: file.__delitem__(name),
    lambda file, name, rng: _replace(file, name, np.zeros(rng.choice(((), (0,), (2, 2), (3, 3, 3, 4))), np.float32)),
    lambda file, name, rng: _replace(file, name, np.full(4, rng.choice(SCALARS))),
    lambda file, name, rng: _replace(file, name, np.array([b"text"] * 3)),
    lambda file, name, rng: _replace(file, name, np.zeros(4, np.complex64)),
    lambda file, name, rng: _replace(file, name, _link(rng, name)),
    _attributes,
    _large,
)


def _link(rng: random.Random, name: str) -> Any:
    import h5py

    return rng.choice((h5py.SoftLink("/nowhere"), h5py.SoftLink(f"/{name}"), h5py.ExternalLink("/etc/passwd", "/a")))


def changed_h5(path: Path, to: Path, rng: random.Random) -> Path:
    """A whole-model `.h5` file with a changed configuration, version or weights, or with damaged bytes."""
    import h5py

    content = path.read_bytes()
    if rng.random() < 0.3:
        to.write_bytes(changed_arrays(content, rng))
        return to
    to.write_bytes(content)
    with h5py.File(to, "r+") as file:
        if rng.random() < 0.9:
            text = changed_config(file.attrs["model_config"], rng)[:_ATTRIBUTE_BYTES]
            del file.attrs["model_config"]
            file.attrs["model_config"] = np.bytes_(text)
        else:
            file.attrs["keras_version"] = rng.choice((3, "", "3.9", "2.1.0", "x", np.zeros(4), np.bytes_(b"\xff")))
    return to
