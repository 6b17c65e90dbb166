"""Stratified k-fold cross-validation of a training, for tasks whose validation set is too small to say anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from edge_cv.data.split import Splits
from edge_cv.intervals import wilson_interval
from edge_cv.pipeline.inputs import training_photos
from edge_cv.progress import Progress

if TYPE_CHECKING:
    from edge_cv.data import Samples
    from edge_cv.training import Fitted

FEW_PHOTOS = 50  # of validation: the interval of a score on fewer is wider than 15 points


def stratified_folds(samples: Samples, folds: int, seed: int) -> Iterator[tuple[Samples, Samples]]:
    """Training and validation part of each fold; every class is spread evenly over the folds.

    Args:
        samples: with one label an image.
        folds: at least 2, and at most the number of images of the smallest class.
        seed: of the draw.

    Raises:
        InputError: a class has fewer images than there are folds, or an image has several labels.
    """
    if samples.multi_label:
        raise InputError("fit.folds needs one label an image. Received: several")
    counts = np.bincount(samples.labels)
    least = int(counts[counts > 0].min())
    if least < folds:
        raise InputError(f"fit.folds must be at most {least}, the images of the smallest class. Received: {folds}")
    order = np.random.default_rng(seed).permutation(len(samples))
    order = order[np.argsort(samples.labels[order], kind="stable")]
    fold = np.empty(len(samples), np.int64)
    fold[order] = np.arange(len(samples)) % folds
    for number in range(folds):
        yield samples.select(np.flatnonzero(fold != number)), samples.select(np.flatnonzero(fold == number))


def cross_validate(
    photos: Splits, folds: int, seed: int, train: Callable[[Splits, int], Fitted], progress: Progress
) -> str:
    """Train on every fold and validate on the rest.

    Args:
        photos: the training photos are divided; the others are not used.
        folds: see `stratified_folds`.
        seed: of the draw.
        train: trains a new model on the photos of a fold; gets these and the number of the fold. The last epoch of its
            history is scored, because the folds' photos must choose nothing.
        progress: shows the result.

    Returns:
        The result as a sentence for the report.
    """
    hits = images = 0
    for number, (part, rest) in enumerate(stratified_folds(training_photos(photos), folds, seed)):
        last = train(dataclasses.replace(photos, train=part, validation=rest), number).history[-1]
        hits += round(last["validation_score"] * last["validation_images"])
        images += last["validation_images"]
    low, high = wilson_interval(hits, images)
    text = (
        f"Stratified {folds}-fold cross-validation of the training: top-1 {100 * hits / images:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}) of {images} photos, each classified by a model trained without it."
    )
    with progress("cross-validation") as update:
        update(folds, folds, text)
    return text


def small_validation_note(photos: Splits) -> list[str]:
    """What to do about a validation set of fewer than `FEW_PHOTOS` photos; nothing for a larger one."""
    count = 0 if photos.validation is None else len(photos.validation)
    if not 0 < count < FEW_PHOTOS:
        return []
    return [
        f"The validation set has {count} photos, too few to compare trainings by. fit.folds=5 cross-validates the "
        "training in five folds, in six times the time."
    ]
