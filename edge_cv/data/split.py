"""Two sets of photos that share none: one to calibrate on, one to measure on."""

from __future__ import annotations

from collections.abc import Sequence

from converters.errors import InputError
from edge_cv.data.opening import splits_of
from edge_cv.data.sources import ImageSource, open

CALIBRATION_SHARE = 0.2  # of a small set of photos, when they must serve for both


def measure_and_calibrate(
    measure: str, calibrate: str | None, images: int, *, classes: Sequence[str] | None = None
) -> tuple[ImageSource, ImageSource]:
    """The source to measure on and the source to calibrate on.

    Args:
        measure: a sample's name or a folder.
        calibrate: the same; None takes the calibration photos out of `measure`: its split `calibration` or `train`
            where it has one (of `test` and `validation` the first that has labels is measured), else photos spread
            evenly over it, at most a fifth of them.
        images: at most so many photos to calibrate on.
        classes: as `open` takes them.

    Raises:
        InputError: as `open`, or there are too few photos to share.
    """
    if calibrate is not None:
        return open(measure, classes=classes), open(calibrate, classes=classes).take(images)
    splits = splits_of(measure)
    first = next((split for split in ("calibration", "train") if split in splits), None)
    if first is not None:
        others = [split for split in ("test", "validation", *splits) if split in splits and split != first]
        if not others:
            raise InputError(f"{measure} must have photos to measure on. Received: its split {first} alone")
        measured = [open(measure, split=split, classes=classes) for split in others[:2]]
        labelled = next((source for source in measured if source.photos[0].label is not None), measured[0])
        return labelled, open(measure, split=first, classes=classes).take(images)
    every = open(measure, classes=classes)
    count = min(images, int(len(every) * CALIBRATION_SHARE))
    if count < 1:
        least = round(1 / CALIBRATION_SHARE)
        raise InputError(
            f"a folder for both calibration and measuring must hold at least {least} photos. "
            f"Received: {len(every)} in {measure}"
        )
    taken = every.take(count)
    used = set(taken.photos)
    rest = tuple(photo for photo in every.photos if photo not in used)
    return ImageSource(every.name, rest, every.classes), taken
