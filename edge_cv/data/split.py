"""Sets of photos that share none: to train on, to validate on, to calibrate on and to measure on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import InputError
from edge_cv.data.opening import open_samples, splits_of
from edge_cv.data.samples import Samples, check_disjoint, check_trainable, split_by_name

CALIBRATION_SHARE = 0.2  # of a small set of photos, when they must serve for both
VALIDATION_SHARE = 0.1  # of the training photos, to choose the best epoch by
MOST_VALIDATION = 10_000  # photos; more do not choose better


def split_for_evaluation(
    measure: str, calibrate: str | None, images: int, *, classes: Sequence[str] | None = None
) -> Splits:
    """The source to measure on and the source to calibrate on.

    Args:
        measure: a sample's name or a folder.
        calibrate: the same; None takes the calibration photos out of `measure`: its split `calibration` or `train`
            where it has one (of `test` and `validation` the first that has labels is measured), else photos spread
            evenly over it, at most a fifth of them.
        images: at most so many photos to calibrate on.
        classes: as `open_samples` takes them.

    Raises:
        InputError: as `open_samples`, or there are too few photos to share.
    """
    if calibrate is not None:
        test = open_samples(measure, classes=classes)
        return Splits(None, None, test, open_samples(calibrate, classes=classes).take(images))
    splits = splits_of(measure)
    first = next((split for split in ("calibration", "train") if split in splits), None)
    if first is not None:
        others = [split for split in ("test", "validation", *splits) if split in splits and split != first]
        if not others:
            raise InputError(f"{measure} must have photos to measure on. Received: its split {first} alone")
        measured = [open_samples(measure, split=split, classes=classes) for split in others[:2]]
        labelled = next((source for source in measured if source.label(0) is not None), measured[0])
        return Splits(None, None, labelled, open_samples(measure, split=first, classes=classes).take(images))
    every = open_samples(measure, classes=classes)
    count = min(images, int(len(every) * CALIBRATION_SHARE))
    if count < 1:
        least = round(1 / CALIBRATION_SHARE)
        raise InputError(
            f"a folder for both calibration and measuring must hold at least {least} photos. "
            f"Received: {len(every)} in {measure}"
        )
    taken = np.arange(count) * len(every) // count  # as Samples.take
    rest = np.setdiff1d(np.arange(len(every)), taken)
    return Splits(None, None, every.select(rest), every.select(taken))


@dataclass(frozen=True)
class Splits:
    """What the photos of a run are used for; no photo is in two of these, but for calibration.

    Attributes:
        train: to learn from; every class has a photo. None where nothing is trained.
        validation: to choose the best epoch by.
        test: to measure on; no choice depends on it.
        calibration: some of those that were learned from, or others.
    """

    train: Samples | None
    validation: Samples | None
    test: Samples
    calibration: Samples


def split_for_training(
    measure: str,
    calibrate: str | None,
    images: int,
    *,
    train: str | None = None,
    validation: str | None = None,
    classes: Sequence[str] | None = (),
    seed: int = 0,
) -> Splits:
    """Photos to train, validate, measure and calibrate on.

    Args:
        measure: a name or a folder. Of its splits `test`, else `validation`, the first that has labels is measured;
            without splits a fifth of the photos, drawn class by class.
        calibrate: the same; None takes training photos.
        images: at most so many photos to calibrate on.
        train: the source to train on: its split `train`, or all of it. None trains on the rest of `measure`.
        validation: the source to validate on. None takes the training source's split `validation` when another one is
            measured, else a tenth of the training photos, at most 10,000.
        classes: as `open_samples` takes them; what is measured has the training's.
        seed: which photos are drawn.

    Raises:
        InputError: as `open_samples`; a class without a training photo; photos that would be in two shares.
    """
    source = measure if train is None else train
    splits = splits_of(source)
    if train is not None and not splits and train != measure:
        learned = open_samples(train, classes=classes)
    else:
        learned = open_samples(source, "train", classes, seed=seed)
    check_trainable(learned)
    # A source whose own split is kept apart is measured by that; any other by the part that is drawn from it.
    parts = [split for split in ("test", "validation") if split in splits_of(measure)]
    drawn = ["validation"] if source == measure and not splits else [None]
    for split in parts or drawn:
        measured = open_samples(measure, split, learned.classes, seed=seed)
        if measured.multi_label or (measured.labels >= 0).any():
            break
    if validation is not None:
        own = "validation" if "validation" in splits_of(validation) else None
        validated = open_samples(validation, own, learned.classes)
    elif train is None and "validation" in parts and split != "validation":
        validated = open_samples(source, "validation", learned.classes)
    else:
        share = min(VALIDATION_SHARE, MOST_VALIDATION / len(learned))
        learned, validated = split_by_name(learned, share, seed + 1)
        validated = dataclasses.replace(validated, name=f"{validated.name} (drawn from it)")
    for name, other in (("validation", validated), ("measured", measured)):
        try:
            check_disjoint(learned, other)
        except InputError as error:
            raise InputError(f"{name} photos: {error}") from error
    if validation is not None:
        chosen_by = set(validated.paths())
        shared = sum(path in chosen_by for path in measured.paths())
        if shared:
            raise InputError(
                f"photos of fit.validation must not be measured on too. Received: {shared} of the {len(measured)} "
                f"photos of {measured.name}"
            )
    calibration = learned if calibrate is None else open_samples(calibrate, classes=learned.classes)
    return Splits(learned, validated, measured, calibration.take(images))
