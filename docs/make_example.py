"""Writes the files that the README's commands read, made from the sample photos of the `demo` extra.

    python docs/make_example.py example

The folder then holds:

- `photos/<class>/<number>.jpg`: 40 photos of five ImageNet classes, each a random crop of one packaged photo;
- `photos.csv`: two columns to group them by, `light` and `number`;
- `mymodel.keras` and `labels.txt`: EfficientNet-Lite0 at 96 pixels with its ImageNet weights for these five classes.

The photos of a class are crops of the same picture, so accuracy on them is no measure of the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from edge_cv import data, models

CLASSES = ("dalmatian", "goose", "jeep", "spoonbill", "strawberry")  # sorted, as class folders are read
PHOTOS_PER_CLASS = 8
IMAGE_SIZE = 96  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="made when it is missing")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    samples = data.open_samples("sample")
    indices = [samples.classes.index(name) for name in CLASSES]
    write_photos(folder, samples, indices)
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    small_model(indices).save(folder / "mymodel.keras")
    print(f"{folder}: {len(CLASSES) * PHOTOS_PER_CLASS} photos, photos.csv, mymodel.keras, labels.txt")


def write_photos(folder: Path, samples: data.Samples, indices: list[int]) -> None:
    """Crops of 60 to 100 % of one photo a class, half of them darkened, and the table that describes them."""
    random = np.random.default_rng(0)
    rows = ["file,light,number"]
    for name, index in zip(CLASSES, indices, strict=True):
        place = samples.place(int(np.flatnonzero(samples.labels == index)[0]))
        photo = Image.open(place.path)
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        for number in range(PHOTOS_PER_CLASS):
            side = int(min(photo.size) * random.uniform(0.6, 1))
            left, top = (int(random.integers(length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side))
            dark = number % 2 == 1
            file = folder / "photos" / name / f"{number}.jpg"
            (crop.point(lambda value: value // 2) if dark else crop).save(file, quality=95)
            rows.append(f"{name}/{number}.jpg,{'night' if dark else 'day'},{number}")
    (folder / "photos.csv").write_text("\n".join(rows) + "\n")


def small_model(indices: list[int]):
    """The network with ImageNet weights, and of its last layer the outputs of these classes."""
    whole = models.build("efficientnet_lite0", image_size=IMAGE_SIZE, weights="imagenet")
    small = models.build("efficientnet_lite0", image_size=IMAGE_SIZE, classes=len(indices))
    *features, kernel, bias = whole.get_weights()
    small.set_weights([*features, kernel[:, indices], bias[indices]])
    return small


if __name__ == "__main__":
    main()
