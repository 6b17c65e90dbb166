"""Calibration images: read from arrays or a folder, and checked against the model's input."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing

MAX_IMAGES = 1000  # ranges no longer change beyond; more images only cost memory
FEW_IMAGES = 8  # below, the ranges are unreliable
HELD_OUT = 5  # every fifth image decides between results and is not used to make them

logger = logging.getLogger(__name__)


def gather(
    calibration: Any,
    input_shape: tuple[int, int, int],
    *,
    preprocessing: Preprocessing | None,
    takes_pixels: bool,
) -> np.ndarray:
    """Gather the calibration images into one array and check it.

    Args:
        calibration: an array `(n, height, width, 3)`, an iterable of such arrays or of single images, or a folder of
            image files. At most `MAX_IMAGES` are used.
        input_shape: the model's, `(height, width, 3)`.
        preprocessing: how image files become arrays, and in which range; required for a folder.
        takes_pixels: whether the model takes pixels 0..255.

    Returns:
        `(n, height, width, 3)`: uint8 when all values are whole pixels, float32 otherwise.

    Raises:
        InputError: there are no images, or their shape or range is not the model's.
    """
    if calibration is None:
        raise InputError(
            "calibration must be given for an integer scheme: arrays or a folder of images. Received: None"
        )
    if isinstance(calibration, str | os.PathLike):
        calibration = _from_folder(Path(calibration), input_shape, preprocessing)
    if isinstance(calibration, dict | bytes) or not isinstance(calibration, Iterable):
        raise InputError(
            "calibration must be an iterable of arrays (batch, height, width, 3). "
            f"Received: {type(calibration).__name__}"
        )
    kept: list[np.ndarray] = []
    count = 0
    for batch in [calibration] if getattr(calibration, "ndim", 0) in (3, 4) else calibration:
        kept.append(_compact(_checked(batch, input_shape)[: MAX_IMAGES - count]))
        count += len(kept[-1])
        if count >= MAX_IMAGES:
            logger.warning("calibration stops at %d images", MAX_IMAGES)
            break
    if not count:
        raise InputError("calibration must hold at least one image. Received: none")
    if count < FEW_IMAGES:
        logger.warning("%d calibration images are few: use at least %d, better 100", count, FEW_IMAGES)
    images = np.concatenate([k.astype(np.float32) for k in kept] if len({k.dtype for k in kept}) > 1 else kept)
    _check_range(images, takes_pixels, preprocessing)
    return images


def _checked(batch: Any, input_shape: tuple[int, int, int]) -> np.ndarray:
    """A batch as an array `(n, height, width, 3)`; InputError when it is not images of the model's size."""
    if isinstance(batch, tuple | list | dict):
        raise InputError(
            "calibration must yield arrays alone, without labels. "
            f"Received: a {type(batch).__name__} of {len(batch)} items"
        )
    array = np.asarray(batch)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1:] != input_shape:
        shape = ", ".join(map(str, input_shape))
        raise InputError(f"calibration images must have the shape (batch, {shape}). Received: {array.shape}")
    if array.dtype.kind not in "fiu":
        raise InputError(f"calibration images must be numbers. Received: dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("calibration images must be finite. Received: NaN or infinity")
    return array


def _compact(array: np.ndarray) -> np.ndarray:
    """Whole pixels as uint8, which takes a quarter of the memory; other values as float32."""
    if array.dtype == np.uint8:
        return array.copy()
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if low >= 0 and 1 < high <= 255:
        pixels = array.astype(np.uint8)
        if np.array_equal(pixels, array):
            return pixels
    return array.astype(np.float32)


def _check_range(images: np.ndarray, takes_pixels: bool, preprocessing: Preprocessing | None) -> None:
    low, high = float(images.min()), float(images.max())
    if takes_pixels:
        if low < 0 or high > 255:
            raise InputError(
                f"calibration images must be pixels 0..255, which this model takes. Received: {low:.4g}..{high:.4g}"
            )
        if high <= 1.0:
            raise InputError(
                "calibration images must be pixels 0..255, which this model takes (its normalization is inside). "
                f"Received: {low:.4g}..{high:.4g}, which looks like images scaled to 0..1; multiply them by 255"
            )
    elif preprocessing is not None:
        limits = preprocessing.to_input(np.array([[0.0] * 3, [255.0] * 3]))
        least, most = float(limits.min()), float(limits.max())
        if low < least - 0.01 * (most - least) or high > most + 0.01 * (most - least):
            raise InputError(
                f"calibration images must be in {least:.4g}..{most:.4g}, as the model's preprocessing makes them. "
                f"Received: {low:.4g}..{high:.4g}"
            )
    if low == high:
        raise InputError(f"calibration images must differ. Received: every value is {low:.4g}")


def _from_folder(
    folder: Path, input_shape: tuple[int, int, int], preprocessing: Preprocessing | None
) -> Iterable[np.ndarray]:
    from converters.images.decoding import SUFFIXES, ImageError, decode_image

    if not folder.is_dir():
        raise InputError(f"the calibration folder must exist. Received: {folder}")
    if preprocessing is None:
        raise InputError(
            "a folder of calibration images needs the model's preprocessing (preprocessing=Preprocessing(...)), "
            "which this model does not declare"
        )
    if (preprocessing.image_size, preprocessing.image_size, 3) != tuple(input_shape):
        raise InputError(
            f"the preprocessing's image_size must be the model's, {input_shape[0]}x{input_shape[1]}. "
            f"Received: {preprocessing.image_size}"
        )
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise InputError(f"the calibration folder must hold images ({', '.join(SUFFIXES)}). Received: {folder}")
    if len(files) > MAX_IMAGES:  # spread over the folder, so that all classes are present
        files = [files[i * len(files) // MAX_IMAGES] for i in range(MAX_IMAGES)]
    skipped = 0
    for file in files:
        try:
            yield preprocessing.to_input(preprocessing.crop_and_resize(decode_image(file)))[None]
        except ImageError as error:
            skipped += 1
            logger.warning("%s", error)
    if skipped:
        logger.warning("%d of %d calibration images were skipped", skipped, len(files))


def held_out(count: int) -> np.ndarray:
    """Which of `count` calibration images, every fifth, only compare results: bool `(count,)`."""
    return np.arange(count) % HELD_OUT == HELD_OUT - 1
