"""Seeded changes of JSON values and of bytes, as strangers' files have them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from collections.abc import Iterator
from typing import Any

from converters import InputError

SEEDS = [int(seed) for seed in os.environ.get("FUZZING_SEEDS", "1").split(",")]  # of the slow tests
LONE_SURROGATE = "\udce9"  # half of a pair, as a file name that is not UTF-8 has it

# Each stands for a type or a range that a reader may not expect; `Raw` is written as it is.
_STRANGERS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e-320, 1e308, 2**31, -(2**31), 2**53, 2**63, 2**64, 10**30, 10**400),
    *("", " ", "a", "0", "nan", "\0", "\n", "\x1b[31m", "<script>", "/etc/passwd", "../x", "{{ 7*7 }}", "$\\frac"),
    *("\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{GRINNING FACE}", LONE_SURROGATE, "\ud800\ud800", "x" * 5000),
    *([], {}, [[]], [None], [1, 2], ["a"], {"a": 1}, [{}], [0] * 50, {"": None}, [[1], [1, 2]]),
)


@contextlib.contextmanager
def refused_or_done() -> Iterator[None]:
    """A context whose work is done, or refused by an error that the command line prints in one readable line."""
    try:
        yield
        return
    except InputError as error:
        message = str(error)
    assert len(message) < 2000, message


class Raw(str):
    """Text that `written` puts into a document without quotes."""

    __slots__ = ()


_RAW = tuple(map(Raw, ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "01", "0x1", "'a'", "tru", "")))


def nested(depth: int, kind: str = "[") -> Raw:
    """Lists or objects, one in the other."""
    return Raw("[" * depth + "]" * depth if kind == "[" else '{"a":' * depth + "1" + "}" * depth)


def mutated(value: Any, rng: random.Random, changes: int | None = None) -> Any:
    """A copy of a JSON value with one to three changes, each at a random place."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3)) if changes is None else changes):
        places = list(_places(value))
        if not places:
            return _stranger(rng)
        parent, key = rng.choice(places)
        _change(parent, key, rng)
    return value


def written(value: Any) -> str:
    """The JSON document of a value that may hold `Raw` text."""
    if isinstance(value, Raw):
        return str.__str__(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def document(value: Any, rng: random.Random) -> bytes:
    """The bytes of a mutated JSON value: now and then of another encoding, with a key twice, or damaged."""
    text = written(mutated(value, rng))
    kind = rng.random()
    if kind < 0.75:
        return text.encode()
    if kind < 0.85:
        encoding = rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"))
        return text.encode(encoding, errors="replace")
    if kind < 0.9 and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return f"{{{json.dumps(key)}: {written(_stranger(rng))}, {text[1:]}".encode()
    return damaged(text.encode(), rng)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes that end early, or of which a few are flipped, removed, repeated or replaced."""
    if not content or rng.random() < 0.2:
        return content[: rng.randint(0, len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(changed)), rng.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice((0, 0x0A, 0x22, 0x2C, 0x7F, 0x80, 0xE9, 0xFF))
        elif kind == 2:
            del changed[at : at + rng.choice((1, 2, 16))]
        else:
            changed[at:at] = changed[at : at + rng.choice((1, 4, 64))]
        if not changed:
            break
    return bytes(changed)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container and key below a value; three places of a list are enough."""
    stack = [value]
    while stack:
        parent = stack.pop()
        keys = list(parent) if isinstance(parent, dict) else list(range(min(len(parent), 3)))
        for key in keys:
            yield parent, key
            if isinstance(parent[key], dict | list):
                stack.append(parent[key])


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    kind, value = rng.randrange(8), parent[key]
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice((str(key).upper(), f"{key} ", "__class__", "", LONE_SURROGATE))] = _stranger(rng)
    elif kind < 6 and not isinstance(value, Raw | bool | None):
        parent[key] = _of_same_type(value, rng)
    else:
        parent[key] = _stranger(rng)


def _of_same_type(value: Any, rng: random.Random) -> Any:
    """Another value that a check of the type alone lets pass."""
    if isinstance(value, list):
        kind = rng.randrange(4)
        parts = (value[: len(value) // 2], value * rng.choice((2, 500)), value[::-1], value + value[:1])
        return copy.deepcopy(parts[kind])
    if isinstance(value, dict):
        chosen = rng.sample(list(value), len(value) // 2)
        return {} if rng.random() < 0.3 else {key: value[key] for key in chosen}
    same = [other for other in _STRANGERS if type(other) is type(value)]
    return rng.choice(same) if isinstance(value, str) or rng.random() < 0.5 else value * rng.choice((-1, 0, 2, 1000))


def _stranger(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.05:
        return nested(rng.choice((90, 300, 980, 100_000)), rng.choice("[{"))
    return rng.choice(_RAW) if kind < 0.15 else copy.deepcopy(rng.choice(_STRANGERS))
