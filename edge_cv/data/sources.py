"""Where photos come from: folders, ImageNet's validation folder, and samples that other packages carry.

A source is made from names alone and opens no photo, so that 50,000 of them take a fraction of a second; broken files
are met, named and left out when the photos are decoded.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from converters.decoding import SUFFIXES, ImageError, decode_image
from converters.errors import InputError, unknown
from converters.preprocessing import Preprocessing
from edge_cv.data.labels import imagenet_labels, name_to_indices, plain_name, validation_label, wnid_to_index

logger = logging.getLogger(__name__)

SAMPLES = ("sample", "sample_calibration")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """One photo, or a part of one.

    Attributes:
        file: the image file.
        label: the index of its class, or None where it is not known.
        box: left, top, right, bottom of the part that counts, as fractions 0..1 of the upright photo; None is all.
        flip: whether left and right are exchanged.
        labels: where a photo may show several classes, the indices of all that it shows; `label` is None then.
    """

    file: Path
    label: int | None = None
    box: Box | None = None
    flip: bool = False
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.label is not None and self.labels is not None:
            raise InputError(f"a photo must have label or labels. Received: both for {self.file}")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise InputError(f"box must be (left, top, right, bottom) within 0..1. Received: {self.box}")


@dataclass(frozen=True)
class ImageSource:
    """Photos in a fixed order, and the classes that their labels count.

    Attributes:
        name: for logs and reports.
        photos: at least one.
        classes: the class names in order; empty where no photo has a label.
    """

    name: str
    photos: tuple[Photo, ...]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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

    def take(self, count: int | None) -> ImageSource:
        """The source with `count` of its photos, evenly spread over all of them; None or too many is all.

        Spread, because folders come class by class: the first hundred of ImageNet would all be fish.
        """
        if count is None or count >= len(self.photos):
            return self
        if count < 1:
            raise InputError(f"the number of photos must be at least 1. Received: {count}")
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
    image = decode_image(photo.file)
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
    """The source that a name or a folder stands for.

    Args:
        path_or_name: `sample`, `sample_calibration`, or a folder: with a labels.csv, of ILSVRC2012_val_*.JPEG, of
            class folders, or of unlabelled photos.
        split: one of the splits that labels.csv names; all of them by default.
        classes: for class folders, as `folder` takes them.

    Raises:
        InputError: no such folder, no images in it, an unknown split, or labels that do not fit.
    """
    name = os.fspath(path_or_name)
    path = Path(name).expanduser()
    if name in SAMPLES and not path.is_dir():
        source = sample if name == "sample" else sample_calibration
    elif not path.exists():
        raise InputError(f"data must be a folder of photos, or one of {', '.join(SAMPLES)}. Received: {name}")
    elif (path / "labels.csv").is_file():
        return labels_csv(path, split=split)
    else:
        names = (entry.name for entry in _scan(path))
        is_validation = any(_VALIDATION_FILE.fullmatch(entry) for entry in names)
        source = (lambda: imagenet_validation(path)) if is_validation else (lambda: folder(path, classes=classes))
    if split is not None:
        raise InputError(f"a split must be named in a labels.csv, and {name} has none. Received: split={split!r}")
    return source()


def folder(path: str | os.PathLike, *, classes: Sequence[str] | None = None) -> ImageSource:
    """A folder of `<class>/<photo>`, or of photos without labels.

    Class folders named by wnids or ImageNet names all of them get ImageNet's indices. Other names are classes of their
    own and count from 0 in sorted order, empty folders included, so that two halves of a data set count alike. Folders
    within class folders are not searched.

    Args:
        path: the folder.
        classes: the class names in order, when the model's classes are not ImageNet's; empty is the sorted folders'.

    Raises:
        InputError: no such folder, no images in it, or class folders that do not fit `classes` or ImageNet.
    """
    path = Path(path).expanduser()
    entries = _scan(path)
    folders = [entry.name for entry in entries if _is_class_folder(entry, path)]
    images = {name: _images(path / name) for name in folders}
    loose = [entry.name for entry in entries if _is_image(entry)]
    if not any(images.values()):
        if not loose:
            where = f"its {len(folders)} class folders hold none" if folders else "there is none"
            raise InputError(f"{path} must hold images ({', '.join(SUFFIXES)}), and {where}")
        return ImageSource(path.name, tuple(Photo(path / name) for name in loose))
    if loose:
        logger.warning("%d images beside the class folders of %s are not used", len(loose), path)
    labels, names = _classes_of_folders(path, [n for n in folders if images[n]], folders, classes)
    photos = tuple(Photo(path / name / file, labels[name]) for name in folders for file in images[name])
    return ImageSource(path.name, photos, names)


def imagenet_validation(path: str | os.PathLike) -> ImageSource:
    """ImageNet's own validation folder: ILSVRC2012_val_*.JPEG side by side, labelled by their names.

    Raises:
        InputError: no such folder, no such photo in it, or a number that is not among the 50,000.
    """
    path = Path(path).expanduser()
    photos = []
    for entry in _scan(path):
        if _VALIDATION_FILE.fullmatch(entry.name):
            label = validation_label(entry.name)
            if label is None:
                raise InputError(f"{path / entry.name} must be one of the 50,000 validation photos, and is not")
            photos.append(Photo(path / entry.name, label))
    if not photos:
        raise InputError(f"{path} must hold photos named ILSVRC2012_val_NNNNNNNN.JPEG. Received: none")
    return ImageSource(path.name, tuple(photos), _imagenet_names())


def labels_csv(path: str | os.PathLike, *, split: str | None = None) -> ImageSource:
    """A folder whose labels.csv names photos of ImageNet's classes.

    Its columns: `file` (in the folder, or in its folder `images`), `index` or `wnid` or both, and perhaps `split`.

    Args:
        path: the folder.
        split: take the rows of this split only; all by default.

    Raises:
        InputError: the table is broken, contradicts itself, or names files that are not there or an unknown split.
    """
    path = Path(path).expanduser()
    table = path / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read: {error}") from error
    if "file" not in columns or not columns & {"index", "wnid"}:
        raise InputError(
            f"{table} must have the columns file and index or wnid. Received: {', '.join(map(str, columns)) or 'none'}"
        )
    if split is not None:
        splits = sorted({row["split"] for _, row in rows if row.get("split")})
        if split not in splits:
            raise unknown(f"split of {table}", split, splits)
    here, images = _file_names(path), _file_names(path / "images")
    photos, missing, lines = [], [], {}
    for line, row in rows:
        name, label = row["file"] or "", _label_of_row(row, f"{table} line {line}")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{table} line {line}: file must be a name inside the folder. Received: {name!r}")
        if lines.setdefault(name, line) != line:
            raise InputError(f"{table} lines {lines[name]} and {line} name the same file: {name}")
        if split is not None and row["split"] != split:
            continue
        if name in here or (os.sep in name and (path / name).is_file()):
            photos.append(Photo(path / name, label))
        elif name in images or (os.sep in name and (path / "images" / name).is_file()):
            photos.append(Photo(path / "images" / name, label))
        else:
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(f"{table} names files that are not there: {', '.join(missing[:3])}{more}")
    return ImageSource(path.name if split is None else f"{path.name} ({split})", tuple(photos), _imagenet_names())


def sample() -> ImageSource:
    """The 20 ImageNet photos that foolbox carries, labelled by their file names: to measure with, and very few.

    Raises:
        InputError: foolbox is not installed.
    """
    directory = _package_directory("foolbox", "foolbox") / "data"
    found = [(entry.name, _FOOLBOX_FILE.fullmatch(entry.name)) for entry in _scan(directory)]
    photos = tuple(Photo(directory / name, int(match[1])) for name, match in found if match)
    return ImageSource("sample", photos, _imagenet_names())


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
        raise InputError(f"scikit-image and scikit-learn must carry {', '.join(missing)}: {_INSTALL_DEMO}")
    return ImageSource("sample_calibration", tuple(Photo(file, None, box, flip) for file, box, flip in crops))


_INSTALL_DEMO = "pip install 'edge-cv[demo]'"
_VALIDATION_FILE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")
_FOOLBOX_FILE = re.compile(r"imagenet_\d+_(\d+)\.jpg")

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
    skimage = _package_directory("skimage", "scikit-image") / "data"
    sklearn = _package_directory("sklearn", "scikit-learn") / "datasets" / "images"
    everyday = [
        *(skimage / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")),
        *(skimage / "rocket.jpg", sklearn / "china.jpg", sklearn / "flower.jpg"),
    ]
    unusual = ("camera.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "retina.jpg")
    return everyday, [skimage / name for name in unusual]


def _package_directory(module: str, package: str) -> Path:
    """Where an installed package lies, found without importing it: foolbox alone would import its backends."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the sample photos need {package}, which is not installed: {_INSTALL_DEMO}")
    return Path(next(iter(spec.submodule_search_locations)))


def _scan(path: Path) -> list[os.DirEntry]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise InputError(f"data must be a folder that exists. Received: {path}") from None
    except OSError as error:
        raise InputError(f"data must be a folder that can be read. Received: {path} ({error.strerror})") from error


def _is_image(entry: os.DirEntry) -> bool:
    """By its name; what it is otherwise (a pipe, a broken link) the decoder finds out and names."""
    try:
        return entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _is_class_folder(entry: os.DirEntry, parent: Path) -> bool:
    """A folder or a link to one, but not a link back to the parent or above it."""
    try:
        if not entry.is_dir() or entry.name == "__MACOSX":
            return False
        return not entry.is_symlink() or not parent.resolve().is_relative_to(Path(entry.path).resolve())
    except OSError:
        return False


def _images(path: Path) -> list[str]:
    return [entry.name for entry in _scan(path) if _is_image(entry)]


def _file_names(path: Path) -> set[str]:
    return {entry.name for entry in _scan(path)} if path.is_dir() else set()


def _imagenet_names() -> tuple[str, ...]:
    return tuple(label.name for label in imagenet_labels())


def _classes_of_folders(
    path: Path, used: list[str], every: list[str], classes: Sequence[str] | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The index of each class folder in `used` (those with images), and all class names in order."""
    if classes is not None:
        classes = classes or every
        positions = {name: index for index, name in enumerate(classes)}
        for name in used:
            if name not in positions:
                raise unknown(f"class folder in {path}", name, classes)
        return {name: positions[name] for name in used}, tuple(classes)
    wnids = wnid_to_index()
    if any(name in wnids for name in used):
        for name in used:
            if name not in wnids:
                raise InputError(
                    f"{path}: beside wnids, each class folder must be a wnid of ImageNet. Received: {name}"
                )
        return {name: wnids[name] for name in used}, _imagenet_names()
    indices = {name: name_to_indices().get(plain_name(name), ()) for name in used}
    if not all(indices.values()):
        return {name: index for index, name in enumerate(every)}, tuple(every)
    for name, found in indices.items():
        if len(found) > 1:
            choice = " or ".join(imagenet_labels()[index].wnid for index in found)
            raise InputError(f"{path}: the name of {name} stands for several ImageNet classes; name it {choice}")
    return {name: found[0] for name, found in indices.items()}, _imagenet_names()


def _label_of_row(row: dict[str, str], where: str) -> int:
    """The index of a row of labels.csv, checked against its wnid where there are both."""
    wnid, index = (row.get("wnid") or "").strip(), (row.get("index") or "").strip()
    of_wnid = wnid_to_index().get(wnid)
    if wnid and of_wnid is None:
        raise InputError(f"{where}: wnid must be one of ImageNet's 1000. Received: {wnid!r}")
    if not index and of_wnid is not None:
        return of_wnid
    if not re.fullmatch(r"[0-9]{1,9}", index) or int(index) >= len(imagenet_labels()):
        raise InputError(f"{where}: index must be a whole number in 0..999. Received: {index!r}")
    if of_wnid is not None and of_wnid != int(index):
        raise InputError(f"{where}: wnid {wnid} has index {of_wnid}. Received: {index}")
    return int(index)


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
