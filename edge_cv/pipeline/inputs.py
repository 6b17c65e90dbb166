"""The inputs of a run: its photos by use, the calibration images, and the keys that identify them in cached steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
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
    from edge_cv.data import ImageSource, Photo, Samples
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
    from edge_cv.data.split import Splits, measure_and_calibrate
    from edge_cv.models import IMAGENET_CLASSES

    data, classes = recipe.data, recipe.model.classes or IMAGENET_CLASSES
    wanted = None if classes == IMAGENET_CLASSES else ()
    measured, calibration = measure_and_calibrate(data.measure, data.calibrate, data.calibration_images, classes=wanted)
    return classes, Splits(None, None, measured, calibration)


def _to_train(recipe: Recipe) -> tuple[int, Splits]:
    from edge_cv.data import classes_to_train
    from edge_cv.data.split import train_and_measure
    from edge_cv.models import IMAGENET_CLASSES

    data, classes, fit = recipe.data, recipe.model.classes, recipe.fit
    if fit is None:  # a trained model, to be compressed
        fit, classes = Fit(), classes or IMAGENET_CLASSES
    photos = train_and_measure(
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

    source: ImageSource
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
        return photos_key(self.source.photos)


def check_analysis(recipe: Recipe, source: ImageSource) -> None:
    """Raise InputError for what the analysis would refuse at the end, before the first step runs."""
    from edge_cv.evaluation.groups import read_columns
    from edge_cv.evaluation.robustness import check_measurable

    if recipe.explain.by:
        files = [photo.file for photo in source.take(recipe.data.images).photos]
        read_columns(groups_table(recipe), recipe.explain.by, files)
    if recipe.explain.corruptions:
        check_measurable(source)


def groups_table(recipe: Recipe) -> Path:
    """The CSV whose columns group the photos."""
    return Path(recipe.explain.metadata or Path(recipe.data.measure) / "labels.csv").expanduser()


def photos_key(photos: Sequence[Photo]) -> Any:
    """Identifies photos in cached steps: the sizes and times of their files, their labels and parts."""
    # Photos in an archive are identified by their names and by the archive's own size and time.
    files = fingerprint(sorted({Path(getattr(photo.place, "path", photo.file)) for photo in photos}))
    return files, [(str(photo.file), photo.label, photo.labels, photo.box, photo.flip) for photo in photos]


@functools.lru_cache(maxsize=4)
def samples_key(samples: Samples) -> Any:
    """`photos_key` of samples. It looks at every file, so it is computed once for all steps that need it."""
    from edge_cv.data import photos_of

    return photos_key(photos_of(samples).photos)
