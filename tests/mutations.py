"""Seeded changes of JSON values and of bytes, as strangers' files have them."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from converters import InputError

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
    kind = rng.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice((str(key).upper(), f"{key} ", "__class__", "", LONE_SURROGATE))] = _stranger(rng)
    elif kind == 2 and isinstance(parent, list):
        parent.extend(copy.deepcopy(parent[: rng.choice((1, 7, 1000))]))
    elif kind == 3 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice((-1, 0, 1e6, -1e-9, 10**18, 0.5)) * (parent[key] or 1)
    elif kind == 4 and isinstance(parent[key], dict | list):
        parent[key] = type(parent[key])()
    else:
        parent[key] = _stranger(rng)


def _stranger(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.05:
        return nested(rng.choice((90, 300, 980, 100_000)), rng.choice("[{"))
    return rng.choice(_RAW) if kind < 0.15 else copy.deepcopy(rng.choice(_STRANGERS))
