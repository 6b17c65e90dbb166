"""Numbers as text, with no more digits than the measurement supports."""

from __future__ import annotations

from collections.abc import Sequence

MISSING = "–"
"""Shown in place of a figure that was not measured."""


def size(bytes_: float | None) -> str:
    """A size in units of 1000 bytes with three significant digits, such as `4.99 MB`."""
    return _scaled(bytes_, (" B", " kB", " MB", " GB"))


def count(number: float | None) -> str:
    """A count with three significant digits, such as `385 M`."""
    return _scaled(number, ("", " k", " M", " G"))


def _scaled(number: float | None, units: tuple[str, str, str, str]) -> str:
    """The number in the smallest of the units, each 1000 times the one before, that gives three digits or fewer."""
    if number is None:
        return MISSING
    one, thousand, million, billion = units
    if number < 999.5:
        return f"{number:.0f}{one}"
    for unit, scale in ((thousand, 1e3), (million, 1e6)):
        if number < 999.5 * scale:
            return f"{digits(number / scale)}{unit}"
    return f"{digits(number / 1e9)}{billion}"


def digits(number: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{number:.2f}" if abs(number) < 9.995 else f"{number:.1f}" if abs(number) < 99.95 else f"{number:.0f}"


def milliseconds(ms: float | None) -> str:
    """A time such as `4.70 ms`."""
    return MISSING if ms is None else f"{digits(ms)} ms"


def decibels(db: float | None) -> str:
    """A ratio such as `19.8 dB`."""
    return MISSING if db is None else f"{db:.1f} dB"


def percent(share: float | None, images: int | None) -> str:
    """A share of `images` photos in percent, with decimals only where one photo is less than a percentage point."""
    return MISSING if share is None else f"{100 * share:.{_decimals(images)}f} %"


def whole_percent(share: float) -> str:
    """A share or ratio in percent without decimals."""
    return f"{100 * share:.0f} %"


def interval(ends: tuple[float, float] | None, images: int | None) -> str:
    """A 95 % interval such as `76–99 %`, or an empty text."""
    if ends is None:
        return ""
    low, high = (f"{100 * end:.{_decimals(images)}f}" for end in ends)
    return f"{low}–{high} %"


def ratio(times: float) -> str:
    """A ratio such as `3.9×` or `12×`."""
    return f"{times:.1f}×" if times < 9.95 else f"{times:.0f}×"


def points(difference: float) -> str:
    """The number of percentage points, with two significant digits below 10."""
    if difference >= 10:
        return f"{difference:.0f}"
    return f"{difference:.1f}".removesuffix(".0") if difference >= 0.1 else f"{difference:.2f}"


def threads(number: int) -> str:
    """`1 thread`, `2 threads`."""
    return "1 thread" if number == 1 else f"{number} threads"


def photos(number: int) -> str:
    """`1 photo`, `1,000 photos`."""
    return "1 photo" if number == 1 else f"{number:,} photos"


def joined(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _decimals(images: int | None) -> int:
    return 0 if not images or images <= 100 else 1 if images < 10_000 else 2
