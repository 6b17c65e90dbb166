"""Fine-tuning with the default settings, beside what a user would do without this package, on several tasks.

    python benchmarks/finetuning.py                                400 of scikit-learn's digits at 96 pixels
    python benchmarks/finetuning.py FOLDER FOLDER@128              folders with one folder of photos for each class
    python benchmarks/finetuning.py --imagenet FOLDER              WordNet kinds of ImageNet photos with a labels.csv

Every method has the same network with ImageNet weights, the same training photos and the same test photos, a fifth of
all, which no method chooses by.

- ours: `edge_cv.recipe.fine_tuning()`, as `edge-cv train --weights imagenet` runs it. Photos that it draws for
  validation are missing from the training photos of all methods.
- ours, mixup; ours, RandAugment: the same with mixup=0.2 or randaugment=2, by `--methods` only.
- Keras guide: https://keras.io/guides/transfer_learning, "An end-to-end example": random flips and rotations, the
  frozen backbone in inference mode, dropout 0.2, a new dense layer for 20 epochs of Adam at 1e-3, then all layers for
  10 epochs at 1e-5 with batch normalization in inference mode.
- linear probe: scikit-learn's LogisticRegression on the features of the frozen backbone.
- Model Maker: the published defaults of MediaPipe Model Maker's image classifier: frozen backbone, 10 epochs in batches
  of 2, RMSprop at 0.001 * 2 / 256 with a warm-up of 2 epochs, label smoothing 0.1, L2 penalty 1e-4, dropout 0.2.

Intervals are Wilson's at 95 %. Processor time is user and system time of the process, decoding included.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ROOT = Path(__file__).parents[1]
BATCH_SIZE = 32
KINDS = ("dog", "bird", "reptile", "arthropod", "vehicle", "food", "container", "structure", "clothing", "device")


@dataclass(frozen=True)
class Task:
    """The photos of a task, by use, and how the network sees them.

    Attributes:
        data: folder of labelled photos, or `digits`.
        model: the recipe part.
        splits: training, validation and test photos.
        seed: of the splits, the order and the weights.
        mirrored: whether a mirrored photo belongs to the same class.
    """

    data: str
    model: Any
    splits: Any
    seed: int
    mirrored: bool

    def network(self) -> Any:
        """The network with ImageNet weights and a new head."""
        import keras

        from edge_cv.pipeline.training import built

        keras.utils.set_random_seed(self.seed)
        return built(self.model, len(self.splits.train.classes))

    def arrays(self, samples: Any, preprocessing: Any) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels of photos."""
        pixels, labels = zip(*samples.pixels(preprocessing), strict=True)
        return np.stack(pixels), np.array(labels)


def ours(task: Task, **augment: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Fine-tune with the default settings, and with other fields of their augmentation."""
    from edge_cv.pipeline import train
    from edge_cv.progress import shown
    from edge_cv.recipe import Data, Recipe, fine_tuning

    settings = fine_tuning(seed=task.seed, images=len(task.splits.train))
    augment |= {} if task.mirrored else {"flip": 0.0}
    settings = dataclasses.replace(settings, augment=dataclasses.replace(settings.augment, **augment))
    recipe = Recipe("finetuning", task.model, Data(measure=task.data, calibrate=None), fit=settings)
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder:
        return _predict(train(recipe, Path(folder), progress=shown).model)


def keras_guide(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """The end-to-end example of Keras's guide to transfer learning."""
    import keras
    import tensorflow as tf

    network = task.network()
    images, labels = task.arrays(task.splits.train, network.preprocessing)
    flip = [keras.layers.RandomFlip("horizontal")] if task.mirrored else []
    augmentation = keras.Sequential([*flip, keras.layers.RandomRotation(0.1)])
    backbone = _backbone(network)
    backbone.trainable = False
    pixels = keras.Input(images.shape[1:])
    x = keras.layers.Dropout(0.2)(backbone(augmentation(pixels), training=False))
    model = keras.Model(pixels, keras.layers.Dense(len(task.splits.train.classes))(x))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=task.seed)
    batches = batches.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    for rate, epochs in ((1e-3, 20), (1e-5, 10)):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(rate), loss)
        model.fit(batches, epochs=epochs, verbose=0)
        backbone.trainable = True
    return _predict(model)


def linear_probe(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """A logistic regression on frozen features."""
    from edge_cv.data.input_pipeline.batches import evaluation_batches
    from edge_cv.training.probe import assign_probe, fit_probe, split_for_probe

    network = task.network()
    split = split_for_probe(network)
    batches = evaluation_batches(task.splits.train, network.preprocessing, BATCH_SIZE)
    assign_probe(split, fit_probe(split, batches, seed=task.seed))
    return _predict(network)


def model_maker(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """The published defaults of MediaPipe Model Maker's image classifier."""
    import keras

    from edge_cv.data.input_pipeline.batches import sample_batches
    from edge_cv.recipe import Augment

    network, classes, batch_size, epochs = task.network(), len(task.splits.train.classes), 2, 10
    backbone = _backbone(network)
    backbone.trainable = False
    x = keras.layers.Dropout(0.2)(backbone(network.input, training=False))
    model = keras.Model(network.input, keras.layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(1e-4))(x))
    batches = sample_batches(
        task.splits.train,
        image_size=network.preprocessing.height,
        batch_size=batch_size,
        seed=task.seed,
        augment=Augment(flip=0.5 if task.mirrored else 0.0),
    )
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(epochs * len(batches), 10_000 * 256 // batch_size),
        warmup_target=0.001 * batch_size / 256,
        warmup_steps=2 * len(batches),
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(keras.optimizers.RMSprop(rate, rho=0.9, momentum=0.9, epsilon=1e-3), loss)
    for epoch in range(epochs):
        model.fit(batches.epoch(epoch), steps_per_epoch=len(batches), verbose=0)
    return _predict(model)


DEFAULT_METHODS = {"ours": ours, "Keras guide": keras_guide, "linear probe": linear_probe, "Model Maker": model_maker}
METHODS = {
    **DEFAULT_METHODS,
    "ours, mixup": functools.partial(ours, mixup=0.2),
    "ours, RandAugment": functools.partial(ours, randaugment=2),
}


def _backbone(network: Any) -> Any:
    from edge_cv.training.probe import split_for_probe

    return split_for_probe(network).backbone


def _predict(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: model.predict(images.astype(np.float32), verbose=0).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="FOLDER[@PIXELS]", help="folders of labelled photos, or `digits`")
    parser.add_argument("--imagenet", type=Path, help="a folder with labels.csv (file,wnid) and images/")
    parser.add_argument("--images", type=int, default=400, help="largest number of training photos")
    parser.add_argument("--image-size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--not-mirrored", nargs="*", default=["digits"], help="tasks whose photos must not be mirrored")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(DEFAULT_METHODS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from edge_cv.evaluation import describe_environment

    logging.disable(logging.WARNING)
    tasks = list(arguments.tasks) or ([] if arguments.imagenet else ["digits"])
    if arguments.imagenet is not None:
        tasks.append(str(by_kind(arguments.imagenet, Path(tempfile.mkdtemp(prefix="edge_cv_kinds_")) / "kinds")))
    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, keras {machine['versions']['keras']}, {arguments.model}")
    for name in tasks:
        data, _, pixels = name.partition("@")
        compare(open_task(data, int(pixels or arguments.image_size), arguments), arguments.methods)


def open_task(data: str, image_size: int, arguments: argparse.Namespace) -> Task:
    from edge_cv.data import classes_to_train
    from edge_cv.data.split import split_for_training
    from edge_cv.recipe import Model

    splits = split_for_training(data, None, 1, classes=classes_to_train(data), seed=arguments.seed)
    splits = dataclasses.replace(splits, train=splits.train.take(arguments.images))
    # the whole image of a digit instead of a central crop
    preprocessing: dict[str, Any] = {"resize_to": None} if data == "digits" else {}
    model = Model(arguments.model, weights="imagenet", image_size=image_size, preprocessing=preprocessing)
    return Task(data, model, splits, arguments.seed, Path(data).name not in arguments.not_mirrored)


def compare(task: Task, methods: list[str]) -> None:
    """Run the methods on a task and print its table."""
    import keras

    from edge_cv.evaluation import wilson_interval

    counts = {name: len(getattr(task.splits, name)) for name in ("train", "validation", "test")}
    print(
        f"\n{Path(task.data).name} at {task.model.image_size} pixels: {len(task.splits.train.classes)} classes, "
        + ", ".join(f"{count} {name}" for name, count in counts.items()),
        flush=True,
    )
    tests: tuple[np.ndarray, np.ndarray] | None = None
    results = {}
    for name in methods:
        print(f"{name}:", file=sys.stderr, flush=True)
        keras.backend.clear_session()
        start = time.process_time()
        predict = METHODS[name](task)
        seconds = time.process_time() - start
        tests = tests or task.arrays(task.splits.test, task.network().preprocessing)
        hits = int((predict(tests[0]) == tests[1]).sum())
        low, high = wilson_interval(hits, len(tests[1]))
        results[name] = hits / len(tests[1]), seconds
        print(
            f"  {name:17} {hits:4} of {len(tests[1])}, top-1 {hits / len(tests[1]):6.1%} ({low:.1%} to {high:.1%}), "
            f"processor time {seconds:5.0f} s",
            flush=True,
        )
    if {"ours", "Keras guide", "linear probe"} <= results.keys():
        (own, own_seconds), (guide, guide_seconds) = results["ours"], results["Keras guide"]
        probe = results["linear probe"][0]
        print(
            f"  ours - better of guide and probe: {100 * (own - max(guide, probe)):+.1f} points; ours - probe: "
            f"{100 * (own - probe):+.1f}; processor time / the guide's: {own_seconds / guide_seconds:.2f}",
            flush=True,
        )


def by_kind(source: Path, folder: Path) -> Path:
    """Create a folder with one class folder per kind, which contains links to its photos."""
    for kind, files in photos_by_kind(source, KINDS).items():
        for file in files:
            (folder / kind).mkdir(exist_ok=True, parents=True)
            (folder / kind / file.name).symlink_to(file.resolve())
    return folder


def photos_by_kind(source: Path, kinds: Sequence[str]) -> dict[str, list[Path]]:
    """ImageNet photos by the first of the kinds that is a WordNet hypernym of their class.

    Args:
        source: a folder with labels.csv (file,wnid) and images/.
        kinds: names of hypernyms.
    """
    table = ROOT / "edge_cv" / "data" / "wordnet" / "hypernyms.tsv"
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    names, parents = {wnid: name for wnid, name, *_ in rows}, {wnid: above for wnid, _, *above in rows}

    def above(wnid: str) -> set[str]:
        return {names[wnid]}.union(*(above(parent) for parent in parents[wnid]))

    photos: dict[str, list[Path]] = {kind: [] for kind in kinds}
    with (source / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            hypernyms = above(row["wnid"])
            kind = next((kind for kind in kinds if kind in hypernyms), None)
            if kind is not None:
                photos[kind].append(source / "images" / Path(row["file"]).name)
    return photos


if __name__ == "__main__":
    main()
