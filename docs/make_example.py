"""Writes the files that the commands of the documentation read, made from the sample photos of the `demo` extra.

    python docs/make_example.py example

The folder then holds:

- `photos/<class>/<number>.jpg`: 40 photos of five ImageNet classes, each a random crop of one packaged photo;
- `photos.csv`: two columns to group them by, `light` and `number`;
- `mymodel.keras` and `labels.txt`: the first blocks of EfficientNet-Lite0 with their ImageNet weights, at 96 pixels,
  and a last layer that is fitted to these photos.

The photos of a class are crops of the same picture, and the model has seen them: accuracy
on them is no measure of the model.
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
LAST_LAYER = "block4c_add"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="made when it is missing")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    samples = data.open_samples("sample")
    indices = [samples.classes.index(name) for name in CLASSES]
    write_photos(folder, samples, indices)
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    small_model(folder / "photos").save(folder / "mymodel.keras")
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


def small_model(photos: Path):
    """The first ten blocks of the network with ImageNet weights, and a last layer fitted to the photos' classes."""
    import keras
    from sklearn.linear_model import LogisticRegression

    whole = models.build("efficientnet_lite0", image_size=IMAGE_SIZE, weights="imagenet")
    features = keras.layers.GlobalAveragePooling2D(name="pool")(whole.get_layer(LAST_LAYER).output)
    samples = data.open_samples(photos)
    pixels = np.stack([data.load_pixels(samples.place(i), whole.preprocessing) for i in range(len(samples))])
    values = keras.Model(whole.input, features).predict(pixels, verbose=0)
    labels = [CLASSES.index(samples.classes[label]) for label in samples.labels]
    fitted = LogisticRegression(max_iter=2000).fit(values, labels)
    model = keras.Model(whole.input, keras.layers.Dense(len(CLASSES), name="logits")(features), name="mymodel")
    model.get_layer("logits").set_weights([fitted.coef_.T, fitted.intercept_])
    return model


if __name__ == "__main__":
    main()
