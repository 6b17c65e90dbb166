"""What a stranger's JSON holds, checked value by value: a function returns what it was given, or raises InputError."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from converters.errors import InputError

MAX_TEXT, MAX_NUMBERS = 300, 10_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


def number(value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float | int:
    """`value` if it is a finite number between the bounds; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} must be a number. Received: {value!r:.80}")
    if (isinstance(value, int) and abs(value) > 1 << 63) or not math.isfinite(value):
        raise InputError(f"{what} must be a finite number. Received: {value!r:.40}")
    if not least <= value <= most:
        raise InputError(f"{what} must be a number from {least:g} to {most:g}. Received: {value:g}")
    return value


def integer(value: Any, what: str, least: int, most: int) -> int:
    """`value` if it is a whole number between the bounds; InputError otherwise."""
    if number(value, what, least, most) != int(value):
        raise InputError(f"{what} must be a whole number. Received: {value!r:.40}")
    return int(value)


def text(value: Any, what: str) -> str:
    """`value` if it is text of at most 300 characters, without those that a terminal would obey; or InputError."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise InputError(f"{what} must be text of at most {MAX_TEXT} characters. Received: {value!r:.80}")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(value.split()))


def samples(values: Any, what: str) -> list[float]:
    """Milliseconds of single inferences, each from 0 to an hour; InputError for anything else."""
    return [float(number(value, f"a value of {what}", 0, 3.6e6)) for value in items(values, what, MAX_NUMBERS)]


def fields_of(value: Any, what: str) -> Mapping[str, Any]:
    """`value` if it is a JSON object; InputError otherwise."""
    if not isinstance(value, dict):
        raise InputError(f"{what} must be an object. Received: {value!r:.80}")
    return value


def items(value: Any, what: str, most: int) -> list[Any]:
    """`value` if it is a list of at most so many values; InputError otherwise."""
    if not isinstance(value, list):
        raise InputError(f"{what} must be a list. Received: {value!r:.80}")
    if len(value) > most:
        raise InputError(f"{what} must have at most {most:,} values. Received: {len(value):,}")
    return value


def sha256(value: Any, what: str) -> str:
    """`value` if it is a SHA-256 as hexadecimal digits; InputError otherwise."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise InputError(f"{what} must be 64 hexadecimal digits. Received: {value!r:.80}")
    return value
