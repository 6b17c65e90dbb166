"""The images that show an integer scheme what ranges a model's activations have, and those ranges."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.tflite.graph import Graph
from converters.tflite.runtime import visit

MAX_IMAGES = 1000  # the ranges have long settled; more only cost memory
FEW_IMAGES = 8  # fewer show the ranges badly
BINS = 4096  # of a tensor's histogram
SAMPLED_VALUES = 40_000  # of a tensor, an image: enough for a histogram
NARROWINGS = np.linspace(1, 0.3, 36)  # shares of each end of a range that are tried

logger = logging.getLogger(__name__)


def gather(
    calibration: Any,
    input_shape: tuple[int, int, int],
    *,
    preprocessing: Preprocessing | None,
    takes_pixels: bool,
) -> np.ndarray:
    """The calibration images as one array `(n, height, width, 3)`, checked; uint8 when they are whole pixels.

    Args:
        calibration: an array `(n, height, width, 3)`, an iterable of such arrays or of single images, or a folder of
            image files. At most `MAX_IMAGES` are taken.
        input_shape: `(height, width, 3)` that the model takes.
        preprocessing: how files become arrays, and in which range; a folder needs it.
        takes_pixels: whether the model's input is known to be pixels 0..255.

    Raises:
        InputError: there are no images, or they have another shape or range than the model takes.
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
        if isinstance(batch, tuple | list | dict):
            raise InputError(
                "calibration must yield arrays alone, without labels. "
                f"Received: a {type(batch).__name__} of {len(batch)} items"
            )
        array = np.asarray(batch)
        if array.ndim == 3:
            array = array[None]
        if array.ndim != 4 or array.shape[1:] != input_shape:
            want = ", ".join(map(str, input_shape))
            raise InputError(f"calibration images must have the shape (batch, {want}). Received: {array.shape}")
        if array.dtype.kind not in "fiu":
            raise InputError(f"calibration images must be numbers. Received: dtype {array.dtype}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError("calibration images must be finite. Received: NaN or infinity")
        kept.append(_compact(array[: MAX_IMAGES - count]))
        count += len(kept[-1])
        if count >= MAX_IMAGES:
            logger.warning("calibration stops at %d images", MAX_IMAGES)
            break
    if not count:
        raise InputError("calibration must hold at least one image. Received: none")
    if count < FEW_IMAGES:
        logger.warning("%d calibration images are very few: take at least %d, better 100", count, FEW_IMAGES)
    images = np.concatenate([k.astype(np.float32) for k in kept] if len({k.dtype for k in kept}) > 1 else kept)
    _check_range(images, takes_pixels, preprocessing)
    return images


def _compact(array: np.ndarray) -> np.ndarray:
    """Whole pixels as uint8, a quarter of the memory; anything else as float32."""
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
        ends = preprocessing.to_input(np.array([[0.0] * 3, [255.0] * 3]))
        least, most = float(ends.min()), float(ends.max())
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
            "which this model does not tell"
        )
    if (preprocessing.image_size, preprocessing.image_size, 3) != tuple(input_shape):
        raise InputError(
            f"the preprocessing's image_size must be the model's, {input_shape[0]}x{input_shape[1]}. "
            f"Received: {preprocessing.image_size}"
        )
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise InputError(f"the calibration folder must hold images ({', '.join(SUFFIXES)}). Received: {folder}")
    if len(files) > MAX_IMAGES:  # spread over the folder, so that no class is all there is
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


def activation_ranges(content: bytes, inputs: np.ndarray) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every tensor that the graph computes, over all inputs `(n, height, width, 3)`.

    The graph is run with every intermediate tensor as an output, so that the runtime's fast kernels do the work.
    """
    graph = Graph(content)
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    ranges: dict[str, tuple[float, float]] = {}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        found = {}
        for detail in at.get_output_details():
            values = at.tensor(detail["index"])()
            if values.dtype.kind == "f" and values.size:
                found[detail["name"]] = float(values.min()), float(values.max())
            del values  # a view into the interpreter, which refuses to run while one is alive
        with lock:
            for name, (low, high) in found.items():
                known = ranges.get(name, (low, high))
                ranges[name] = min(low, known[0]), max(high, known[1])

    visit([(graph.to_bytes(), None)], inputs, look)
    return ranges


def clipped_ranges(
    content: bytes, inputs: np.ndarray, ranges: dict[str, tuple[float, float]], *, levels: int = 255
) -> dict[str, tuple[float, float]]:
    """The ranges, narrowed to where rounding and clipping together have the least mean square error, but the outputs'.

    Rounding costs step^2 / 12 for a value inside, clipping the square of what is cut off
    (https://arxiv.org/abs/1810.05723).

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, 3)`, what it takes.
        ranges: of `activation_ranges` on these inputs.
        levels: steps of the integer type.
    """
    graph = Graph(content)
    kept = {graph.name(t) for t in graph.outputs}  # the largest output is the answer
    graph.set_outputs([t for operator in graph.operators() for t in operator.outputs])
    counts = {name: np.zeros(BINS) for name, (low, high) in ranges.items() if low < high and name not in kept}
    lock = threading.Lock()

    def look(index: int, at: Any) -> None:
        for detail in at.get_output_details():
            name = detail["name"]
            if name not in counts:
                continue
            values = at.get_tensor(detail["index"]).reshape(-1)
            every = max(1, values.size // SAMPLED_VALUES)
            low, high = ranges[name]
            places = ((values[index % every :: every] - low) * (BINS / (high - low))).astype(np.int32)
            found = np.bincount(places.clip(0, BINS - 1), minlength=BINS)
            with lock:
                counts[name] += found

    visit([(graph.to_bytes(), None)], inputs, look)
    return {**ranges, **{name: _least_error(found, *ranges[name], levels) for name, found in counts.items()}}


def _least_error(counts: np.ndarray, low: float, high: float, levels: int) -> tuple[float, float]:
    """The part of a range with the least mean square error; 0 is in it, as the integer type demands."""
    values = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    low, high = min(low, 0.0), max(high, 0.0)

    def error(least: float, most: float) -> float:
        cut = np.maximum(np.maximum(least - values, values - most), 0)
        return float(counts @ np.where(cut > 0, cut**2, (most - least) ** 2 / (12 * levels**2)))

    chosen = low, high
    for _ in range(2):  # each end given the other
        most = min((high * share for share in NARROWINGS), key=lambda end: error(chosen[0], end))
        least = min((low * share for share in NARROWINGS), key=lambda end: error(end, most))
        chosen = least, most
    return float(chosen[0]), float(chosen[1])
