"""Writes the golden vectors: results of edge_cv and Pillow that the app's code must reproduce bit for bit.

    python android_demo/golden/make_golden.py

The photos are noise from a generator that exists in both languages, so that only results are stored: the first half of
the SHA-256 of the bytes. `tests/test_android.py` checks that the committed file equals what this script computes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from converters.images.decoding import decode
from converters.images.preprocessing import INTERPOLATIONS, RULES, Preprocessing, to_channels
from edge_cv.evaluation.open_model import InputEncoder

FILE = Path(__file__).parents[1] / "core/src/test/resources/golden/golden.json"

# (width, height): single pixels, rows and columns, odd ones, strips of 16 : 1 and longer, photos
SIZES = (
    *((1, 1), (1, 7), (7, 1), (1, 97), (97, 1), (2, 3), (3, 2), (5, 5), (16, 16), (17, 31), (31, 17), (64, 48)),
    *((33, 2), (101, 100), (257, 3), (3, 257), (320, 20), (20, 341), (400, 19), (2, 33), (640, 480), (375, 500)),
)
# (image_size, resize_to)
TARGETS = ((1, None), (7, 9), (16, None), (24, 31), (33, 34))
LARGE_TARGETS = ((224, 256), (96, None))
# (height, width, channels, resize_to)
RECTANGLES = ((12, 20, 3, None), (20, 12, 1, 15), (3, 50, 1, None))


def noise(count: int, seed: int) -> np.ndarray:
    """`count` bytes of the linear congruential generator of Numerical Recipes: the high byte of each state."""
    multiplier, increment, modulus = 1664525, 1013904223, 1 << 32
    states = np.empty(count, np.uint8)
    state = seed
    for i in range(count):
        state = (state * multiplier + increment) % modulus
        states[i] = state >> 24
    return states


def photo(width: int, height: int, seed: int) -> np.ndarray:
    """A photo of noise; for an odd seed black and white only, where filters ring and clip most."""
    pixels = noise(3 * width * height, seed).reshape(height, width, 3)
    return np.where(pixels < 128, 0, 255).astype(np.uint8) if seed % 2 else pixels


def digest(content: bytes | np.ndarray) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).hexdigest()[:32]


def crops() -> Iterator[dict[str, Any]]:
    for seed, (width, height) in enumerate(SIZES):
        pixels = photo(width, height, seed)
        targets = LARGE_TARGETS if width * height > 100_000 else TARGETS
        for rule, interpolation, (size, to) in itertools.product(RULES, INTERPOLATIONS, targets):
            cropped = Preprocessing(size, to, rule, interpolation).crop_and_resize(pixels)
            yield {
                "photo": [width, height, seed],
                "preprocessing": geometry(size, size, 3, to, rule, interpolation),
                "pixels": digest(cropped),
            }
        for rule, (tall, wide, channels, to) in itertools.product(RULES, RECTANGLES):
            cropped = Preprocessing(tall, to, rule, "bilinear", width=wide, channels=channels).crop_and_resize(pixels)
            yield {
                "photo": [width, height, seed],
                "preprocessing": geometry(tall, wide, channels, to, rule, "bilinear"),
                "pixels": digest(cropped),
            }


def geometry(height: int, width: int, channels: int, to: int | None, rule: str, interpolation: str) -> dict[str, Any]:
    fields = {"height": height, "width": width, "channels": channels}
    return fields | {"resize_to": to, "rule": rule, "interpolation": interpolation}


def orientations() -> Iterator[dict[str, Any]]:
    for (width, height), orientation in itertools.product(((3, 2), (5, 7), (1, 4), (64, 48)), range(10)):
        seed = width + height
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        Image.fromarray(photo(width, height, seed)).save(file, "PNG", exif=exif)
        upright = decode(file.getvalue())
        yield {
            "photo": [width, height, seed],
            "orientation": orientation,
            "upright": [upright.shape[1], upright.shape[0]],
            "pixels": digest(upright),
        }


def camera_frames() -> Iterator[dict[str, Any]]:
    turns = {0: None, 90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    for (width, height), (degrees, turn) in itertools.product(((2, 2), (5, 3), (8, 6), (64, 48)), turns.items()):
        half = ((height + 1) // 2, (width + 1) // 2)
        planes = [noise(width * height, 1).reshape(height, width)]
        for seed in (2, 3):
            chroma = noise(half[0] * half[1], seed).reshape(half)
            planes.append(np.repeat(np.repeat(chroma, 2, 0), 2, 1)[:height, :width])
        frame = Image.merge("YCbCr", [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]).convert("RGB")
        upright = frame if turn is None else frame.transpose(turn)
        yield {
            "frame": [width, height],
            "degrees": degrees,
            "upright": list(upright.size),
            "pixels": digest(np.asarray(upright)),
        }


def inputs() -> Iterator[dict[str, Any]]:
    pixels = photo(16, 16, 4)
    plain, imagenet = {}, {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    symmetric = {"mean": (127.5,) * 3, "std": (127.5,) * 3}
    for dtype, scale, zero_point, offset, ranges in (
        ("float32", None, None, None, plain),
        ("float32", None, None, None, imagenet),
        ("float32", None, None, None, symmetric),
        ("int8", 0.0078125, -1, -128, plain),
        ("uint8", 1.0, 0, 0, plain),
        ("uint8", 1.0, 0, 100, plain),
        ("int8", 0.0186, -14, None, imagenet),
        ("uint8", 0.0078125, 128, None, symmetric),
        ("int8", 0.002, 3, None, symmetric),  # clips
        ("int8", 1.0, -128, None, plain),
        ("int16", 0.00003, 0, None, symmetric),
        ("int16", 0.0078125, 0, None, plain),
        ("int8", 0.0078125, -1, -128, {"channels": 1}),
        ("float32", None, None, None, {"channels": 1, "mean": 123.7, "std": 58.4}),
    ):
        value = Preprocessing(16, **ranges)
        fed = InputEncoder(dtype, scale, zero_point, offset, value)(to_channels(pixels, value.channels)[None])
        yield {
            "photo": [16, 16, 4],
            "dtype": dtype,
            "scale": scale,
            "zero_point": zero_point,
            "pixel_offset": offset,
            "mean": list(value.mean),
            "std": list(value.std),
            "bytes": digest(fed.astype(fed.dtype.newbyteorder("<"))),
        }


def answers() -> Iterator[dict[str, Any]]:
    scale, zero_point = 0.0679, -45
    for seed, spread in ((10, 256), (11, 8), (12, 1)):  # fewer distinct values give more ties
        stored = noise(1000, seed).astype(np.int16) % spread - 128
        logits = np.float32(scale) * (stored.astype(np.float32) - np.float32(zero_point))
        powers = np.exp(logits.astype(np.float64) - logits.max())
        top = np.argsort(-logits, kind="stable")[:5]
        probabilities = (powers / powers.sum())[top]
        yield {
            "seed": seed,
            "spread": spread,
            "scale": scale,
            "zero_point": zero_point,
            "top": top.tolist(),
            "probabilities": probabilities.tolist(),
        }


def percentiles() -> Iterator[dict[str, Any]]:
    for count in (1, 2, 3, 10, 50, 101):
        values = noise(count, count) / 7.0
        yield {"count": count, "expected": {str(q): float(np.percentile(values, q)) for q in (0, 10, 50, 90, 99, 100)}}


def golden() -> str:
    """The content of the golden file: one group per function, one case per line."""
    groups = (crops, orientations, camera_frames, inputs, answers, percentiles)
    parts = []
    for group in groups:
        cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in group())
        parts.append(f'"{group.__name__}": [\n{cases}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(golden())
    print(f"{FILE}: {FILE.stat().st_size} bytes")
