"""Calibration images: read from arrays or a folder, and checked against the model's input."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing

MAX_IMAGES = 1000  # ranges no longer change beyond; more images only cost memory
MAX_VALUES = 2**30  # of all images together; 994 of 600x600
NOISE_IMAGES, NOISE_VALUES = 8, 2**26  # compared when the caller gives no images; fewer of over 1600x1600
FEW_IMAGES = 8  # below, the ranges are unreliable
HELD_OUT = 5  # every fifth image decides between results and is not used to make them

logger = logging.getLogger(__name__)


def gather(
    calibration: Any,
    input_shape: tuple[int, ...],
    *,
    preprocessing: Preprocessing | None,
    takes_pixels: bool,
) -> np.ndarray:
    """Gather the calibration images into one array and check it.

    Args:
        calibration: an array `(n, height, width, channels)`, an iterable of such arrays or of single images, a function
            that returns one, or a folder of image files. An item may also be a list of one array, as TensorFlow's
            representative datasets yield, or a pair of images and labels, as `image_dataset_from_directory` does. Grey
            images need no axis of channels. At most `MAX_IMAGES` are used, fewer of
            large ones.
        input_shape: the model's, `(height, width, channels)`.
        preprocessing: how image files become arrays, and in which range; required for a folder.
        takes_pixels: whether the model takes pixels 0..255.

    Returns:
        `(n, height, width, channels)`: uint8 when all values are whole pixels, float32 otherwise.

    Raises:
        InputError: there are no images, or their shape or range is not the model's.
    """
    if calibration is None:
        raise InputError(
            "calibration must be given for an integer scheme: arrays or a folder of images. Received: None"
        )
    if isinstance(calibration, str | os.PathLike):
        calibration = _from_folder(Path(calibration), input_shape, preprocessing)
    kept: list[np.ndarray] = []
    count, most = 0, min(MAX_IMAGES, max(FEW_IMAGES, MAX_VALUES // math.prod(input_shape)))
    for batch in _items(calibration, input_shape):
        kept.append(_compact(_checked(_images_of(batch), input_shape)[: most - count]))
        count += len(kept[-1])
        if count >= most:
            logger.warning("calibration stops at %d images", most)
            break
    if not count:
        raise InputError("calibration must hold at least one image. Received: none")
    if count < FEW_IMAGES:
        logger.warning("%d calibration images are few: use at least %d, better 100", count, FEW_IMAGES)
    images = np.concatenate([k.astype(np.float32) for k in kept] if len({k.dtype for k in kept}) > 1 else kept)
    _check_range(images, takes_pixels, preprocessing)
    return images


def _checked(batch: Any, input_shape: tuple[int, ...]) -> np.ndarray:
    """A batch as an array `(n, height, width, channels)`; InputError when it is not images of the model's size."""
    array = np.asarray(batch)
    if input_shape[2] == 1 and array.shape[-2:] == input_shape[:2] and array.ndim in (2, 3):
        array = array[..., None]  # grey images without an axis of channels
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


def _items(calibration: Any, input_shape: tuple[int, ...]) -> Iterable[Any]:
    """The items of calibration images of any form."""
    if callable(calibration) and not isinstance(calibration, Iterable) and not hasattr(calibration, "__getitem__"):
        try:
            calibration = calibration()
        except TypeError as error:
            raise InputError(
                f"a function of calibration images must take no arguments and yield images. It failed: {error}"
            ) from error
    if _is_pair(calibration):
        calibration = calibration[0]
    one = input_shape[:2] if input_shape[2] == 1 else input_shape
    if getattr(calibration, "ndim", 0) in (3, 4) or getattr(calibration, "shape", None) == one:
        return [calibration]
    if (
        not isinstance(calibration, Iterable)
        and hasattr(calibration, "__getitem__")
        and hasattr(calibration, "__len__")
    ):
        return (calibration[index] for index in range(len(calibration)))  # a Keras PyDataset
    if isinstance(calibration, dict | bytes) or not isinstance(calibration, Iterable):
        raise InputError(
            "calibration must be an iterable of arrays (batch, height, width, channels), or a function that returns "
            f"one. Received: {type(calibration).__name__}"
        )
    return calibration


def _images_of(item: Any) -> Any:
    """The images of an item that is a list of one array, a pair of images and labels, or a dictionary of one array."""
    while isinstance(item, dict | tuple | list):
        values = list(item.values()) if isinstance(item, dict) else list(item)
        if isinstance(item, dict) and len(values) > 1:  # {"image": ..., "label": ...}, as TensorFlow Datasets yields
            values = sorted(values, key=_axes, reverse=True)
            item = tuple(values)
        if len(values) == 1 or _is_pair(item):
            item = values[0]
            continue
        raise InputError(
            "calibration must yield images, or images with labels: an array, [array] or (array, labels). "
            f"Received: a {type(item).__name__} of {len(values)} items"
        )
    return item


def _is_pair(item: Any) -> bool:
    """Whether an item is `(images, labels)`, or has weights as a third: the labels have at most two axes."""
    if not isinstance(item, tuple | list) or len(item) not in (2, 3) or any(isinstance(part, dict) for part in item):
        return False
    images, labels = (_axes(part) for part in item[:2])
    return (images in (3, 4) and -1 < labels < min(images, 3)) or (images == 2 and labels == 0)


def _axes(value: Any) -> int:
    """The number of axes of a value as an array; -1 where it is none."""
    try:
        return int(value.ndim) if hasattr(value, "ndim") else np.ndim(value)
    except ValueError:  # lists of different lengths
        return -1


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
        limits = preprocessing.to_input(np.array([[0.0] * preprocessing.channels, [255.0] * preprocessing.channels]))
        least, most = float(limits.min()), float(limits.max())
        if low < least - 0.01 * (most - least) or high > most + 0.01 * (most - least):
            raise InputError(
                f"calibration images must be in {least:.4g}..{most:.4g}, as the model's preprocessing makes them. "
                f"Received: {low:.4g}..{high:.4g}"
            )
    if low == high:
        raise InputError(f"calibration images must differ. Received: every value is {low:.4g}")


def _from_folder(
    folder: Path, input_shape: tuple[int, ...], preprocessing: Preprocessing | None
) -> Iterable[np.ndarray]:
    from converters.images.decoding import SUFFIXES, ImageError, decode_image, is_image_name

    if not folder.is_dir():
        raise InputError(f"the calibration folder must exist. Received: {folder}")
    if preprocessing is None:
        raise InputError(
            "a folder of calibration images needs the model's preprocessing (preprocessing=Preprocessing(...)), "
            "which this model does not declare"
        )
    preprocessing.require(input_shape)
    files = sorted(p for p in folder.rglob("*") if is_image_name(p.relative_to(folder).as_posix()) and p.is_file())
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


def noise(input_shape: tuple[int, ...], preprocessing: Preprocessing | None, takes_pixels: bool) -> np.ndarray:
    """Seeded noise of whole pixels, as the model takes them: it detects a wrong conversion, no quantization error.

    Args:
        input_shape: `(height, width, channels)`.
        preprocessing: the model's; None if it declares none.
        takes_pixels: whether a model without preprocessing takes pixels 0..255, or values in -1..1.

    Returns:
        float32 `(n, height, width, channels)`.
    """
    count = max(1, min(NOISE_IMAGES, NOISE_VALUES // math.prod(input_shape)))
    pixels = np.random.default_rng(0).integers(0, 256, (count, *input_shape)).astype(np.float32)
    if preprocessing is not None:
        return preprocessing.to_input(pixels)
    return pixels if takes_pixels else pixels / np.float32(127.5) - 1


def held_out(count: int) -> np.ndarray:
    """Which of `count` calibration images, every fifth, only compare results: bool `(count,)`."""
    return np.arange(count) % HELD_OUT == HELD_OUT - 1
