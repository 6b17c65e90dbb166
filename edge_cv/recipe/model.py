"""The parts of a recipe that name the model and the images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.errors import InputError, unknown
from edge_cv.recipe.fields import Part

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite")
LARGEST_SIDE = 4096  # pixels; a classifier of phones and boards has a few hundred
MOST_CLASSES = 1_000_000
# Fields that a model file does not have, and their defaults.
_ARCHITECTURE_FIELDS: dict[str, Any] = {
    "weights": None,
    "classes": None,
    "channels": 3,
    "alpha": 1.0,
    "options": {},
}
_PREPROCESSING_FIELDS = ("resize_to", "rule", "interpolation")
_FILE_PREPROCESSING_FIELDS = (*_PREPROCESSING_FIELDS, "mean", "std")


@dataclass(frozen=True)
class Model(Part):
    """The model: an architecture, built by `edge_cv.models.build`, or a model file.

    Attributes:
        name: an architecture listed by `edge-cv models`, or the path of a model file: a `.keras` or `.h5` file, a float
            `.tflite` file, or a SavedModel folder. The fields `weights`, `classes`, `channels`, `alpha` and
            `options` are for an architecture.
        weights: `imagenet`, the path of a `.keras` or `.weights.h5` file of edge_cv, or None for random weights.
        classes: number of logits. None means the number of classes in the training data, or 1000 without training.
        image_size: height and width of the input, in pixels: one number for a square, or `(height, width)`. None means
            the architecture's default. A model file needs it only if its input has no fixed size.
        channels: of the architecture's input: 3 for RGB, 1 for grey.
        alpha: width multiplier.
        options: options of the architecture's family.
        preprocessing: fields of `converters.Preprocessing` to change, such as `{"resize_to": None}` to use the whole
            square of a photo instead of its centre: `resize_to`, `rule`, `interpolation`; for a file also `mean`
            and `std`.
        output: the name of the output of the classes, for a model file with several outputs.
    """

    name: str
    weights: str | None = None
    classes: int | None = None
    image_size: int | tuple[int, ...] | None = None
    alpha: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    channels: int = 3
    output: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether `name` is the path of a model file rather than the name of an architecture."""
        path = Path(self.name)
        is_path = "/" in self.name or os.sep in self.name or path.suffix in MODEL_SUFFIXES
        return is_path or path.is_file() or (path / "saved_model.pb").is_file()

    @property
    def short_name(self) -> str:
        """The architecture's name, or the file's name without folder and suffix; the prefix of output files."""
        return (Path(self.name).stem or "model") if self.is_file else self.name

    def check(self) -> None:
        self.check_at_least(1, "classes", "image_size")
        self.check_at_most(LARGEST_SIDE, "image_size")
        self.check_at_most(MOST_CLASSES, "classes")
        if isinstance(self.image_size, tuple) and len(self.image_size) != 2:
            raise InputError(f"Model.image_size must be one number, or (height, width). Received: {self.image_size}")
        if self.output is not None and not self.is_file:
            raise InputError(f"Model.output is for a model file, not for an architecture. Received: {self.output!r}")
        for name, default in _ARCHITECTURE_FIELDS.items() if self.is_file else ():
            value = getattr(self, name)
            if value != default:
                raise InputError(f"Model.{name} is for an architecture, not for a model file. Received: {value!r}")
        allowed = _FILE_PREPROCESSING_FIELDS if self.is_file else _PREPROCESSING_FIELDS
        for name in self.preprocessing:
            if name not in allowed:
                raise unknown("field of Model.preprocessing", name, allowed)


@dataclass(frozen=True)
class Data(Part):
    """The images for calibration and measurement. No image is used for both.

    Attributes:
        measure: the labelled images to measure on: `sample`, or a folder (class folders, ImageNet's flat validation
            folder, or one with a labels.csv).
        calibrate: the images to calibrate on: `sample_calibration`, or a folder. None takes them from `measure`: its
            `calibration` split if its labels.csv has one, otherwise images spread evenly over it, which are then not
            measured.
        calibration_images: largest number of calibration images.
        images: largest number of measured images, spread evenly. None means all.
    """

    measure: str = "sample"
    calibrate: str | None = "sample_calibration"
    calibration_images: int = 100
    images: int | None = None

    def check(self) -> None:
        self.check_at_least(1, "calibration_images", "images")
