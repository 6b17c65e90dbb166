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
    from edge_cv.data import Samples
    from edge_cv.data.split import Splits
    from edge_cv.pipeline.file_model import FileModel


def open_photos(recipe: Recipe, file_model: FileModel | None = None) -> tuple[Recipe, Splits]:
    """Open the recipe's photos.

    Args:
        recipe: names the photos.
        file_model: the recipe's model if that is a file; else the recipe names an architecture.

    Returns:
        The recipe, with the number of classes of its architecture filled in, and the photos by use.

    Raises:
        InputError: the architecture is unknown, the photos cannot be opened, or their classes are not the model's.
    """
    from edge_cv.models import names

    if file_model is None and recipe.model.name not in names():
        raise unknown("model", recipe.model.name, names())
    trains = recipe.fit is not None or bool(recipe.compression())
    classes, photos = (_to_train if trains else _to_measure)(recipe, file_model)
    if file_model is None:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, classes=classes))
    return recipe, photos


def _to_measure(recipe: Recipe, file_model: FileModel | None) -> tuple[int, Splits]:
    from edge_cv.data.split import split_for_evaluation
    from edge_cv.models import IMAGENET_CLASSES

    data, classes = recipe.data, recipe.model.classes or IMAGENET_CLASSES
    names: Sequence[str] = ()
    if file_model is not None:
        classes, names = file_model.classes, file_model.labels or ()
    wanted = None if classes == IMAGENET_CLASSES else names
    photos = split_for_evaluation(data.measure, data.calibrate, data.calibration_images, classes=wanted)
    _check_labels(photos.test, classes)
    return classes, photos


def _check_labels(samples: Samples, classes: int) -> None:
    """Raise InputError if a photo shows a class that the model does not have."""
    labels = samples.labels
    if labels[:, classes:].any() if samples.multi_label else (labels >= classes).any():
        raise InputError(
            f"the photos must be of the model's {classes} classes. Received: {len(samples.classes)} in {samples.name}"
        )


def _to_train(recipe: Recipe, file_model: FileModel | None) -> tuple[int, Splits]:
    from edge_cv.data import classes_to_train
    from edge_cv.data.split import split_for_training
    from edge_cv.models import IMAGENET_CLASSES

    data, classes, fit = recipe.data, recipe.model.classes, recipe.fit
    if file_model is not None:
        classes = file_model.classes
    elif fit is None:  # a trained model, to be compressed
        classes = classes or IMAGENET_CLASSES
    fit = fit or Fit()
    names: Sequence[str] | None = None
    if file_model is not None and file_model.labels and classes != IMAGENET_CLASSES:
        names = file_model.labels
    elif classes != IMAGENET_CLASSES:
        names = classes_to_train(fit.data or data.measure)
    photos = split_for_training(
        data.measure,
        data.calibrate,
        data.calibration_images,
        train=fit.data,
        validation=fit.validation,
        classes=names,
        taught_classes=_taught_classes(fit, classes),
        seed=fit.seed,
    )
    count = len(training_photos(photos).classes)
    if file_model is not None and training_photos(photos).multi_label:
        classes = file_model.outputs
    if file_model is not None and classes != count:
        raise InputError(
            f"the photos must be of the model's {classes} classes. Received: {count} in {fit.data or data.measure}"
        )
    if classes not in (None, count):
        raise InputError(f"model.classes must be those of the training photos, {count}. Received: {classes}")
    if fit.images is not None:
        photos = dataclasses.replace(photos, train=training_photos(photos).take(fit.images))
    return count, photos


def _taught_classes(fit: Fit, classes: int | None) -> Sequence[str]:
    """The classes of photos without labels: ImageNet's, if a teacher of these is all that the student learns from."""
    from edge_cv.data.labels import imagenet_names
    from edge_cv.models import IMAGENET_CLASSES

    alone = fit.teacher is not None and fit.teacher.share == 1
    return imagenet_names() if alone and classes == IMAGENET_CLASSES else ()


def training_photos(photos: Splits) -> Samples:
    """The training photos of a run that trains or compresses."""
    if photos.train is None:
        raise InputError("a run that trains or compresses must have training photos. Received: none")
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
        """`(n, height, width, channels)` in the range that the model takes: uint8 if that is pixels 0..255."""
        return self.pixels if self.preprocessing.takes_pixels else self.preprocessing.to_input(self.pixels)

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """uint8 `(n, height, width, channels)`."""
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
