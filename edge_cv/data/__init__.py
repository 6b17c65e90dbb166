"""What goes into a model: labels, photos and where they come from, and the `Preprocessing` between them.

A source is an `ImageSource`: labelled photos in a fixed order. To add one, write one function in `sources.py`.
"""

from __future__ import annotations

from converters.decoding import ImageError, decode
from converters.preprocessing import Preprocessing
from edge_cv.data.labels import Label, imagenet_labels
from edge_cv.data.layouts import open_samples
from edge_cv.data.samples import Samples, check_disjoint, check_trainable, class_counts, shard
from edge_cv.data.sources import (
    ImageSource,
    Photo,
    folder,
    imagenet_validation,
    labels_csv,
    load_pixels,
    open,
    sample,
    sample_calibration,
)

__all__ = [
    "ImageError",
    "ImageSource",
    "Label",
    "Photo",
    "Preprocessing",
    "Samples",
    "check_disjoint",
    "check_trainable",
    "class_counts",
    "decode",
    "folder",
    "imagenet_labels",
    "imagenet_validation",
    "labels_csv",
    "load_pixels",
    "open",
    "open_samples",
    "sample",
    "sample_calibration",
    "shard",
]
