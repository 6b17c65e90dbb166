"""The main job against TensorFlow's converter, in one run: accuracy, latency, size, time, and the cost of measuring.

    python benchmarks/main_job.py --data FOLDER              a folder with a labels.csv of calibration and test photos
    python benchmarks/main_job.py                            the photos of packages (20: too few for figures)

The peer is `tf.lite.TFLiteConverter` with full-integer int8 on the same model without its normalization, calibrated on
the same photos: what a careful user does by hand. Latencies of two files are measured alternately in one process, so
that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from in_turns import INFERENCES, ROUNDS, medians_ms

CONVERSIONS = 3  # rounds of both converters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample", help="folder with labels.csv, or `sample`")
    parser.add_argument("--model", default="efficientnet_lite0")
    arguments = parser.parse_args()

    from edge_cv import models
    from edge_cv.data.split import split_for_evaluation
    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    versions = {k: v for k, v in machine["versions"].items() if k in ("tensorflow", "keras", "ai-edge-litert")}
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; {versions}")
    calibrate = "sample_calibration" if arguments.data == "sample" else None
    splits = split_for_evaluation(arguments.data, calibrate, 100)
    test, calibration = splits.test, splits.calibration
    preprocessing = models.preprocessing(arguments.model)
    calibration_pixels = np.stack([pixels for pixels, _ in calibration.pixels(preprocessing)])
    print(f"{arguments.model}: calibrated on {len(calibration)} photos, measured on {len(test)} others\n")

    model = models.build(arguments.model, weights="imagenet")
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as name:
        folder = Path(name)
        rounds = []
        for _ in range(CONVERSIONS):
            start = time.perf_counter()
            peer = tensorflow_int8(model, calibration_pixels)
            middle = time.perf_counter()
            files = ours(model, calibration_pixels, folder)
            rounds.append((middle - start, time.perf_counter() - middle))
        plain = folder / "tensorflow_int8.tflite"
        plain.write_bytes(peer)
        print_time(rounds)
        print_accuracy(files, plain, test, preprocessing)
        print_latency(files["int8"], plain)
        print_throughput(files, test, preprocessing)
    print_decoding(test, preprocessing)
    print_start_up()


def tensorflow_int8(model, pixels: np.ndarray, *, centre: float = 127, by_channel: bool = True) -> bytes:
    """TensorFlow's int8 file of the model without its normalization, which is (pixel - centre) / (255 - centre)."""
    import keras
    import tensorflow as tf

    body = keras.models.clone_model(
        model, call_function=lambda layer, *a, **k: a[0] if layer.name == "normalize" else layer(*a, **k)
    )
    body.set_weights(model.get_weights())
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder:
        body.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        normalized = (pixels.astype(np.float32) - centre) / (255 - centre)
        converter.representative_dataset = lambda: ([p[None]] for p in normalized)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        converter._experimental_disable_per_channel = not by_channel
        return converter.convert()


def ours(model, pixels: np.ndarray, folder: Path) -> dict[str, Path]:
    """All five files, each verified, without a kept float conversion."""
    from converters import convert_all, float_model

    float_model._kept.clear()
    files = {}
    schemes = "float32", "float16", "dynamic_int8", "int8"
    for conversion in convert_all(model, schemes, ["float32"], calibration=pixels):
        name = conversion.scheme if conversion.format == "tflite" else conversion.format
        files[name] = conversion.save(folder / f"{name}.{conversion.format}")
    return files


def print_time(rounds: Sequence[tuple[float, float]]) -> None:
    """Seconds of TensorFlow's conversion and of ours, alternately; the first round also imports the converters."""
    print("conversion           TensorFlow, one int8 file   ours, five files, verified   (limit 1.3)")
    for place, (peer, own) in enumerate(rounds):
        name = "with imports" if place == 0 else "imported"
        print(f"  {name:18} {peer:23.1f} s {own:25.1f} s   {own / peer:.2f} x")
    print()


def print_accuracy(files: dict[str, Path], plain: Path, test, preprocessing) -> None:
    """Top-1, agreement and SQNR of our files and the peer's, against the float32 file."""
    from converters.parity import sqnr_db
    from converters.tflite.graph import Graph, count_operators
    from converters.tflite.runtime import predict
    from edge_cv.evaluation import wilson_interval

    photos = [(pixels, label) for pixels, label in test.pixels(preprocessing)]
    pixels, labels = np.stack([p for p, _ in photos]), np.array([label for _, label in photos])
    reference = predict(files["float32"].read_bytes(), pixels)
    print("file              top-1   agreement (95 % interval)    SQNR     size bytes   integer operators")
    rows = [*files.items(), ("TensorFlow int8", plain)]
    for name, path in rows:
        content = path.read_bytes()
        if path.suffix == ".onnx":
            continue
        integer = "int8" in name and name != "dynamic_int8"
        logits = predict(content, pixels, pixel_offset=-128 if integer else None)
        agreed = int((logits.argmax(1) == reference.argmax(1)).sum())
        low, high = wilson_interval(agreed, len(pixels))
        count = "{} of {}".format(*count_operators(Graph(content)))
        print(
            f"  {name:15} {np.mean(logits.argmax(1) == labels):6.2%}   {agreed / len(pixels):6.2%} "
            f"({low:.1%} to {high:.1%})   {sqnr_db(reference, logits):7.2f} dB   {len(content):10,}   {count}"
        )
    print()


def print_latency(our_file: Path, plain: Path) -> None:
    """Median latency at one thread, the two files measured alternately."""
    own, peer = medians_ms([our_file.read_bytes(), plain.read_bytes()])
    print(f"int8 latency, 1 thread, median of {ROUNDS * INFERENCES} each, alternately")
    print(f"  ours {own:.3f} ms, TensorFlow's {peer:.3f} ms: {own / peer:.3f} x (limit 1.02)\n")


def print_throughput(files: dict[str, Path], test, preprocessing) -> None:
    """Evaluation on all cores against cores / single-image latency, decoding taken off."""
    from edge_cv.evaluation import evaluate, measure

    four = {name: path for name, path in files.items() if path.suffix == ".tflite"}
    cores = len(os.sched_getaffinity(0))
    single = {name: measure(path, runs=100).latency[0].p50_ms / 1e3 for name, path in four.items()}
    start = time.perf_counter()
    for _ in test.pixels(preprocessing):
        pass
    decoding = time.perf_counter() - start
    start = time.perf_counter()
    done = evaluate(four, test, preprocessing, reference="float32")
    wall = time.perf_counter() - start
    limit = done.images * sum(single.values()) / cores
    print(f"evaluation of {done.images} photos x {len(four)} files on {cores} cores")
    print(f"  {wall:.2f} s, of which decoding {decoding:.2f} s; at the single-image latencies {limit:.2f} s")
    print(f"  {limit / (wall - decoding):.1%} of the limit (at least 85 %)\n")


def print_decoding(test, preprocessing) -> None:
    """Decode, crop and resize against the same in bare Pillow, alternately, on one core."""
    from PIL import Image

    from edge_cv.data import load_pixels

    size = preprocessing.height

    def bare(photo) -> np.ndarray:
        with Image.open(photo.path) as file:
            image = file.convert("RGB")
        side = min(image.size) * size // preprocessing.resize_to
        left, top = (image.width - side + 1) // 2, (image.height - side + 1) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)).resize((size, size), Image.BICUBIC))

    seconds = [0.0, 0.0]
    chosen = test.take(200)
    photos = chosen.chunk(0, len(chosen))
    for photo in photos[:5]:
        bare(photo), load_pixels(photo.place, preprocessing)
    for photo in photos:
        for place, work in enumerate((bare, lambda p: load_pixels(p.place, preprocessing))):
            start = time.perf_counter()
            work(photo)
            seconds[place] += time.perf_counter() - start
    print(f"decode, crop and resize of {len(photos)} photos, one core")
    print(f"  Pillow {len(photos) / seconds[0]:.0f} a second, ours {len(photos) / seconds[1]:.0f}: ", end="")
    print(f"{seconds[0] / seconds[1]:.1%} (at least 90 %)\n")


def print_start_up() -> None:
    """Wall time of a fresh process, median of seven."""

    def median(command: list[str]) -> float:
        taken = []
        for _ in range(8):
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])

    bare = median([sys.executable, "-c", "pass"])
    imported = median([sys.executable, "-c", "import edge_cv"]) - bare
    print(f"edge-cv --help  {median([sys.executable, '-m', 'edge_cv.cli', '--help']):.3f} s (limit 0.2)")
    print(f"import edge_cv  {imported:.3f} s beyond Python's own {bare:.3f} s (limit 0.05)")


if __name__ == "__main__":
    main()
