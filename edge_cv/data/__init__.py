"""Labelled images: labels, `Samples` and where they come from, and the `Preprocessing` between them and a model.

`open_samples` opens any source of images. To add a layout, write one function (see `opening.py`).
"""

from __future__ import annotations

import warnings
from typing import Any

from converters.images.decoding import ImageError, decode
from converters.images.preprocessing import Preprocessing
from edge_cv.data.class_counts import check_trainable, class_counts
from edge_cv.data.formats.packaged import sample, sample_calibration
from edge_cv.data.labels import Label, imagenet_labels
from edge_cv.data.opening import classes_to_train, open_samples, splits_of
from edge_cv.data.pixels import load_image, load_pixels
from edge_cv.data.samples import Sample, Samples, places_by_path, with_content
from edge_cv.data.subsets import check_disjoint, shard

__all__ = [
    "ImageError",
    "Label",
    "Preprocessing",
    "Sample",
    "Samples",
    "check_disjoint",
    "check_trainable",
    "class_counts",
    "classes_to_train",
    "decode",
    "imagenet_labels",
    "load_image",
    "load_pixels",
    "open_samples",
    "places_by_path",
    "sample",
    "sample_calibration",
    "shard",
    "splits_of",
    "with_content",
]


def __getattr__(name: str) -> Any:
    if name == "open":
        warnings.warn(
            "edge_cv.data.open is deprecated: use edge_cv.data.open_samples", DeprecationWarning, stacklevel=2
        )
        return open_samples
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
