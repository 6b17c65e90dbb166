"""Whether calibration images are enough and the right ones: repeats, leakage, stability, likeness to other images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.calibration import gather
from converters.float_model import FloatModel, convert_float
from converters.images.image_hash import image_hash, near_duplicates
from converters.images.preprocessing import Preprocessing
from converters.parity import sqnr_db
from converters.quantization.normalization import strip_normalization
from converters.quantization.ranges import activation_ranges
from converters.schemes import Int8
from converters.sources import open_source
from converters.tflite.runtime import predict

ENOUGH_IMAGES = 64
MOST_LOST_DB = 4.0  # on images that a model was not made with
BEYOND = 0.2  # of a range: what is farther out was not foreseen
UNLIKE_TIMES, UNLIKE_SHARE = 2.0, 0.1


@dataclass(frozen=True)
class CalibrationQuality:
    """What can be said of calibration images.

    Attributes:
        images: how many there are.
        repeats: places `(i, j)` of images that show the same.
        leaked: places `(i, j)` of a calibration image and an evaluation image that show the same.
        stability_db: two int8 files, each made with half of the images: the SQNR of one's logits against the other's.
        seen_db: the SQNR of their logits against the float model on the half that each was made with.
        unseen_db: the same on the other half.
        beyond: share of the evaluation images, 0..1, on which an activation leaves its calibrated range by more than
            a fifth of it; None without evaluation images.
        beyond_within: the same of one half of the calibration images against the other half's ranges: what to expect.
        advice: a sentence for each thing that should be better; empty when all is well.
    """

    images: int
    repeats: tuple[tuple[int, int], ...]
    leaked: tuple[tuple[int, int], ...]
    stability_db: float
    seen_db: float
    unseen_db: float
    beyond: float | None
    beyond_within: float
    advice: tuple[str, ...]


def assess_calibration(
    model: Any, calibration: Any, evaluation: Any = None, *, preprocessing: Preprocessing | None = None
) -> CalibrationQuality:
    """Measure calibration images, alone and against evaluation images.

    Args:
        model, calibration, preprocessing: as `converters.to_tflite` takes them; at least 2 images.
        evaluation: images as `calibration`, those that one will measure on; None leaves out what needs them.

    Raises:
        InputError: the model or the images cannot be used.
    """
    source = open_source(model)
    float_model = convert_float(source)
    preprocessing = preprocessing or source.preprocessing
    pixels = preprocessing.takes_pixels if preprocessing is not None else float_model.takes_pixels

    def images(given: Any) -> np.ndarray:
        return gather(given, source.input_shape, preprocessing=preprocessing, takes_pixels=pixels)

    mine, theirs = images(calibration), None if evaluation is None else images(evaluation)
    ends = float(mine.min()), float(mine.max())
    hashes = _hashes(mine, ends)
    repeats = _pairs(near_duplicates(hashes))
    leaked = () if theirs is None else _pairs(near_duplicates(hashes, _hashes(theirs, ends)))
    stability, seen, unseen = _stability(float_model, mine, preprocessing)
    beyond_within, beyond = _beyond(float_model, mine, theirs)
    advice = []
    if len(mine) < ENOUGH_IMAGES:
        advice.append(f"{len(mine)} calibration images are few: take {ENOUGH_IMAGES} or more.")
    if repeats:
        advice.append(f"{len(repeats)} pairs of calibration images show the same: replace one of each.")
    if leaked:
        advice.append(
            f"{len({i for i, _ in leaked})} calibration images are among those that are measured, which flatters the "
            "result: take them out."
        )
    if seen - unseen > MOST_LOST_DB:
        advice.append(
            f"A model made with half of the images has {seen:.1f} dB on them and {unseen:.1f} dB on the others: take "
            "more images."
        )
    if beyond is not None and beyond > max(UNLIKE_TIMES * beyond_within, UNLIKE_SHARE):
        advice.append(
            f"On {beyond:.0%} of the measured images activations leave their calibrated range, {beyond_within:.0%} "
            "were to be expected: calibrate on images like those."
        )
    return CalibrationQuality(len(mine), repeats, leaked, stability, seen, unseen, beyond, beyond_within, tuple(advice))


def _hashes(images: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """The hash of each image, uint64 `(n,)`; `ends` are the values that are black and white."""
    span = max(ends[1] - ends[0], 1e-9)
    grey = np.clip((images - ends[0]) * (255 / span), 0, 255).astype(np.uint8)
    return np.fromiter((image_hash(image) for image in grey), np.uint64, len(grey))


def _pairs(found: np.ndarray) -> tuple[tuple[int, int], ...]:
    return tuple((int(i), int(j)) for i, j in found)


def _stability(
    model: FloatModel, images: np.ndarray, preprocessing: Preprocessing | None
) -> tuple[float, float, float]:
    if len(images) < 2:
        return 0.0, 0.0, 0.0
    normalized = strip_normalization(model, preprocessing)
    scheme = Int8(equalization=False, correction="bias")
    inputs = normalized.normalize(images)
    wanted = predict(normalized.content, inputs)
    first, second = (predict(scheme.files(normalized, inputs[start::2])[0], inputs) for start in (0, 1))

    def of(starts: tuple[int, int]) -> float:
        return sqnr_db(*(np.concatenate([of[s::2] for of, s in zip(pair, starts, strict=True)]) for pair in (
            (wanted, wanted), (first, second))))  # fmt: skip

    return sqnr_db(first, second), of((0, 1)), of((1, 0))


def _beyond(model: FloatModel, mine: np.ndarray, theirs: np.ndarray | None) -> tuple[float, float | None]:
    def ranges(images: np.ndarray) -> list[dict[str, tuple[float, float]]]:
        return [activation_ranges(model.content, image[None].astype(np.float32)) for image in images]

    def joined(of: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
        return {name: (min(one[name][0] for one in of), max(one[name][1] for one in of)) for name in of[0]}

    def share(known: dict[str, tuple[float, float]], of: list[dict[str, tuple[float, float]]]) -> float:
        def leaves(one: dict[str, tuple[float, float]]) -> bool:
            return any(
                low - one[name][0] > BEYOND * (high - low) or one[name][1] - high > BEYOND * (high - low)
                for name, (low, high) in known.items()
                if high > low
            )

        return float(np.mean([leaves(one) for one in of]))

    own = ranges(mine)
    if len(own) < 2:
        return 0.0, None if theirs is None else share(joined(own), ranges(theirs))
    within = max(share(joined(own[0::2]), own[1::2]), share(joined(own[1::2]), own[0::2]))
    return within, None if theirs is None else share(joined(own), ranges(theirs))
