"""Images from installed packages: scikit-learn's digits, foolbox's ImageNet photos, and photos to calibrate on."""

from __future__ import annotations

import importlib.util
import io
import os
import re
from pathlib import Path

import numpy as np

from converters.errors import InputError, unknown
from converters.packages import missing_extra
from edge_cv.data.formats.directories import scan
from edge_cv.data.formats.layout import Layout
from edge_cv.data.labels import imagenet_names
from edge_cv.data.places import CroppedPhoto, FilePart, Files, Memory, Packed, PlaceList
from edge_cv.data.samples import UNKNOWN, Samples

DIGITS_SPLITS = ("train", "test")
DIGITS_TEST_IMAGES = 360  # a fifth
DIGITS_FILE = Path("datasets", "data", "digits.csv.gz")  # of scikit-learn
EXTRA = "demo"

_BRIGHTEST = 16  # scikit-learn's pixels are 0..16
_FOOLBOX_FILE = re.compile(r"imagenet_\d+_(\d+)\.jpg")


def sample() -> Samples:
    """The 20 ImageNet photos in foolbox, labelled by their file names: too few for an accuracy to rely on.

    Raises:
        InputError: foolbox is not installed.
    """
    folder = package_folder("foolbox", "foolbox") / "data"
    matches = [match for entry in scan(folder) if (match := _FOOLBOX_FILE.fullmatch(entry.name))]
    labels = np.array([int(match[1]) for match in matches], np.int32)
    return Samples(
        "sample", imagenet_names(), labels, Files(str(folder), Packed(os.fsencode(match[0]) for match in matches))
    )


def sample_calibration() -> Samples:
    """68 crops of photos in scikit-image and scikit-learn, without labels, to calibrate on.

    No photo is in `sample`. Neighbouring crops are of different photos and differ in position, size and direction.

    Raises:
        InputError: scikit-image or scikit-learn is not installed.
    """
    everyday, unusual = _photos_of_packages()
    crops = [(file, box, i % 2 == 1) for i, box in enumerate(_BOXES) for file in everyday]
    crops += [(file, box, False) for box in _BOXES[:2] for file in unusual]
    missing = sorted({file.name for file, _, _ in crops if not file.is_file()})
    if missing:
        raise InputError(
            f"scikit-image and scikit-learn must contain {', '.join(missing)}: pip install 'edge-cv[{EXTRA}]'"
        )
    places = tuple(
        FilePart(str(file)) if box is None else CroppedPhoto(str(file), box, flip) for file, box, flip in crops
    )
    return Samples("sample_calibration", (), np.full(len(places), UNKNOWN, np.int32), PlaceList(places))


# The whole photo, its middle, and parts of different sizes; no two have the same centre.
_BOXES = (
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


def digits(split: str | None = None) -> Samples:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels each, as grey PNG files in memory.

    Args:
        split: `train` (1,437 images) or `test` (360), a fixed stratified split. Default: all images.

    Raises:
        InputError: the split is unknown, or scikit-learn is not installed.
    """
    if split is not None and split not in DIGITS_SPLITS:
        raise unknown("split of digits", split, DIGITS_SPLITS)
    from PIL import Image

    # The package is not imported, which takes a second; a row is an image and its label.
    table = np.loadtxt(package_folder("sklearn", "scikit-learn", "the digits") / DIGITS_FILE, np.int32, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    grey = np.round(images * (255 / _BRIGHTEST)).astype(np.uint8)

    def png(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    classes = tuple(map(str, range(10)))
    samples = Samples("digits", classes, labels, Memory("digits", Packed(map(png, grey))))
    if split is None:
        return samples
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(grey)), test_size=DIGITS_TEST_IMAGES, stratify=labels, random_state=0, shuffle=True
    )
    return samples.select(np.sort(train if split == "train" else test))


def package_folder(module: str, package: str, content: str = "the sample photos") -> Path:
    """The folder of an installed package. It is not imported: foolbox would import its backends."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # its import is blocked
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(f"reading {content}", [package], [EXTRA])
    return Path(next(iter(spec.submodule_search_locations)))


NAMED = {
    "digits": Layout(
        {"train": lambda classes: digits("train"), "test": lambda classes: digits("test")}, lambda classes: digits()
    ),
    "sample": Layout(whole=lambda classes: sample()),
    "sample_calibration": Layout(whole=lambda classes: sample_calibration()),
}
