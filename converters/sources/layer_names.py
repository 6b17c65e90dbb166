"""Names of Keras models and layers that TensorFlow's graphs cannot hold: spaces, accents, a leading underscore.

A model is rebuilt with other names; one that cannot be rebuilt has them while it is called.
"""

from __future__ import annotations

import contextlib
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from converters.errors import InputError

MAX_NAME = 200  # characters; names of nested layers are joined to paths
_VALID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}")
_renaming = threading.RLock()


def with_valid_names(config: Any) -> Any:
    """A configuration of a Keras model whose names are valid; the configuration itself where they are.

    Raises:
        InputError: a name is no text.
    """
    renamed = _replacements(dict.fromkeys(_named(config)))
    return _replaced(config, renamed) if renamed else config


def invalid_names(model: Any) -> bool:
    """Whether a Keras model or a layer of it has a name that is not valid."""
    return bool(_replacements(layer.name for layer in model._flatten_layers()))


@contextlib.contextmanager
def valid_names(model: Any) -> Iterator[None]:
    """Give the layers of a Keras model valid names while it is called."""
    layers = list(model._flatten_layers()) if hasattr(model, "_flatten_layers") else []
    renamed = _replacements(layer.name for layer in layers)
    if not renamed:
        yield
        return
    with _renaming:
        before = [(layer, layer.name) for layer in layers if layer.name in renamed]
        for layer, name in before:
            _rename(layer, renamed[name])
        try:
            yield
        finally:
            for layer, name in before:
                _rename(layer, name)


def _rename(layer: Any, name: str) -> None:
    setattr(layer, "_name" if hasattr(layer, "_name") else "name", name)  # of tf_keras, of Keras 3


def _replacements(names: Iterable[Any]) -> dict[str, str]:
    """A valid name for each that is not, different from all others."""
    known = dict.fromkeys(name for name in names if isinstance(name, str))
    taken, renamed = set(known), dict[str, str]()
    for name in known:
        if _VALID.fullmatch(name):
            continue
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", plain).lstrip("_.-")[: MAX_NAME - 8] or "layer"
        valid, count = base, 1
        while valid in taken:
            count += 1
            valid = f"{base}_{count}"
        taken.add(valid)
        renamed[name] = valid
    return renamed


def _named(config: Any) -> Iterator[str]:
    """The names of models and layers in a configuration."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from _own_names(value)
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value


def _own_names(node: dict[str, Any]) -> list[str]:
    """The name of a model or layer, in its node and in its configuration; none where the node is something else."""
    inner = node.get("config")
    if not isinstance(node.get("class_name"), str) or not isinstance(inner, dict):
        return []
    names = [name for name in (node.get("name"), inner.get("name")) if name is not None]
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"the name of a layer must be text. Received: {str(name)[:80]}")
    return names


def _replaced(value: Any, renamed: dict[str, str]) -> Any:
    """A copy with other names: as a name, and as the first entry of a reference to a layer's output."""
    if isinstance(value, dict):
        return {
            key: renamed.get(part, part) if key == "name" and isinstance(part, str) else _replaced(part, renamed)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        parts = [_replaced(part, renamed) for part in value]
        if len(parts) >= 3 and isinstance(parts[0], str) and all(isinstance(part, int) for part in parts[1:3]):
            parts[0] = renamed.get(parts[0], parts[0])
        return parts
    return value
