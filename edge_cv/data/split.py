"""Disjoint sets of photos for training, validation and test, and photos to calibrate on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import InputError
from edge_cv.data.class_counts import check_trainable
from edge_cv.data.opening import open_samples, splits_of
from edge_cv.data.samples import UNKNOWN, Samples
from edge_cv.data.subsets import check_disjoint, split_by_name

CALIBRATION_SHARE = 0.2  # of photos that serve for both calibration and test
VALIDATION_SHARE = 0.1  # of the training photos
MOST_VALIDATION = 10_000  # photos; more do not improve the choice of the epoch


@dataclass(frozen=True)
class Splits:
    """The photos of a run by use. They are disjoint, except that calibration photos may be training photos.

    Attributes:
        train: to train on; every class has a photo. None where nothing is trained.
        validation: to choose the epoch by. None where nothing is trained.
        test: to measure on; no choice depends on them.
        calibration: to calibrate on.
    """

    train: Samples | None
    validation: Samples | None
    test: Samples
    calibration: Samples


def split_for_evaluation(
    measure: str, calibrate: str | None, images: int, *, classes: Sequence[str] | None = None
) -> Splits:
    """Open photos to measure and to calibrate on.

    Args:
        measure: a source of images. Where `calibrate` is None and the source has a split `calibration` or `train`, the
            first labelled one of its splits `test` and `validation` is measured.
        calibrate: a source of images. Default: the split `calibration` or `train` of `measure`; without one up to a
            fifth of its photos, evenly spaced, which are then not measured.
        images: the largest number of calibration photos.
        classes: as for `open_samples`.

    Returns:
        The splits, without `train` and `validation`.

    Raises:
        InputError: as `open_samples`, or there are too few photos for both.
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
        candidates = [open_samples(measure, split=split, classes=classes) for split in others[:2]]
        test = next((samples for samples in candidates if samples.label(0) is not None), candidates[0])
        return Splits(None, None, test, open_samples(measure, split=first, classes=classes).take(images))
    every = open_samples(measure, classes=classes)
    count = min(images, int(len(every) * CALIBRATION_SHARE))
    if count < 1:
        least = round(1 / CALIBRATION_SHARE)
        raise InputError(
            f"a folder for both calibration and measuring must hold at least {least} photos. "
            f"Received: {len(every)} in {measure}"
        )
    chosen = np.arange(count) * len(every) // count  # as Samples.take
    rest = np.setdiff1d(np.arange(len(every)), chosen)
    return Splits(None, None, every.select(rest), every.select(chosen))


def split_for_training(
    measure: str,
    calibrate: str | None,
    images: int,
    *,
    train: str | None = None,
    validation: str | None = None,
    classes: Sequence[str] | None = (),
    taught_classes: Sequence[str] = (),
    seed: int = 0,
) -> Splits:
    """Open photos to train, validate, measure and calibrate on.

    Args:
        measure: a source of images. The first labelled one of its splits `test` and `validation` is measured; without
            splits all photos, or a fifth of them, drawn class by class, where `train` is None.
        calibrate: a source of images. Default: training photos.
        images: the largest number of calibration photos.
        train: the source to train on: its split `train`, or all of it. Default: the rest of `measure`.
        validation: the source to validate on. Default: the training source's split `validation` where another one is
            measured, else a tenth of the training photos, at most 10,000.
        classes: as for `open_samples`; the test photos get the classes of the training photos.
        taught_classes: the class names of a teacher whose answers replace labels: the photos to train on may then have
            none.
        seed: decides which photos are drawn.

    Raises:
        InputError: as `open_samples`; a class has no training photo; a photo would be in two sets.
    """
    source = measure if train is None else train
    if train is not None and train != measure and not splits_of(source):
        training = open_samples(train, classes=classes)
    else:
        training = open_samples(source, "train", classes, seed=seed)
    taught = bool(taught_classes) and not training.classes
    if taught:
        training = dataclasses.replace(training, classes=tuple(taught_classes))
    else:
        check_trainable(training)
    test, test_split = _test_photos(measure, source, training, seed)
    if validation is not None:
        split = "validation" if "validation" in splits_of(validation) else None
        validating = open_samples(validation, split, training.classes)
        if taught and not validating.classes:
            validating = dataclasses.replace(validating, classes=training.classes)
        elif (validating.labels == UNKNOWN).all():
            raise InputError(f"photos of fit.validation must have labels. Received: none in {validating.name}")
    elif train is None and "validation" in splits_of(measure) and test_split != "validation":
        validating = open_samples(source, "validation", training.classes)
    else:
        share = min(VALIDATION_SHARE, MOST_VALIDATION / len(training))
        training, validating = split_by_name(training, share, seed + 1)
        validating = dataclasses.replace(validating, name=f"{validating.name} (drawn from it)")
    for name, other in (("validation", validating), ("measured", test)):
        try:
            check_disjoint(training, other)
        except InputError as error:
            raise InputError(f"{name} photos: {error}") from error
    if validation is not None:
        _check_not_measured(validating, test)
    calibration = training if calibrate is None else open_samples(calibrate, classes=training.classes)
    return Splits(training, validating, test, calibration.take(images))


def _test_photos(measure: str, source: str, training: Samples, seed: int) -> tuple[Samples, str | None]:
    """The photos to measure on and their split, with the classes of the training photos."""
    # A source's own test split is measured. Of the training source itself the part that is drawn from it is measured.
    splits = splits_of(measure)
    own: list[str | None] = [split for split in ("test", "validation") if split in splits]
    drawn = ["validation"] if source == measure and not splits else [None]
    candidates = own or drawn
    for split in candidates:
        samples = open_samples(measure, split, training.classes, seed=seed)
        if samples.multi_label or (samples.labels >= 0).any():
            break
    return samples, split


def _check_not_measured(validation: Samples, test: Samples) -> None:
    validation_paths = set(validation.paths())
    shared = sum(path in validation_paths for path in test.paths())
    if shared:
        raise InputError(
            f"photos of fit.validation must not be measured on too. Received: {shared} of the {len(test)} "
            f"photos of {test.name}"
        )
