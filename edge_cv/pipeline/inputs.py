"""The inputs of a run: its photos by use, the calibration images, and the keys that identify them in cached steps."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, unknown
from edge_cv.progress import Progress
from edge_cv.recipe import Fit, Recipe
from edge_cv.stages import fingerprint

if TYPE_CHECKING:
    import numpy as np

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Samples
    from edge_cv.data.split import Splits


def open_photos(recipe: Recipe) -> tuple[Recipe, Splits]:
    """Open the recipe's photos.

    Returns:
        The recipe with its number of classes filled in, and the photos by use.

    Raises:
        InputError: the architecture is unknown, the photos cannot be opened, or their classes are not the model's.
    """
    from edge_cv.models import names

    if recipe.model.name not in names():
        raise unknown("model", recipe.model.name, names())
    if recipe.fit is None and not recipe.compression():
        classes, photos = _to_measure(recipe)
    else:
        classes, photos = _to_train(recipe)
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, classes=classes)), photos


def _to_measure(recipe: Recipe) -> tuple[int, Splits]:
    from edge_cv.data.split import split_for_evaluation
    from edge_cv.models import IMAGENET_CLASSES

    data, classes = recipe.data, recipe.model.classes or IMAGENET_CLASSES
    wanted = None if classes == IMAGENET_CLASSES else ()
    return classes, split_for_evaluation(data.measure, data.calibrate, data.calibration_images, classes=wanted)


def _to_train(recipe: Recipe) -> tuple[int, Splits]:
    from edge_cv.data import classes_to_train
    from edge_cv.data.split import split_for_training
    from edge_cv.models import IMAGENET_CLASSES

    data, classes, fit = recipe.data, recipe.model.classes, recipe.fit
    if fit is None:  # a trained model, to be compressed
        fit, classes = Fit(), classes or IMAGENET_CLASSES
    photos = split_for_training(
        data.measure,
        data.calibrate,
        data.calibration_images,
        train=fit.data,
        validation=fit.validation,
        classes=None if classes == IMAGENET_CLASSES else classes_to_train(fit.data or data.measure),
        seed=fit.seed,
    )
    train = training_photos(photos)
    if classes not in (None, len(train.classes)):
        raise InputError(
            f"model.classes must be those of the training photos, {len(train.classes)}. Received: {classes}"
        )
    if fit.images is not None:
        photos = dataclasses.replace(photos, train=train.take(fit.images))
    return len(train.classes), photos


def training_photos(photos: Splits) -> Samples:
    """The training photos of a run that trains or compresses."""
    assert photos.train is not None
    return photos.train


@dataclass(frozen=True)
class CalibrationImages:
    """The calibration photos, decoded when the first step asks for them.

    Attributes:
        source: the photos.
        preprocessing: how a photo becomes the model's input.
        progress: shows the decoding.
    """

    source: Samples
    preprocessing: Preprocessing
    progress: Progress

    @functools.cached_property
    def images(self) -> np.ndarray:
        """uint8 `(n, image_size, image_size, 3)`."""
        import numpy as np

        with self.progress("decoding calibration photos") as update:
            pixels = []
            for done, (photo, _) in enumerate(self.source.pixels(self.preprocessing), 1):
                pixels.append(photo)
                update(done, len(self.source))
            return np.stack(pixels)

    @functools.cached_property
    def key(self) -> Any:
        """Identifies the photos in cached steps."""
        return samples_key(self.source)


def check_analysis(recipe: Recipe, source: Samples) -> None:
    """Raise InputError for what the analysis would refuse at the end, before the first step runs."""
    from edge_cv.evaluation.groups import read_columns
    from edge_cv.evaluation.robustness import check_measurable

    if recipe.analysis.by:
        files = list(source.take(recipe.data.images).paths())
        read_columns(groups_table(recipe), recipe.analysis.by, files)
    if recipe.analysis.corruptions:
        check_measurable(source)


def groups_table(recipe: Recipe) -> Path:
    """The CSV whose columns group the photos."""
    return Path(recipe.analysis.metadata or Path(recipe.data.measure) / "labels.csv").expanduser()


@functools.lru_cache(maxsize=8)
def samples_key(samples: Samples) -> Any:
    """Identifies photos in cached steps: their paths and labels, and the sizes and times of their files."""
    photos = samples.chunk(0, len(samples))
    # Photos in an archive are identified by their names and by the archive's own size and time.
    files = fingerprint(sorted({Path(getattr(photo.place, "path", photo.path)) for photo in photos}))
    return files, [(str(photo.path), photo.label, photo.label_set) for photo in photos]
