"""A hash of what a picture shows: equal pictures have equal hashes, and nearly equal ones hashes of few other bits.

The low frequencies of a cosine transform, each against their median (pHash, http://www.phash.org). Another size, JPEG
compression or a little brightness change few bits; another picture changes about half of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SIDE, LOW = 32, 8  # the picture's side before the transform, and how many frequencies of each axis count
NEAR_BITS = 6  # of 64: nearer are the same picture


def image_hash(pixels: np.ndarray) -> int:
    """The hash, 64 bits, of one picture `(height, width, 3)` or `(height, width)` of any range."""
    grey = np.asarray(pixels, np.float64)
    grey = grey @ (0.299, 0.587, 0.114) if grey.ndim == 3 else grey
    for axis in (0, 1):
        grey = _shrunk(grey, axis)
    places = np.arange(SIDE)
    cosines = np.cos(np.pi * (places[None] + 0.5) * places[:LOW, None] / SIDE)
    low = (cosines @ grey @ cosines.T).reshape(-1)
    low[0] = 0.0  # brightness
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _shrunk(grey: np.ndarray, axis: int) -> np.ndarray:
    """Means of 32 equal parts along an axis; with fewer than 32 values each part is the value that it lies in."""
    size = grey.shape[axis]
    ends = np.linspace(0, size, SIDE + 1)
    sums = np.concatenate([np.zeros_like(grey.take([0], axis)), grey.cumsum(axis)], axis)
    whole = np.floor(ends).astype(int).clip(0, size)
    at = sums.take(whole, axis) + np.expand_dims(ends - whole, 1 - axis) * grey.take(whole.clip(0, size - 1), axis)
    return np.diff(at, axis=axis) * SIDE / size


def near_pairs(first: Iterable[int], second: Iterable[int] | None = None) -> list[tuple[int, int]]:
    """Places `(i, j)` of hashes at most `NEAR_BITS` apart: of `first` and `second`, or i < j within `first`."""
    a = np.fromiter(first, np.uint64)
    b = a if second is None else np.fromiter(second, np.uint64)
    pairs = []
    for i, one in enumerate(a):
        near = np.flatnonzero(np.bitwise_count(one ^ b) <= NEAR_BITS)
        pairs += [(i, int(j)) for j in near if second is not None or j > i]
    return pairs
