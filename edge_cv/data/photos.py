"""Photos to measure or to calibrate on, from wherever `open_samples` finds images, and their pixels.

No photo is opened before its turn: broken ones are met, named and left out when they are decoded.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError, decode_image
from converters.images.preprocessing import Preprocessing
from edge_cv.data.formats import folders, packaged, tables
from edge_cv.data.formats.packaged import INSTALL, package_folder
from edge_cv.data.opening import open_samples
from edge_cv.data.places import Content, FilePart, Place
from edge_cv.data.samples import UNKNOWN, Samples

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """One photo, or a part of one.

    Attributes:
        file: the image file, or what a person finds the photo by.
        label: the index of its class, or None where it is not known.
        box: left, top, right, bottom of the part that counts, as fractions 0..1 of the upright photo; None is all.
        flip: whether left and right are exchanged.
        place: where it lies, when it is not a file of its own.
        labels: where a photo may show several classes, the indices of all that it shows; `label` is None then.
    """

    file: Path
    label: int | None = None
    box: Box | None = None
    flip: bool = False
    place: Place | None = None
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.label is not None and self.labels is not None:
            raise InputError(f"a photo must have label or labels. Received: both for {self.file}")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise InputError(f"box must be (left, top, right, bottom) within 0..1. Received: {self.box}")

    def image(self) -> Image.Image:
        """The whole upright photo, a Pillow image of mode RGB; ImageError when it cannot be read."""
        if self.place is None:
            return decode_image(self.file)
        try:
            return decode_image(self.place.read())
        except ImageError as error:
            raise ImageError(str(self.file), error.why) from error


def carried(value: Any) -> Any:
    """Photos with their encoded content in them, to be decoded where their files are not; anything else as it is."""
    if isinstance(value, tuple | list) and value and isinstance(value[0], Photo):
        return tuple(map(_carried, value))
    return value


def _carried(photo: Photo) -> Photo:
    place = photo.place or FilePart(str(photo.file))
    try:
        return dataclasses.replace(photo, place=Content(str(photo.file), place.read()))
    except ImageError:  # whoever decodes it says so
        return photo


class _Photos(Sequence[Photo]):
    """The photos of samples, each made when it is asked for."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        samples = self.samples
        label = labels = None
        if samples.multi_label:
            labels = tuple(np.flatnonzero(samples.labels[position]).tolist())
        elif samples.labels[position] != UNKNOWN:
            label = int(samples.labels[position])
        place = samples.place(position)
        if isinstance(place, FilePart) and place.length is None:
            return Photo(Path(place.path), label, labels=labels)
        return Photo(Path(str(place)), label, place=place, labels=labels)


@dataclass(frozen=True)
class ImageSource:
    """Photos in a fixed order, and the classes that their labels count.

    Attributes:
        name: for logs and reports.
        photos: at least one.
        classes: the class names in order; empty where no photo has a label.
    """

    name: str
    photos: Sequence[Photo]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.photos, _Photos):
            return  # samples have been checked
        if not self.photos:
            raise InputError(f"{self.name} must hold at least one photo. Received: none")
        several = self.photos[0].labels is not None
        for photo in self.photos:
            if (photo.labels is not None) != several:
                raise InputError(f"all photos must have labels, or none. Received: {self.photos[0].file}, {photo.file}")
            for label in photo.labels or (() if photo.label is None else (photo.label,)):
                if not 0 <= label < len(self.classes):
                    raise InputError(
                        f"a label must be in 0..{len(self.classes) - 1}, for {len(self.classes)} classes. "
                        f"Received: {label} for {photo.file}"
                    )

    def __len__(self) -> int:
        return len(self.photos)

    def by_file(self, files: Iterable[Path]) -> dict[Path, Photo]:
        """The photos of these files."""
        wanted = set(files)
        return {photo.file: photo for photo in self.photos if photo.file in wanted}

    def take(self, count: int | None) -> ImageSource:
        """The source with `count` of its photos, evenly spread over all of them; None or too many is all.

        Spread, because folders come class by class: the first hundred of ImageNet would all be fish.
        """
        if count is None or count >= len(self.photos):
            return self
        if count < 1:
            raise InputError(f"the number of photos must be at least 1. Received: {count}")
        if isinstance(self.photos, _Photos):
            return photos_of(self.photos.samples.take(count))
        total = len(self.photos)
        return ImageSource(self.name, tuple(self.photos[i * total // count] for i in range(count)), self.classes)

    def pixels(
        self,
        preprocessing: Preprocessing,
        *,
        limit: int | None = None,
        on_skip: Callable[[Path, str], None] | None = None,
    ) -> Iterator[tuple[np.ndarray, int | None]]:
        """Each photo as a model takes it, in order, decoded on all cores; memory does not grow with their number.

        Args:
            preprocessing: what the model sees of a photo.
            limit: how many photos to take, evenly spread (`take`); all by default.
            on_skip: called with file and reason for each that cannot be read; by default each is logged as a warning.

        Yields:
            uint8 array `(image_size, image_size, 3)` and the index of the class, or None where it is not known.

        Raises:
            InputError: not one of the photos could be read.
        """
        photos = self.take(limit).photos
        skipped = 0
        for photo, result in _in_threads(photos, lambda photo: _load_or_error(photo, preprocessing)):
            if isinstance(result, ImageError):
                skipped += 1
                if skipped == len(photos):
                    raise InputError(f"none of the {skipped} photos of {self.name} could be read. The last: {result}")
                if on_skip is None:
                    logger.warning("skipped: %s", result)
                else:
                    on_skip(photo.file, result.why)
            else:
                yield result, photo.label
        if skipped:
            logger.warning("%d of the %d photos of %s were skipped", skipped, len(photos), self.name)


def load_pixels(photo: Photo, preprocessing: Preprocessing) -> np.ndarray:
    """Decode one photo, cut its box, flip it, and crop and resize it for the model.

    Returns:
        uint8 array `(image_size, image_size, 3)`.

    Raises:
        ImageError: the file cannot be read as an image.
    """
    image = photo.image()
    if photo.box is not None:
        width, height = image.size
        left, top = int(photo.box[0] * width), int(photo.box[1] * height)
        right, bottom = round(photo.box[2] * width), round(photo.box[3] * height)
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    pixels = preprocessing.crop_and_resize(image)
    return np.ascontiguousarray(pixels[:, ::-1]) if photo.flip else pixels


def open(
    path_or_name: str | os.PathLike, *, split: str | None = None, classes: Sequence[str] | None = None
) -> ImageSource:
    """The photos to measure or to calibrate on that a name or a path stands for.

    Args:
        path_or_name: `sample_calibration`, or what `open_samples` opens.
        split: one of the source's splits; all of it by default.
        classes: as `open_samples` takes them.

    Raises:
        InputError: as `open_samples`.
    """
    if os.fspath(path_or_name) == "sample_calibration" and split is None and not os.path.isdir(path_or_name):
        return sample_calibration()
    return photos_of(open_samples(path_or_name, split=split, classes=classes))


def photos_of(samples: Samples) -> ImageSource:
    """The samples as photos to measure or to calibrate on."""
    return ImageSource(samples.name, _Photos(samples), samples.classes)


def folder(path: str | os.PathLike, *, classes: Sequence[str] | None = None) -> ImageSource:
    """A folder of class folders, or of photos without labels: the photos of `folders.class_folders`."""
    return photos_of(folders.class_folders(Path(path).expanduser(), classes))


def imagenet_validation(path: str | os.PathLike) -> ImageSource:
    """ImageNet's own validation folder: the photos of `folders.imagenet_validation`."""
    return photos_of(folders.imagenet_validation(Path(path).expanduser()))


def labels_csv(path: str | os.PathLike, *, split: str | None = None) -> ImageSource:
    """A folder with a labels.csv: the photos of `tables.labels_csv`."""
    return photos_of(tables.labels_csv(Path(path).expanduser() / "labels.csv", split=split))


def sample() -> ImageSource:
    """The 20 labelled photos of `packaged.sample`: to measure with, and very few."""
    return photos_of(packaged.sample())


def sample_calibration() -> ImageSource:
    """Crops of the photos that scikit-image and scikit-learn carry: to calibrate with, never to measure.

    None of them is in `sample`, and none has a label. The crops differ in place, size and direction and come in an
    order in which any few neighbours are of different photos.

    Raises:
        InputError: scikit-image or scikit-learn is not installed.
    """
    everyday, unusual = _photos_of_packages()
    crops = [(file, box, i % 2 == 1) for i, box in enumerate(_BOXES) for file in everyday]
    crops += [(file, box, False) for box in _BOXES[:2] for file in unusual]
    missing = sorted({file.name for file, _, _ in crops if not file.is_file()})
    if missing:
        raise InputError(f"scikit-image and scikit-learn must carry {', '.join(missing)}: {INSTALL}")
    return ImageSource("sample_calibration", tuple(Photo(file, None, box, flip) for file, box, flip in crops))


# The whole, its middle, and parts of different sizes, of which no two have the same middle.
_BOXES: tuple[Box | None, ...] = (
    None,
    (0.2, 0.2, 0.8, 0.8),
    (0.0, 0.0, 0.65, 0.7),
    (0.35, 0.3, 1.0, 1.0),
    (0.4, 0.0, 1.0, 0.6),
    (0.0, 0.35, 0.6, 1.0),
    (0.25, 0.05, 0.75, 0.55),
    (0.1, 0.4, 0.6, 0.9),
)


def _photos_of_packages() -> tuple[list[Path], list[Path]]:
    """Everyday colour photographs, and grey or scientific ones; no drawings, scans of text or charts."""
    skimage = package_folder("skimage", "scikit-image") / "data"
    sklearn = package_folder("sklearn", "scikit-learn") / "datasets" / "images"
    everyday = [
        *(skimage / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")),
        *(skimage / "rocket.jpg", sklearn / "china.jpg", sklearn / "flower.jpg"),
    ]
    unusual = ("camera.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "retina.jpg")
    return everyday, [skimage / name for name in unusual]


def _load_or_error(photo: Photo, preprocessing: Preprocessing) -> np.ndarray | ImageError:
    try:
        return load_pixels(photo, preprocessing)
    except ImageError as error:
        return error


def _in_threads(photos: Iterable[Photo], load: Callable[[Photo], object]) -> Iterator[tuple[Photo, object]]:
    """`(photo, load(photo))` in order, on all cores, with a bounded number of results waiting."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    photos = iter(photos)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        waiting = deque((photo, pool.submit(load, photo)) for photo in islice(photos, 4 * workers))
        while waiting:
            photo, future = waiting.popleft()
            result = future.result()
            for following in islice(photos, 1):
                waiting.append((following, pool.submit(load, following)))
            yield photo, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
