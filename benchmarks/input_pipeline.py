"""The input pipeline against torchvision's and against bare decoding: random crops and flips at 224 pixels.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install torch torchvision
    python benchmarks/input_pipeline.py --data FOLDER --peer-python /tmp/peer/bin/python
    python benchmarks/input_pipeline.py                      the sample photos, without torchvision
    python benchmarks/input_pipeline.py --short-side 256     photos as `edge-cv data prepare --short-side` stores them

Photos whose longer side is 400 to 600 pixels are read from files in the page cache. Ours is what the host does for a
train step: RandAugment and colour jitter, which the device does, are drawn and not applied. All pipelines run in
turns on all cores, and the medians of the rounds' ratios are printed, so that other load on the machine affects all
alike. The peer gets one worker a core, stays warm between rounds, and makes uint8 tensors, which is less work than
its usual float32. The limits read the files, decode the crops of our first epoch and discard the pixels.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

PEER_NAME = "torchvision, Pillow"
SIZE, BATCH, LEAST_IMAGES = 224, 64, 640
CROP_SCALE = (0.08, 1.0)

PEER = """
import sys, time
import torch
from PIL import Image
from torchvision import transforms

files, workers, size, batch = sys.argv[4:], *map(int, sys.argv[1:4])
steps = transforms.Compose(
    [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
)

class Photos(torch.utils.data.Dataset):
    def __len__(self):
        return len(files)

    def __getitem__(self, index):
        with Image.open(files[index]) as image:
            return steps(image.convert("RGB")), 0

loader = torch.utils.data.DataLoader(
    Photos(), batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
)
for _ in sys.stdin:
    start, images = time.perf_counter(), 0
    for pixels, _ in loader:
        images += len(pixels)
    print(images / (time.perf_counter() - start), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample", help="folder of photos, or `sample`")
    parser.add_argument("--peer-python", type=Path, help="Python of an environment with torch and torchvision")
    parser.add_argument("--short-side", type=int, metavar="PIXELS", help="shrink the photos to it first")
    parser.add_argument("--images", type=int, default=LEAST_IMAGES, help="images a round, at least")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    from edge_cv import data
    from edge_cv.evaluation import describe_environment
    from edge_cv.parallel.threads import available_cores

    machine = describe_environment()
    files = [str(path) for path in data.open_samples(arguments.data).paths() if _is_suitable(path)]
    folder = tempfile.TemporaryDirectory()
    if arguments.short_side:
        files = list(_shrunk(files, arguments.short_side, Path(folder.name)))
    files *= -(-arguments.images // len(files))
    mean_bytes = np.mean([os.path.getsize(file) for file in files])
    print(f"{machine['cpu']}, {available_cores()} cores; {len(files)} images of {mean_bytes / 1000:.0f} kB on average")

    runs = dict(_ours(files))
    peer = _peer(arguments.peer_python, files, available_cores()) if arguments.peer_python else None
    if peer is not None:
        runs[PEER_NAME] = peer
    for run in runs.values():  # warm up: graphs are built and workers start
        run()
    rates: dict[str, list[float]] = {name: [] for name in runs}
    costs: dict[str, list[float]] = {name: [] for name in runs}  # processor time, less affected by other programs
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            start = time.process_time()
            rates[name].append(run())
            costs[name].append((time.process_time() - start) / len(files))
    print(f"\nmedians of {arguments.rounds} rounds")
    print(f"  {'':36} images/(s core)   ours to it   processor ms/image   it to ours")
    for name, measured in rates.items():
        ratio = statistics.median(own / other for own, other in zip(rates["ours"], measured, strict=True))
        print(f"  {name:36} {statistics.median(measured) / available_cores():15.0f} {ratio:10.2f} x", end="")
        if name == PEER_NAME:  # it works in other processes
            print()
            continue
        share = statistics.median(other / own for own, other in zip(costs["ours"], costs[name], strict=True))
        print(f" {1e3 * statistics.median(costs[name]):20.2f} {share:10.2f} x")
    print("to reach: 1.00 x torchvision, 0.85 x the bare decode_and_crop")


def _shrunk(files: list[str], short_side: int, folder: Path) -> Iterator[str]:
    """The photos as shards store them with this short side."""
    from PIL import Image

    from edge_cv.data.shard_writing import ShardingOptions, stored

    for number, file in enumerate(files):
        content = stored(Path(file).read_bytes(), ShardingOptions(short_side=short_side))
        path = folder / f"{number}.jpg"
        path.write_bytes(content)
        with Image.open(path) as image:
            if min(image.size) == short_side:
                yield str(path)


def _is_suitable(file: Path) -> bool:
    from PIL import Image

    with Image.open(file) as image:
        return image.format == "JPEG" and 400 <= max(image.size) <= 600


def _ours(files: list[str]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Our pipelines and the bare limits, each as a function that measures images per second once."""
    import tensorflow as tf
    from PIL import Image

    from edge_cv.data import Samples
    from edge_cv.data.input_pipeline.augmentation import PIXELS
    from edge_cv.data.input_pipeline.batches import sample_batches
    from edge_cv.data.input_pipeline.draws import random_windows
    from edge_cv.data.input_pipeline.loading import BrokenImages
    from edge_cv.data.input_pipeline.pillow_pipeline import PillowPipeline
    from edge_cv.parallel.threads import available_cores, map_in_threads
    from edge_cv.recipe import Augment

    samples = Samples.from_files("files", files, [0] * len(files), ("photo",))
    batches = sample_batches(samples, image_size=SIZE, batch_size=BATCH, seed=0, augment=Augment(crop_scale=CROP_SCALE))
    epochs = iter(range(1_000_000))

    augmented = dataclasses.replace(batches.plan.augment, randaugment=2, saturation=0.4)
    batches_to_change = sample_batches(samples, image_size=SIZE, batch_size=BATCH, seed=0, augment=augmented)

    def ours() -> float:
        return _rate(batches.feed(next(epochs)))

    def with_randaugment() -> float:
        return _rate((inputs[PIXELS], targets) for inputs, targets in batches_to_change.feed(next(epochs)))

    def by_pillow() -> float:
        epoch = PillowPipeline(batches.plan, BrokenImages("files")).epoch(next(epochs), 0)
        return _rate((images, targets) for images, targets, _ in epoch)

    order = np.concatenate([batches.plan.sampler.indices(0, step) for step in range(len(batches))])
    sizes = np.array([Image.open(files[index]).size for index in order])
    crop = np.concatenate([batches.plan.draws(0, step)["crop"] for step in range(len(batches))])
    windows = random_windows(crop, CROP_SCALE, Augment().crop_ratio, sizes[:, 1], sizes[:, 0])
    images = tf.data.Dataset.from_tensor_slices(([files[index] for index in order], windows))

    def decoded(file, window):
        return tf.image.decode_and_crop_jpeg(tf.io.read_file(file), window, channels=3)

    def resized(file, window):
        return tf.image.resize(decoded(file, window), (SIZE, SIZE))

    def limit(work: Callable) -> Callable[[], float]:
        mapped = images.map(lambda file, window: work(file, window)[0, 0], num_parallel_calls=available_cores())
        mapped = mapped.batch(BATCH)
        options = tf.data.Options()
        options.threading.private_threadpool_size = available_cores()
        options.threading.max_intra_op_parallelism = 1
        mapped = mapped.with_options(options)
        return lambda: _rate((pixels, None) for pixels in mapped)

    def pillow_limit() -> float:
        return _rate(([done], None) for done in map_in_threads(_decoded_by_pillow, files))

    yield "ours", ours
    yield "ours, RandAugment on the device", with_randaugment
    yield "bare decode_and_crop", limit(decoded)
    yield "bare decode_and_crop and resize", limit(resized)
    yield "ours by Pillow, without TensorFlow", by_pillow
    yield "bare decoding by Pillow", pillow_limit


def _decoded_by_pillow(file: str) -> bool:
    from PIL import Image

    with Image.open(file) as image:
        image.load()
    return True


def _peer(python: Path, files: list[str], workers: int) -> Callable[[], float]:
    command = [str(python), "-c", PEER, str(workers), str(SIZE), str(BATCH), *files]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure() -> float:
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{python} must have torch and torchvision")
        return float(line)

    return measure


def _rate(batches) -> float:
    start, images = time.perf_counter(), 0
    for pixels, _ in batches:
        images += len(pixels)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
