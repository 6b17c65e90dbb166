"""Reading untrusted JSON: each function checks one value and returns it, or raises InputError.

JSON comes from devices, from the Android app, from files of other versions and from other programs. Every reader of
such a file uses these functions, so that a wrong value is reported in one line with the name of its field.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import numbers
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from converters.errors import InputError
from converters.files import open_regular
from converters.printable import printable

MAX_BYTES = 1 << 26  # of a document; the values of empty lists and objects take up to thirty times as much memory
MAX_DEPTH = 64  # of lists and objects in each other: Python's own functions, such as repr, recurse
MAX_TEXT = 300  # characters
MAX_LONG_TEXT = 100_000  # characters of a name or a sentence
MAX_ITEMS = 10_000_000  # values of a list
MAX_MILLISECONDS = 3.6e6  # an hour
_MAX_INTEGER = 1 << 63
_MAX_DIGITS = 20  # of a whole number, sign included; enough for 64 bits
Kind = TypeVar("Kind")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parse(content: bytes | str, what: str, max_bytes: int = MAX_BYTES) -> Any:
    """The value in a JSON document.

    Stricter than Python's parser: without NaN, infinity and numbers beyond 64 bits, with each key once in its object,
    and with at most 64 lists and objects in each other.

    Args:
        content: the document, in UTF-8 with or without a byte order mark.
        what: its name in an error message.
        max_bytes: a longer document is refused.

    Raises:
        InputError: the content is too long or no such JSON.
    """
    if len(content) > max_bytes:
        raise InputError(f"{what} must have at most {max_bytes:,} bytes. Received: {len(content):,} or more")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_int=_integer_of,
            parse_float=_float_of,
            object_pairs_hook=_object_of,
        )
    except RecursionError:
        reason = "lists and objects too deep in each other"
    except ValueError as error:
        reason = " ".join(printable(str(error)).split())
    else:
        if not _is_deep(value):
            return value
        reason = f"more than {MAX_DEPTH} lists and objects in each other"
    raise InputError(f"{what} must be JSON. Received: {reason:.120}")


def read(path: Path, what: str, max_bytes: int = MAX_BYTES) -> Any:
    """The value in a JSON file; raises InputError, with the file's path, as `parse` does or if it cannot be read."""
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        return parse(content, what, max_bytes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def number(value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float | int:
    """A finite number from `least` to `most`, as int if it is integral in type, else as float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} must be a number. Received: {value!r:.80}")
    result = int(value) if isinstance(value, numbers.Integral) else float(value)
    if (abs(result) > _MAX_INTEGER) if isinstance(result, int) else not math.isfinite(result):
        raise InputError(f"{what} must be a finite number. Received: {value!r:.40}")
    if not least <= result <= most:
        raise InputError(f"{what} must be a number from {least:g} to {most:g}. Received: {result:g}")
    return result


def optional_number(value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float | int | None:
    """As `number`, but None for None, NaN and infinity: a figure that was not measured."""
    if value is None or (isinstance(value, numbers.Real) and not _is_finite(value)):
        return None
    return number(value, what, least, most)


def integer(value: Any, what: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`; 3.0 counts as 3."""
    checked = number(value, what, least, most)
    if checked != int(checked):
        raise InputError(f"{what} must be a whole number. Received: {value!r:.40}")
    return int(checked)


def text(value: Any, what: str) -> str:
    """Text of at most 300 characters, on one line; control characters, which a terminal would obey, are replaced."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InputError(f"{what} must be text of at most {MAX_TEXT} characters. Received: {value!r:.80}")
    return printable(" ".join(value.split()))


def message(value: Any) -> str:
    """The beginning of a message that may be too long or no text at all, for use inside an error message."""
    return text(value[:MAX_TEXT] if isinstance(value, str) else "no message", "a message")


def sha256(value: Any, what: str) -> str:
    """A SHA-256 as 64 hexadecimal digits in lower case."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise InputError(f"{what} must be 64 hexadecimal digits. Received: {value!r:.80}")
    return value


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise InputError(f"{what} must be an object. Received: {value!r:.80}")
    return value


def items(value: Any, what: str, most: int = MAX_ITEMS) -> list[Any] | tuple[Any, ...]:
    """A list of at most `most` values."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{what} must be a list. Received: {value!r:.80}")
    if len(value) > most:
        raise InputError(f"{what} must have at most {most:,} values. Received: {len(value):,}")
    return value


def milliseconds(values: Any, what: str) -> list[float]:
    """A list of durations, each from 0 to an hour."""
    return [float(number(value, f"a value of {what}", 0, MAX_MILLISECONDS)) for value in items(values, what)]


def typed(hint: Any, value: Any, what: str) -> Any:
    """A value of the annotated type `hint`, built from JSON: objects become dataclasses, lists tuples, base64 bytes.

    Args:
        hint: `int`, `float`, `bool`, `str`, `bytes`, `Any`, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`
            or a dataclass of these. A dataclass with a `from_json(fields, what)` is read by that. Keys that a dataclass
            does not have are ignored, and those that are missing or null take its defaults.
        value: from JSON, or already of the type.
        what: the value's name in an error message.

    Raises:
        InputError: the value does not fit the type, or a number is not finite.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else typed(arguments[0], value, what)
    if origin is tuple:
        values = items(value, what)
        kinds = [arguments[0]] * len(values) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(values):
            raise InputError(f"{what} must be {len(kinds)} values. Received: {value!r:.80}")
        return tuple(typed(kind, each, what) for kind, each in zip(kinds, values, strict=True))
    if origin is dict:
        return {str(name): typed(arguments[1], each, f"{what}.{name}") for name, each in mapping(value, what).items()}
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, what)
    if hint is bytes and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return base64.b64decode(value, validate=True)
    if hint is int:
        return integer(value, what, -_MAX_INTEGER, _MAX_INTEGER)
    if hint is float:
        return float(number(value, what))
    if not isinstance(value, hint):
        raise InputError(f"{what} must be {hint.__name__}. Received: {value!r:.80}")
    if hint is str and len(value) > MAX_LONG_TEXT:
        raise InputError(f"{what} must be text of at most {MAX_LONG_TEXT:,} characters. Received: {len(value):,}")
    return value


def _dataclass(hint: Any, value: Any, what: str) -> Any:
    if isinstance(value, hint):
        return value
    return hint.from_json(value, what) if hasattr(hint, "from_json") else build(hint, value, what)


def build(kind: type[Kind], value: Any, what: str) -> Kind:
    """A dataclass built from a JSON object, as `typed` does, for use in its `from_json`."""
    fields, hints = mapping(value, what), typing.get_type_hints(kind)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name not in fields:
            if required:
                raise InputError(f"{what} must have {field.name}. Received: {', '.join(map(str, fields))!r:.80}")
        elif required or fields[field.name] is not None:
            given[field.name] = typed(hints[field.name], fields[field.name], f"{what}.{field.name}")
    return kind(**given)


def _is_finite(value: numbers.Real) -> bool:
    return isinstance(value, numbers.Integral) or math.isfinite(value)


def _is_deep(value: Any) -> bool:
    """Whether more than `MAX_DEPTH` lists and objects are in each other."""
    level = [value]
    for _ in range(MAX_DEPTH):
        values = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [value for each in values for value in each if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _integer_of(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits")
    return int(text)


def _float_of(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.40}")
    return value


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.60} twice")
    return fields
