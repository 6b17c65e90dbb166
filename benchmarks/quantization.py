"""int8 against other post-training quantizers: the same model, calibration photos and test photos, in one run.

    python benchmarks/quantization.py --data FOLDER --model efficientnet_lite0
    python benchmarks/quantization.py --data FOLDER --openvino ENV/bin/python     with OpenVINO and NNCF as well
    python benchmarks/quantization.py --data FOLDER --model mobilenet_v2.keras    of benchmarks/hard_model.py
    python benchmarks/quantization.py --data FOLDER --schemes int8,int8:effort=high,int8:weights=per_tensor --per-tensor
    python benchmarks/quantization.py --data FOLDER --schemes int8,int8:calibration=none

FOLDER has a labels.csv of calibration and test photos; `calibration=none` takes the sample photos of packages instead
of the former. Peers: TensorFlow's converter, ai-edge-quantizer (min-max and MSE), ONNX Runtime's quantizer, and
OpenVINO with NNCF, which needs a separate environment (python -m venv ENV; ENV/bin/pip install nncf openvino onnx).
Each gets the model in the form that suits it best: without its normalization where it would quantize that. SQNR is that
of the logits against the float model's on the test photos; agreement is with its top-1, with the 95 % interval.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from in_turns import medians_ms
from main_job import tensorflow_int8

OPENVINO = """
import sys, numpy as np, nncf, openvino as ov
model, calibration, test, out = sys.argv[1:]
images = np.load(calibration)
model = ov.Core().read_model(model)
name = model.inputs[0].any_name
made = nncf.quantize(model, nncf.Dataset(list(images), lambda p: {name: p[None].astype(np.float32)}),
                     subset_size=len(images))
run = ov.Core().compile_model(made, "CPU")
np.save(out, np.concatenate([run(p[None].astype(np.float32))[0] for p in np.load(test)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with labels.csv")
    parser.add_argument("--model", default="efficientnet_lite0", help="a model with ImageNet weights, or a .keras file")
    parser.add_argument("--schemes", default="int8,int16x8,mixed", help="ours, with commas; latency of all is measured")
    parser.add_argument("--per-tensor", action="store_true", help="the peers with one scale for a layer's weights too")
    parser.add_argument("--openvino", help="the Python of an environment that has openvino, nncf and numpy")
    arguments = parser.parse_args()

    from converters import to_onnx, to_tflite
    from converters.float_model import convert_float
    from converters.onnx.quantization import static_int8
    from converters.quantization.normalization import strip_normalization
    from converters.sources import open_source
    from converters.tflite.runtime import predict, predict_onnx
    from edge_cv import models
    from edge_cv.data import sample_calibration
    from edge_cv.data.split import split_for_evaluation
    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, VNNI: {machine['int8_dot_product']}; {machine['versions']}")
    splits = split_for_evaluation(arguments.data, None, 100)
    test, calibration = splits.test, splits.calibration
    model = opened(arguments.model)
    preprocessing = models.preprocessing(Path(arguments.model).stem, model.input_shape[1])
    calibration_pixels = np.stack([pixels for pixels, _ in calibration.pixels(preprocessing)])
    photos = list(test.pixels(preprocessing))
    pixels, labels = np.stack([p for p, _ in photos]), np.array([label for _, label in photos])
    print(f"{arguments.model}: calibrated on {len(calibration_pixels)} photos, measured on {len(pixels)} others")

    source = open_source(model)
    float_model = convert_float(source)
    normalized = strip_normalization(float_model, preprocessing)
    print_channels(normalized.content, normalized.normalize(calibration_pixels))
    reference = predict(float_model.content, pixels)
    table = Table(reference, labels)
    table.row("float32", 0, float_model.content, reference)

    centre = 127 if "lite" in arguments.model else 127.5
    seconds, plain = timed(lambda: tensorflow_int8(model, calibration_pixels, centre=centre))
    plain_outputs = outputs_of(plain, pixels, pixel_offset=-128)
    table.row("TensorFlow", seconds, plain, plain_outputs)
    for name, algorithm in (("min-max", "MIN_MAX_UNIFORM_QUANT"), ("MSE", "MSE")):
        seconds, made = timed(
            lambda a=algorithm: ai_edge_int8(normalized.content, normalized.normalize(calibration_pixels), a)
        )
        table.row(f"ai-edge {name}", seconds, made, outputs_of(made, normalized.normalize(pixels)))
    onnx = to_onnx(source, calibration=calibration_pixels[:8]).content
    seconds, made = timed(lambda: static_int8(onnx, calibration_pixels, symmetric=False))
    table.row("ONNX Runtime", seconds, made, predict_onnx(made, pixels))
    if arguments.openvino:
        seconds, outputs = openvino_int8(arguments.openvino, onnx, calibration_pixels, pixels)
        table.row("OpenVINO, NNCF", seconds, b"", outputs)
    if arguments.per_tensor:
        seconds, made = timed(lambda: tensorflow_int8(model, calibration_pixels, centre=centre, by_channel=False))
        table.row("TF, per tensor", seconds, made, outputs_of(made, pixels, pixel_offset=-128))
    seconds, made = timed(lambda: to_onnx(source, "int8", calibration=calibration_pixels).content)
    table.row("ours int8, ONNX", seconds, made, predict_onnx(made, pixels))
    files = {} if plain_outputs is None else {"TensorFlow int8": plain}
    for name in arguments.schemes.split(","):
        scheme, no_photos = scheme_of(name)
        images = calibration_pixels
        if no_photos:
            images = np.stack([pixels for pixels, _ in sample_calibration().pixels(preprocessing)])
        seconds, conversion = timed(lambda s=scheme, c=images: to_tflite(source, s, calibration=c))
        outputs = predict(conversion.content, pixels, pixel_offset=conversion.pixel_offset)
        table.row(f"ours {name}", seconds, conversion.content, outputs)
        files[f"ours {name}"] = conversion.content
        for point in (conversion.record.mixed or {}).get("curve", ()):
            print(f"    {point}")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, of all of this process")
    print("latency at one thread, medians of single inferences, measured alternately")
    for name, milliseconds in zip(files, medians_ms(list(files.values())), strict=True):
        print(f"  {name:18} {milliseconds:8.3f} ms")


def outputs_of(content: bytes, images: np.ndarray, pixel_offset: int | None = None) -> np.ndarray | None:
    """The outputs of a TFLite file; None where the runtime refuses it."""
    from converters.errors import InputError
    from converters.tflite.runtime import predict

    try:
        return predict(content, images, pixel_offset=pixel_offset)
    except InputError:
        return None


def print_channels(content: bytes, inputs: np.ndarray) -> None:
    """Print by what a trained network differs from a random one: uneven ranges of channels, and dead channels."""
    from converters.quantization.ranges import observe
    from converters.tflite.graph import WEIGHTED, Graph

    graph = Graph(content)
    layers = frozenset(graph.name(o.outputs[0]) for o in graph.operators() if o.name in WEIGHTED)
    statistics = observe(content, inputs, layers)[1]
    widths = [statistics[name].high - statistics[name].low for name in layers]
    ratios = [width.max() / max(np.median(width), 1e-3 * width.max()) for width in widths if width.max() > 0]
    dead = np.concatenate([width <= 1e-6 * max(width.max(), 1e-30) for width in widths])
    print(
        f"activations: a layer's widest channel has {np.median(ratios):.1f} times the range of its median channel "
        f"(median of {len(ratios)} layers; in a tenth {np.percentile(ratios, 90):.1f} and more), {dead.mean():.1%} "
        "of all channels are dead\n"
    )


def opened(model: str) -> Any:
    """The Keras model of a name with ImageNet weights, or of a `.keras` file named after its architecture."""
    import keras

    from edge_cv import models

    return keras.models.load_model(model) if model.endswith(".keras") else models.build(model, weights="imagenet")


def scheme_of(text: str) -> tuple[Any, bool]:
    """The scheme of a name and options, such as `int8:effort=high:calibration=none`, and whether it gets no photos."""
    from converters.schemes import parse

    name, *given = text.split(":")
    options = dict(option.split("=") for option in given)
    no_photos = options.pop("calibration", "") == "none"
    return dataclasses.replace(parse(name), min_sqnr_db=-100, **options), no_photos


def timed(make: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = make()
    return time.perf_counter() - start, made


class Table:
    """Prints a row as soon as it is measured."""

    def __init__(self, reference: np.ndarray, labels: np.ndarray) -> None:
        self._reference, self._labels = reference, labels
        print("made by             SQNR      agreement (95 % interval)   top-1     bytes        integer     seconds")

    def row(self, name: str, seconds: float, content: bytes, outputs: np.ndarray | None) -> None:
        from converters.parity import sqnr_db
        from converters.tflite.graph import Graph, count_operators
        from edge_cv.evaluation import wilson_interval

        if outputs is None:
            print(f"{name:18} the runtime refuses the file", flush=True)
            return
        agreed = int((outputs.argmax(1) == self._reference.argmax(1)).sum())
        low, high = wilson_interval(agreed, len(outputs))
        integer = "{}/{}".format(*count_operators(Graph(content))) if content[4:8] == b"TFL3" else ""
        print(
            f"{name:18} {sqnr_db(self._reference, outputs):6.2f} dB  {agreed / len(outputs):7.2%} "
            f"({low:.1%} to {high:.1%})   {np.mean(outputs.argmax(1) == self._labels):7.2%}  {len(content):10,}  "
            f"{integer:>9} {seconds:9.1f}",
            flush=True,
        )


def ai_edge_int8(content: bytes, inputs: np.ndarray, algorithm: str) -> bytes:
    """ai-edge-quantizer's own recipe for static int8, with its own calibration."""
    from ai_edge_quantizer import quantizer, recipe_manager

    from converters.native_logs import suppress_native_logs

    with suppress_native_logs():
        made = quantizer.Quantizer(bytearray(content))
        made.add_static_config(".*", "*", 8, 8, algorithm_key=getattr(recipe_manager.AlgorithmName, algorithm))
        signature = made.calibrate({"serving_default": [{_input_name(content): image[None]} for image in inputs]})
        return bytes(made.quantize(signature).quantized_model)


def _input_name(content: bytes) -> str:
    from converters.tflite.runtime import interpreter

    ((_, of_signature),) = interpreter(content).get_signature_list().items()
    return of_signature["inputs"][0]


def openvino_int8(python: str, onnx: bytes, calibration: np.ndarray, test: np.ndarray) -> tuple[float, np.ndarray]:
    """The logits of NNCF's int8 of the ONNX file; seconds include the start of its process."""
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as name:
        folder = Path(name)
        (folder / "float.onnx").write_bytes(onnx)
        np.save(folder / "calibration.npy", calibration)
        np.save(folder / "test.npy", test)
        start = time.perf_counter()
        names = ("float.onnx", "calibration.npy", "test.npy", "out.npy")
        done = subprocess.run(
            [python, "-c", OPENVINO, *(str(folder / n) for n in names)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"OpenVINO failed: {done.stderr.strip().splitlines()[-1:]}")
        return time.perf_counter() - start, np.load(folder / "out.npy")


if __name__ == "__main__":
    main()
