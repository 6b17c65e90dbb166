"""What goes into a model: labels, photos and where they come from, and the `Preprocessing` between them.

`open_samples` opens whatever holds labelled images as `Samples`, to train on; `open` opens the same as an
`ImageSource`, to measure and to calibrate on. To add a layout, write one function (see `opening.py`).
"""

from __future__ import annotations

from converters.images.decoding import ImageError, decode
from converters.images.preprocessing import Preprocessing
from edge_cv.data.labels import Label, imagenet_labels
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.photos import (
    ImageSource,
    Photo,
    carried,
    folder,
    imagenet_validation,
    labels_csv,
    load_pixels,
    open,
    photos_of,
    sample,
    sample_calibration,
)
from edge_cv.data.samples import Samples, check_disjoint, check_trainable, class_counts, shard

__all__ = [
    "ImageError",
    "ImageSource",
    "Label",
    "Photo",
    "Preprocessing",
    "Samples",
    "carried",
    "check_disjoint",
    "check_trainable",
    "class_counts",
    "classes_to_train",
    "decode",
    "folder",
    "imagenet_labels",
    "imagenet_validation",
    "labels_csv",
    "load_pixels",
    "open",
    "open_samples",
    "photos_of",
    "sample",
    "sample_calibration",
    "shard",
    "splits_of",
]
