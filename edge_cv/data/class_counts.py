"""The classes of samples: counting images, matching class names, and what training requires of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from converters.errors import InputError
from edge_cv.data.labels import positions_of
from edge_cv.data.samples import UNKNOWN, Samples, shortened


def class_counts(samples: Samples) -> np.ndarray:
    """The number of images of each class, int64 `(classes,)`."""
    if samples.multi_label:
        return samples.labels.sum(axis=0, dtype=np.int64)
    return np.bincount(samples.labels[samples.labels >= 0], minlength=len(samples.classes))


def with_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    """The samples with labels that index other class names.

    Args:
        samples: the samples.
        classes: the class names in order; all classes that have an image must be among them.

    Raises:
        InputError: a class is not among `classes`, or a name is not unique.
    """
    if tuple(samples.classes) == tuple(classes):
        return samples
    used = np.flatnonzero(class_counts(samples))
    names = [samples.classes[index] for index in used]
    positions = positions_of(names, classes)
    missing = [name for name in names if name not in positions]
    if missing:
        raise InputError(f"{samples.name} has images of other classes than the given ones: {shortened(missing)}")
    if len(set(positions.values())) < len(names) or len(set(classes)) < len(classes):
        raise InputError(f"class names must differ to be matched. Received: {samples.name} with names that repeat")
    target = np.array([positions[name] for name in names], np.int64)
    if samples.multi_label:
        labels = np.zeros((len(samples), len(classes)), bool)
        labels[:, target] = samples.labels[:, used]
    else:
        table = np.full(len(samples.classes) + 1, UNKNOWN, np.int32)  # the last entry is for UNKNOWN
        table[used] = target
        labels = table[samples.labels]
    return dataclasses.replace(samples, classes=tuple(classes), labels=labels)


def check_trainable(samples: Samples) -> None:
    """Raise InputError unless every image has a label, there are two classes, and each class has an image."""
    if not samples.multi_label and (samples.labels == UNKNOWN).any():
        without = int(np.argmax(samples.labels == UNKNOWN))
        raise InputError(f"each image to train on must have a label. Received: {samples.place(without)} without one")
    if len(samples.classes) < (1 if samples.multi_label else 2):
        raise InputError(f"a classifier needs at least two classes. Received: {len(samples.classes)} in {samples.name}")
    empty = np.flatnonzero(class_counts(samples) == 0)
    if len(empty):
        raise InputError(
            f"{samples.name}: each of the {len(samples.classes)} classes must have an image to train on. "
            f"Received: none for {shortened([samples.classes[i] for i in empty])}; add some, or remove the class "
            "(in Python see `classes_to_train`)"
        )
