"""Two sets of photos that share none: one to calibrate on, one to measure on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from converters.errors import InputError
from edge_cv.data.sources import ImageSource, open

CALIBRATION_SHARE = 0.2  # of a small set of photos, when they must serve for both


def measure_and_calibrate(
    measure: str, calibrate: str | None, images: int, *, classes: Sequence[str] | None = None
) -> tuple[ImageSource, ImageSource]:
    """The source to measure on and the source to calibrate on.

    Args:
        measure: a sample's name or a folder.
        calibrate: the same; None takes the calibration photos out of `measure`: its split `calibration` where a
            labels.csv has one (the rest, or its split `test`, is measured), else photos spread evenly over it, at most
            a fifth of them.
        images: at most so many photos to calibrate on.
        classes: as `open` takes them.

    Raises:
        InputError: as `open`, or there are too few photos to share.
    """
    if calibrate is not None:
        return open(measure, classes=classes), open(calibrate, classes=classes).take(images)
    splits = _splits(Path(measure).expanduser())
    if "calibration" in splits:
        rest = "test" if "test" in splits else next(iter(sorted(splits - {"calibration"})), None)
        if rest is None:
            raise InputError(f"{measure} must have photos to measure on. Received: a labels.csv with calibration alone")
        return open(measure, split=rest), open(measure, split="calibration").take(images)
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


def _splits(folder: Path) -> set[str]:
    table = folder / "labels.csv"
    if not table.is_file():
        return set()
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return {row["split"] for row in csv.DictReader(file) if row.get("split")}
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()  # `open` says what is wrong with it
