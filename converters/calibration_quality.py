"""The quality of calibration images: duplicates, leakage, stability, and coverage of other images."""

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
MOST_LOST_DB = 4.0  # between images that calibrated a model and other images
BEYOND = 0.2  # of a range: the distance outside it that counts
UNLIKE_TIMES, UNLIKE_SHARE = 2.0, 0.1


@dataclass(frozen=True)
class CalibrationQuality:
    """The assessment of calibration images.

    Attributes:
        images: the number of images.
        repeats: indices `(i, j)` of near-duplicate calibration images.
        leaked: indices `(i, j)` of a calibration image and a near-duplicate evaluation image.
        stability_db: of two int8 files, each calibrated with half of the images: the SQNR between their logits.
        seen_db: the SQNR of their logits against the float model on the half that calibrated them.
        unseen_db: the same on the other half.
        beyond: share of the evaluation images, 0..1, on which an activation is outside its calibrated range by more
            than a fifth of the range; None without evaluation images.
        beyond_within: the same for one half of the calibration images against the other half's ranges, for comparison.
        advice: one sentence for each problem; empty when there is none.
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
        model, calibration, preprocessing: as in `converters.to_tflite`; at least 2 images.
        evaluation: the images of the evaluation, given as `calibration`; None skips the comparisons with them.

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
        advice.append(f"{len(mine)} calibration images are few: use {ENOUGH_IMAGES} or more.")
    if repeats:
        advice.append(f"{len(repeats)} pairs of calibration images are near-duplicates: replace one of each.")
    if leaked:
        advice.append(
            f"{len({i for i, _ in leaked})} calibration images are also evaluation images, which makes the result too "
            "good: remove them."
        )
    if seen - unseen > MOST_LOST_DB:
        advice.append(
            f"A model calibrated with half of the images has {seen:.1f} dB on them and {unseen:.1f} dB on the others: "
            "use more images."
        )
    if beyond is not None and beyond > max(UNLIKE_TIMES * beyond_within, UNLIKE_SHARE):
        advice.append(
            f"On {beyond:.0%} of the evaluation images activations are outside their calibrated range, where "
            f"{beyond_within:.0%} is normal: calibrate on images like those."
        )
    return CalibrationQuality(len(mine), repeats, leaked, stability, seen, unseen, beyond, beyond_within, tuple(advice))


def _hashes(images: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """The hash of each image, uint64 `(n,)`; `ends` are the values of black and white."""
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
