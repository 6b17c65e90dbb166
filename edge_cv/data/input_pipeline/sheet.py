"""A contact sheet of a training batch, each image above its target."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converters.files import write_atomic

_CAPTION_PIXELS, _LINES, _MIN_SIDE = 14, 3, 160


def draw_sheet(images: np.ndarray, targets: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Write a picture of the batch.

    Args:
        images: pixels 0..255, RGB `(batch, height, width, 3)` or grey `(batch, height, width, 1)`.
        targets: `(batch, classes)`, 0..1; each image's three largest are written below it.
        classes: the class names in order.
        path: the output, .png or .jpg.

    Raises:
        InputError: the file cannot be written.
    """
    from PIL import Image, ImageDraw

    columns = math.ceil(math.sqrt(len(images)))
    images = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
    side = max(_MIN_SIDE, images.shape[2])
    tall = round(side * images.shape[1] / images.shape[2])
    step = side + 4, tall + 4 + _LINES * _CAPTION_PIXELS
    sheet = Image.new("RGB", (columns * step[0], math.ceil(len(images) / columns) * step[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for nth, (pixels, target) in enumerate(zip(images, targets, strict=True)):
        row, column = divmod(nth, columns)
        left, top = column * step[0] + 2, row * step[1] + 2
        tile = Image.fromarray(np.asarray(pixels).astype(np.uint8)).resize((side, tall), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        for line, name in enumerate(caption(target, classes)):
            pen.text((left, top + tall + line * _CAPTION_PIXELS), name[: side // 6], "black")
    content = io.BytesIO()
    sheet.save(content, "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")
    return write_atomic(path, content.getvalue())


def caption(target: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The three largest shares of a target with their classes, such as "62 % banana"."""
    largest = np.argsort(-target, kind="stable")[:_LINES]
    return [f"{target[index]:.0%} {classes[index]}".replace("%", " %") for index in largest if target[index] >= 0.005]
