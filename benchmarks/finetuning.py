"""Fine-tuning EfficientNet-Lite0's ImageNet weights, compared with training from random weights.

    python benchmarks/finetuning.py                          200 of scikit-learn's digits, evaluated on 360 others
    python benchmarks/finetuning.py --data FOLDER --image-size 224
    python benchmarks/finetuning.py --imagenet FOLDER --image-size 96

The last command takes a folder of ImageNet photos with a labels.csv. The classes are WordNet hypernyms: dog, bird,
vehicle and others. That is an easy task for pretrained weights; it shows that fine-tuning preserves them.

The weights are fine-tuned with `edge_cv.recipe.fine_tuning()`. The network with random weights is trained for as many
epochs with the same optimizer and with the SGD settings of `recipes/digits.py`; the better of the two is compared.
Photos, augmentation, batch size and validation photos are the same for all. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="folder of labelled photos, or `digits`")
    parser.add_argument("--imagenet", type=Path, help="a folder with labels.csv (file,wnid) and images/")
    parser.add_argument("--images", type=int, default=200, help="largest number of training photos")
    parser.add_argument("--image-size", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from edge_cv.data import classes_to_train
    from edge_cv.data.split import split_for_training
    from edge_cv.evaluation import describe_environment, wilson_interval
    from edge_cv.pipeline import train
    from edge_cv.progress import shown
    from edge_cv.recipe import Data, Model, Recipe

    if arguments.imagenet is not None:
        arguments.data = str(by_kind(arguments.imagenet, Path(tempfile.mkdtemp(prefix="edge_cv_kinds_"))))
    machine = describe_environment()
    measured = split_for_training(
        arguments.data, None, 1, classes=classes_to_train(arguments.data), seed=arguments.seed
    ).test
    print(f"{machine['cpu']}, {machine['cores']} cores, keras {machine['versions']['keras']}")
    results = {}
    for name, weights, settings in trainings(arguments):
        model = Model(
            "efficientnet_lite0",
            weights=weights,
            image_size=arguments.image_size,
            # the whole image of a digit instead of a central crop
            preprocessing={"resize_to": None} if arguments.data == "digits" else {},
        )
        recipe = Recipe("finetuning", model, Data(measure=arguments.data, calibrate=None), fit=settings)
        print(f"{name}:", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder:
            start = time.perf_counter()
            network = train(recipe, Path(folder), progress=shown)
            seconds = time.perf_counter() - start
        pixels, labels = zip(*measured.pixels(network.preprocessing), strict=True)
        logits = network.model.predict(np.stack(pixels).astype(np.float32), verbose=0)
        hits = int((logits.argmax(1) == np.array(labels)).sum())
        results[name] = hits, wilson_interval(hits, len(labels)), seconds
    total = sum(phase.epochs for phase in settings.all_phases())
    print(
        f"efficientnet_lite0 at {arguments.image_size} pixels, at most {arguments.images} training photos of "
        f"{arguments.data}, {total} epochs; evaluated on {len(measured)} others"
    )
    for name, (hits, (low, high), seconds) in results.items():
        print(f"  {name:34} top-1 {hits / len(measured):6.1%} ({low:.1%} to {high:.1%}) {seconds:6.0f} s")
    (hits, (low, high), _), *others = results.values()
    other, (other_low, other_high), _ = max(others)
    n, share, against = len(measured), hits / len(measured), other / len(measured)
    # Newcombe 1998, method 10: the interval of a difference of two shares, from Wilson's of each
    least = share - against - np.hypot(share - low, other_high - against)
    most = share - against + np.hypot(high - share, against - other_low)
    print(
        f"  gain over the better of the others: {100 * (share - against):.1f} points "
        f"(95 % interval {100 * least:.1f} to {100 * most:.1f}, n = {n})"
    )


KINDS = ("dog", "bird", "reptile", "arthropod", "vehicle", "food", "container", "structure")


def by_kind(source: Path, folder: Path) -> Path:
    """Create a folder with one class folder per kind, which contains links to its photos."""
    rows = [line.split("\t") for line in (ROOT / "edge_cv/data/wordnet/hypernyms.tsv").read_text().splitlines()]
    names, parents = {wnid: name for wnid, name, *_ in rows}, {wnid: above for wnid, _, *above in rows}

    def above(wnid: str) -> set[str]:
        return {names[wnid]}.union(*(above(parent) for parent in parents[wnid]))

    with (source / "labels.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            kind = next((kind for kind in KINDS if kind in above(row["wnid"])), None)
            if kind is not None:
                (folder / kind).mkdir(exist_ok=True)
                (folder / kind / Path(row["file"]).name).symlink_to(
                    (source / "images" / Path(row["file"]).name).resolve()
                )
    return folder


def trainings(arguments: argparse.Namespace):
    """Name, weights and settings of each training."""
    from edge_cv.recipe import Fit, fine_tuning

    tuned = fine_tuning(images=arguments.images, seed=arguments.seed)
    if arguments.data == "digits":  # a mirrored digit is another sign
        tuned = dataclasses.replace(tuned, augment=dataclasses.replace(tuned.augment, flip=0.0))
    epochs = sum(phase.epochs for phase in tuned.all_phases())
    scratch = dataclasses.replace(tuned, phases=(), epochs=epochs)
    sgd = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": Fit().weight_decay, "warmup_epochs": 2}
    yield "ImageNet's weights, fine-tuned", "imagenet", tuned
    yield "random weights, AdamW", None, scratch
    yield "random weights, SGD", None, dataclasses.replace(scratch, **sgd)


if __name__ == "__main__":
    main()
