"""Small real image files for tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from edge_cv.data import Samples


def picture(seed: int, size: tuple[int, int] = (32, 24)) -> Image.Image:
    """Smooth seeded colours of (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, format: str = "JPEG", size: tuple[int, int] = (32, 24), **options) -> bytes:
    stream = io.BytesIO()
    picture(seed, size).save(stream, format, **options)
    return stream.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def class_folders(folder: Path, classes: tuple[str, ...], each: int, first: int = 0) -> dict[str, list[bytes]]:
    """<class>/<number>.jpg; gives what was written."""
    written: dict[str, list[bytes]] = {}
    seed = first
    for name in classes:
        for number in range(each):
            content = encoded(seed)
            write(folder / name / f"{number}.jpg", content)
            written.setdefault(name, []).append(content)
            seed += 1
    return written


def save(path: Path, colour: tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (8, 6)) -> Path:
    """An image file of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def names_and_labels(samples: Samples) -> list[tuple[str, int | None]]:
    """The file name and the label of each sample."""
    return [(sample.path.name, sample.label) for sample in samples.chunk(0, len(samples))]
