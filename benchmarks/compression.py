"""Compression against its targets: accuracy, size and latency, and the cost of a step of QAT.

    python benchmarks/compression.py digits latency steps

digits   a small MobileNetV2 with 75 % pruning and QAT, and at half its MACs, on 360 held-out digits
latency  MobileNetV2 at 224 pixels at half its MACs, float and int8, in turns with the dense one; the weights are
         random, since latency does not depend on them
steps    a step of quantization-aware training, in turns with tfmot's own on a tf_keras model written by hand
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from in_turns import medians_ms

SIZE = 64  # pixels of a digit
STEPS = 30  # of training, timed for each


class Digits:
    """Training batches of scikit-learn's digits, shifted by a few pixels at random."""

    classes, batch_size, multi_label = tuple("0123456789"), 64, False

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.targets = images, np.eye(10, dtype=np.float32)[labels]

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(self, number: int, first_step: int = 0):
        rng = np.random.default_rng(number)
        order = rng.permutation(len(self.images))
        for step in range(len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            shift = rng.integers(-SIZE // 16, SIZE // 16 + 1, 2)
            if step >= first_step:
                yield np.roll(self.images[chosen], shift, (1, 2)), self.targets[chosen]


def load() -> tuple[Digits, np.ndarray, np.ndarray]:
    """Batches to train on; images uint8 `(360, SIZE, SIZE, 3)` and labels of 360 held-out digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images / 16 * 255).astype(np.uint8).repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    images = images[..., None].repeat(3, -1)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], found.target[order]
    return Digits(images[360:], labels[360:]), images[:360], labels[:360]


def print_row(name: str, outputs: np.ndarray, labels: np.ndarray, content: bytes | None) -> float:
    """Print the accuracy of the outputs and the size of the file; return the accuracy, 0..1."""
    from edge_cv.intervals import wilson_interval

    hits = int((outputs.argmax(1) == labels).sum())
    low, high = wilson_interval(hits, len(labels))
    size = "" if content is None else f"{len(content):>9,} bytes, gzip {len(gzip.compress(content, mtime=0)):>8,}"
    print(f"{name:24} top-1 {hits / len(labels):6.1%} ({low:.1%} to {high:.1%}, n = {len(labels)})  {size}")
    return hits / len(labels)


def digits() -> None:
    import keras

    from converters import to_tflite
    from converters.tflite.runtime import predict
    from edge_cv import models
    from edge_cv.compression.channels import channel_prune
    from edge_cv.compression.compression_stages import compress
    from edge_cv.compression.fine_tuning import fine_tune
    from edge_cv.compression.qat import calibration_images
    from edge_cv.models.macs import count_macs
    from edge_cv.recipe import ChannelPrune, FineTuning, Prune, Qat

    batches, held_out, labels = load()
    calibration = calibration_images(batches, 100)

    keras.utils.set_random_seed(0)
    dense = models.build("mobilenet_v2", classes=10, image_size=SIZE, alpha=0.35)
    start = time.perf_counter()
    fine_tune(dense, batches, FineTuning(epochs=25, learning_rate=3e-3, freeze_statistics=False))
    print(f"dense model trained in {time.perf_counter() - start:.0f} s")

    def row(name: str, outputs: np.ndarray, content: bytes | None) -> float:
        return print_row(name, outputs, labels, content)

    def outputs_of(model) -> np.ndarray:
        parts = [np.asarray(model(held_out[i : i + 60].astype(np.float32), training=False)) for i in range(0, 360, 60)]
        return np.concatenate(parts)

    reference = row("dense float", outputs_of(dense), to_tflite(dense, "float32", calibration=calibration).content)
    int8 = to_tflite(dense, "int8", calibration=calibration).content
    row("dense int8", predict(int8, held_out, pixel_offset=-128), int8)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = compress(
            dense,
            batches,
            folder,
            prune=Prune(0.75, fine_tuning=FineTuning(epochs=15, learning_rate=2e-3, freeze_statistics=False)),
            qat=Qat(weight_values=31, fine_tuning=FineTuning(epochs=6, learning_rate=5e-4, freeze_statistics=False)),
        )
        for stage in made:
            content = to_tflite(stage.model, stage.int8, calibration=calibration).content
            share = row(f"{stage.name} int8", predict(content, held_out, pixel_offset=-128), content)
    packed = len(gzip.compress(content, mtime=0)) / len(gzip.compress(int8, mtime=0))
    print(
        f"pruned and QAT-trained in {time.perf_counter() - start:.0f} s: {100 * (reference - share):+.1f} points from"
    )
    print(f"dense float (limit 0.6), gzip size {packed:.0%} of the dense int8 file's (limit 45 %)")
    tuning = FineTuning(epochs=15, learning_rate=3e-3, freeze_statistics=False)
    smaller = channel_prune(dense, ChannelPrune(0.5, fine_tuning=tuning), batches)
    share = row("half the MACs, float", outputs_of(smaller), None)
    print(
        f"{count_macs(smaller) / count_macs(dense):.2f} of the MACs, {100 * (reference - share):+.1f} points (limit 1)"
    )


def latency() -> None:
    from converters import Int8, to_tflite
    from edge_cv import models
    from edge_cv.compression.channels import remove_channels
    from edge_cv.models.macs import count_macs

    pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    dense = models.build("mobilenet_v2")
    smaller = remove_channels(dense, 0.5)
    print(f"{count_macs(smaller) / count_macs(dense):.3f} of {count_macs(dense) / 1e6:.0f} M MACs")
    for name, scheme in (("float32", "float32"), ("int8", Int8(correction="none", min_sqnr_db=-150))):
        whole, half = medians_ms([to_tflite(m, scheme, calibration=pixels).content for m in (dense, smaller)])
        print(f"{name:8} dense {whole:.3f} ms, half the MACs {half:.3f} ms: {half / whole:.3f} x (limit 0.62)")


def steps() -> None:
    import keras
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from edge_cv import models
    from edge_cv.compression import quantize_aware

    size, batch = 96, 32
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.float32)
    targets = np.eye(10, dtype=np.float32)[np.arange(batch) % 10]
    aware = quantize_aware(models.build("mobilenet_v2", classes=10, image_size=size), images=pixels)
    by_hand = tf_keras.applications.MobileNetV2(
        (size, size, 3), weights=None, classes=10, classifier_activation=None, pooling="avg"
    )
    peers = {"ours": aware, "tfmot": tfmot.quantization.keras.quantize_model(by_hand)}
    given = {"ours": pixels, "tfmot": pixels / 127.5 - 1}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for model, library in zip(peers.values(), (keras, tf_keras), strict=True):
        loss = library.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(library.optimizers.Adam(1e-4), loss=loss, jit_compile=False)
    data = {name: (tf.constant(images), tf.constant(targets)) for name, images in given.items()}
    for step in range(STEPS + 5):
        for name, model in peers.items():
            start = time.perf_counter()
            model.train_on_batch(*data[name])
            if step >= 5:
                times[name].append(time.perf_counter() - start)
    own, peer = (1e3 * statistics.median(times[name]) for name in ("ours", "tfmot"))
    print(f"a step of QAT, MobileNetV2 at {size}, batch {batch}, median of {STEPS}: ", end="")
    print(f"ours {own:.0f} ms, tfmot by hand {peer:.0f} ms: {own / peer:.2f} x (limit 1.15)")


def main() -> None:
    sections = {"digits": digits, "latency": latency, "steps": steps}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="digits, latency or steps; default: all of them")
    chosen = parser.parse_args().sections or list(sections)
    if unknown := [name for name in chosen if name not in sections]:
        parser.error(f"a section must be one of {', '.join(sections)}; got {unknown[0]}")

    from converters.native_logs import import_tensorflow
    from edge_cv.evaluation import describe_environment

    import_tensorflow()
    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores")
    for name in chosen:
        sections[name]()


if __name__ == "__main__":
    main()
