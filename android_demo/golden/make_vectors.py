"""Writes Python's predictions for the sample photos, which the tests on the JVM compare with the app's.

    python android_demo/golden/make_vectors.py MODEL.tflite... --out FOLDER

The folder contains each model with its sidecar, each photo's upright pixels (`<n>.rgb`, raw) and `vectors.json`: for
each model and photo the SHA-256 of the input tensor's bytes and the top five classes with their probabilities.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from converters.images.decoding import decode
from converters.record import read_record
from converters.tflite.runtime import dequantize, interpreter
from edge_cv.data import sample, sample_calibration
from edge_cv.evaluation.open_model import InputEncoder

TOP = 5


def make(models: list[Path], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sources = (sample(), sample_calibration())
    files = dict.fromkeys(source.place(i).path for source in sources for i in range(len(source)))
    photos = [decode(file) for file in files]
    shapes = []
    for n, pixels in enumerate(photos):
        (out / f"{n}.rgb").write_bytes(pixels.tobytes())
        shapes.append([pixels.shape[1], pixels.shape[0]])
    vectors = {"photos": shapes, "models": {model.name: predictions(model, photos) for model in models}}
    for model in models:
        shutil.copy(model, out)
        shutil.copy(model.with_suffix(".json"), out)
    (out / "vectors.json").write_text(json.dumps(vectors))


def predictions(model: Path, photos: list[np.ndarray]) -> list[dict]:
    """For each photo the digest of the input tensor and the top classes."""
    record = read_record(model)
    preprocessing = record.preprocessing
    runner = interpreter(model.read_bytes())
    entry, out = runner.get_input_details()[0], runner.get_output_details()[0]
    scale, zero_point = entry["quantization"]
    feed = InputEncoder(np.dtype(entry["dtype"]).name, scale, zero_point, record.input.pixel_offset, preprocessing)
    rows = []
    for photo in photos:
        batch = feed(preprocessing.crop_and_resize(photo)[None])
        runner.set_tensor(entry["index"], batch)
        runner.invoke()
        logits = dequantize(runner.get_tensor(out["index"]), out).ravel()
        powers = np.exp(logits.astype(np.float64) - logits.max())
        top = np.argsort(-logits, kind="stable")[:TOP]
        rows.append(
            {
                "input_sha256": hashlib.sha256(batch.tobytes()).hexdigest(),
                "top": top.tolist(),
                "probabilities": (powers / powers.sum())[top].tolist(),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    make(arguments.models, arguments.out)
