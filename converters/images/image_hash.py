"""Near-duplicate photos: a 64-bit perceptual hash, and the search for similar hashes among millions.

The hash is the sign pattern of a photo's lowest frequencies (Zauner, Implementation and Benchmarking of Perceptual
Image Hash Functions, 2010, "pHash"). It is stable under resizing, another format, compression and small changes of
brightness and colour; not under mirroring, rotation or cropping. On 500 photos of different ImageNet classes JPEG of
quality 20, half the size, a squeezed square of 256 pixels, and a side of 128 pixels at quality 75 each changed at most
4 bits; 15 % more brightness changed more in 1 photo of 80; the 124,750 pairs of photos differed in 14 bits or more.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import as_rgb

if TYPE_CHECKING:
    from PIL import Image

HASH_BITS = 64
MAX_DISTANCE = 15  # bits; above a quarter of all bits, different photos match too

_SIDE = 32  # pixels of the grey image that is transformed
_BLOCK = 1 << 22  # pairs compared at once: 100 MB
# A smaller coefficient of pixels 0..255 is rounding: a photo of one colour has the hash 0, whatever the colour.
_NOTHING = 1e-3


def image_hash(pixels: np.ndarray | Image.Image) -> int:
    """The perceptual hash of an upright photo, 0..2**64 - 1. Duplicates differ in few bits, other photos in about 32.

    Args:
        pixels: uint8 array `(height, width, channels)`, RGB or grey, or a Pillow image, which saves a copy.

    Raises:
        InputError: the array is of another shape or type.
    """
    from PIL import Image

    if isinstance(pixels, np.ndarray):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            raise InputError(
                f"pixels must be a uint8 array (height, width, 3), or (height, width, 1) if it is grey. "
                f"Received: {pixels.dtype} {pixels.shape}"
            )
        pixels = Image.fromarray(as_rgb(pixels))
    grey = np.asarray(pixels.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    cosines, order = _transform()
    frequencies = (cosines @ grey @ cosines.T).ravel()[order]
    frequencies[np.abs(frequencies) < _NOTHING] = 0
    return int.from_bytes(np.packbits(frequencies > np.median(frequencies)).tobytes(), "big")


def near_duplicates(hashes_a: np.ndarray, hashes_b: np.ndarray | None = None, max_distance: int = 4) -> np.ndarray:
    """The pairs of hashes that differ in at most `max_distance` bits.

    Multi-index hashing (Norouzi et al., 2012): such hashes agree in at least one of `max_distance + 1` pieces, so that
    only hashes that share a piece are compared.

    Args:
        hashes_a: uint64 `(n,)`.
        hashes_b: uint64 `(m,)`; None searches pairs within `hashes_a`.
        max_distance: bits, 0..15.

    Returns:
        int64 `(pairs, 2)`, indices into `hashes_a` and `hashes_b`, sorted; within one set the smaller index comes
        first. k equal hashes give k (k - 1) / 2 pairs: pass `numpy.unique` of the hashes where many may be equal.

    Raises:
        InputError: `max_distance` is outside 0..15.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise InputError(f"max_distance must be in 0..{MAX_DISTANCE} bits. Received: {max_distance}")
    a = np.asarray(hashes_a, np.uint64)
    b = a if hashes_b is None else np.asarray(hashes_b, np.uint64)
    edges = [HASH_BITS * i // (max_distance + 1) for i in range(max_distance + 2)]
    masks = [np.uint64((1 << high) - (1 << low)) for low, high in zip(edges, edges[1:])]  # noqa: B905, RUF007
    matches = [np.empty((0, 2), np.int64)]
    for piece, mask in enumerate(masks):
        order = np.argsort(b & mask, kind="stable")
        keys = (b & mask)[order]
        first = np.searchsorted(keys, a & mask, "left")
        counts = np.searchsorted(keys, a & mask, "right") - first
        for start, stop in _blocks(counts):
            rows = np.repeat(np.arange(start, stop), counts[start:stop])
            ends = np.cumsum(counts[start:stop])
            within = np.arange(len(rows)) - np.repeat(ends - counts[start:stop], counts[start:stop])
            columns = order[first[rows] + within]
            if hashes_b is None:
                rows, columns = rows[rows < columns], columns[rows < columns]
            difference = a[rows] ^ b[columns]
            near = np.bitwise_count(difference) <= max_distance
            for earlier in masks[:piece]:  # already found by this piece
                near &= (difference & earlier) != 0
            matches.append(np.stack([rows[near], columns[near]], axis=1))
    pairs = np.concatenate(matches)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _blocks(counts: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of rows with at most `_BLOCK` pairs in total, or of one row."""
    totals = np.concatenate([[0], np.cumsum(counts)])
    blocks, start = [], 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(totals, totals[start] + _BLOCK, "right")) - 1)
        blocks.append((start, stop))
        start = stop
    return blocks


@functools.cache
def _transform() -> tuple[np.ndarray, np.ndarray]:
    """The cosines of the discrete cosine transform (II), and the indices of its 64 lowest frequencies but the mean."""
    k, x = np.mgrid[:_SIDE, :_SIDE]
    cosines = np.cos(np.pi * k * (2 * x + 1) / (2 * _SIDE))
    vertical, horizontal = np.mgrid[:_SIDE, :_SIDE]
    order = np.argsort((vertical + horizontal).ravel(), kind="stable")
    return cosines, order[1 : HASH_BITS + 1]
