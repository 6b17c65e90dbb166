"""The arithmetic of the web page, run in Node, compared with Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from converters import Preprocessing
from converters.images.preprocessing import INTERPOLATIONS, RULES

MODULE = Path(__file__).parents[1] / "edge_cv" / "deploy" / "web" / "classifier.js"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed (apt-get install nodejs)")


def in_node(script: str, folder: Path) -> str:
    """Run a script in Node with the module as `classifier` and files of `folder`; return what it prints."""
    text = f"""
import * as classifier from {json.dumps(MODULE.as_uri())}
import {{ readFileSync, writeFileSync }} from "node:fs"
const read = (name) => readFileSync({json.dumps(str(folder))} + "/" + name)
const write = (name, content) => writeFileSync({json.dumps(str(folder))} + "/" + name, content)
const json = (name) => JSON.parse(read(name))
{script}
"""
    (folder / "script.mjs").write_text(text)
    done = subprocess.run([NODE, folder / "script.mjs"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def photos() -> list[np.ndarray]:
    """Photos that are hard to resize exactly: tiny, long, of odd sizes, and of pixels 0 and 255 only."""
    rng = np.random.default_rng(5)
    sizes = [(1, 1), (1, 700), (900, 1), (2, 3), (31, 32), (32, 33), (33, 31), (64, 64), (97, 113), (240, 321)]
    sizes += [(7, 333), (100, 64), (96, 64), (97, 64), (333, 7), (500, 90)]  # columns are resized first, or nearly
    found = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    found += [rng.integers(0, 2, (height, width, 3), np.uint8) * 255 for height, width in ((50, 80), (121, 64))]
    return found


@needs_node
def test_crop_and_resize_equals_python_bit_for_bit(tmp_path):
    preprocessings = [
        Preprocessing(size, resize_to=to, rule=rule, interpolation=interpolation)
        for rule in RULES
        for interpolation in INTERPOLATIONS
        for size, to in ((32, None), (32, 37), (64, 73))
    ]
    preprocessings += [
        Preprocessing(height, to, rule, width=width, channels=channels)
        for rule in RULES
        for height, width, channels, to in ((24, 40, 1, None), (40, 24, 3, 29), (8, 150, 1, 9), (32, 32, 1, 35))
    ]
    cases, expected = [], []
    for number, photo in enumerate(photos()):
        rgba = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
        (tmp_path / f"{number}.rgba").write_bytes(rgba.tobytes())
        for preprocessing in preprocessings:
            cases.append({"photo": f"{number}.rgba", "size": photo.shape[:2], "preprocessing": preprocessing.to_dict()})
            expected.append(preprocessing.crop_and_resize(photo).tobytes())
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    in_node(
        """
const made = json("cases.json").map(({ photo, size: [height, width], preprocessing }) =>
  classifier.cropAndResize({ data: new Uint8ClampedArray(read(photo)), width, height }, preprocessing))
write("made.bin", Buffer.concat(made))
""",
        tmp_path,
    )
    made, at = (tmp_path / "made.bin").read_bytes(), 0
    assert len(made) == sum(map(len, expected))
    for case, reference in zip(cases, expected, strict=True):
        assert made[at : at + len(reference)] == reference, case
        at += len(reference)


@needs_node
@pytest.mark.parametrize("kind", ["pixels", "normalized", "pixel_offset", "quantized", "grey"])
def test_the_input_tensor_equals_python(tmp_path, kind):
    from edge_cv.evaluation.open_model import InputEncoder

    preprocessing = Preprocessing(8, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    if kind in ("pixels", "pixel_offset"):
        preprocessing = Preprocessing(8)
    if kind == "grey":
        preprocessing = Preprocessing(8, channels=1, mean=123.7, std=58.4)
    whole = kind in ("pixel_offset", "quantized")
    fields = {"scale": 0.0187, "zero_point": 114} if whole else {"scale": None, "zero_point": None}
    offset = 3 if kind == "pixel_offset" else None
    pixels = np.random.default_rng(1).integers(0, 256, preprocessing.shape, np.uint8)
    dtype = "uint8" if whole else "float32"
    expected = InputEncoder(dtype, **fields, pixel_offset=offset, preprocessing=preprocessing)(pixels[None])[0]
    record = {"input": {"dtype": dtype, **fields, "pixel_offset": offset}, "preprocessing": preprocessing.to_dict()}
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    in_node('write("made", classifier.toInput(new Uint8Array(read("pixels")), json("record.json")))', tmp_path)
    np.testing.assert_array_equal(np.frombuffer((tmp_path / "made").read_bytes(), dtype), expected.ravel())


@needs_node
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_top_five_classes_equal_python_also_for_ties(tmp_path, dtype):
    from edge_cv.evaluation.chunk_results import top5

    stored = np.random.default_rng(2).integers(90, 110, 50).astype(dtype)
    values = (stored.astype(np.float32) - 83) * np.float32(0.0679) if dtype == "uint8" else stored
    indices, probabilities = top5(values[None].astype(np.float32), False, False)
    record = {"output": {"dtype": dtype, "scale": 0.0679, "zero_point": 83, "values": "logits"}, "labels": ["a", "b"]}
    (tmp_path / "in.json").write_text(json.dumps([stored.tolist(), record]))
    found = json.loads(in_node('console.log(JSON.stringify(classifier.topClasses(...json("in.json"))))', tmp_path))
    assert [top["index"] for top in found] == indices[0].tolist()
    np.testing.assert_allclose([top["probability"] for top in found], probabilities[0], rtol=1e-6)
    assert all(top["label"] == {0: "a", 1: "b"}.get(top["index"], f"class {top['index']}") for top in found)


@needs_node
def test_a_single_output_decides_between_two_classes(tmp_path):
    output = {"dtype": "float32", "scale": None, "zero_point": None, "values": "probabilities", "activation": "sigmoid"}
    for values, record, expected in (
        ([0.8], {"output": output, "labels": ["cat", "dog"]}, [("dog", 0.8), ("cat", 0.2)]),
        ([-2.0], {"output": output | {"values": "logits"}, "labels": ["dog"]}, [("not dog", 0.8808), ("dog", 0.1192)]),
        (
            [0.0, 3.0],
            {"output": output | {"values": "logits"}, "labels": None},
            [("class 1", 0.9526), ("class 0", 0.5)],
        ),
    ):
        (tmp_path / "in.json").write_text(json.dumps([values, record]))
        found = json.loads(in_node('console.log(JSON.stringify(classifier.topClasses(...json("in.json"))))', tmp_path))
        assert [(top["label"], round(top["probability"], 4)) for top in found] == expected


@needs_node
def test_the_record_is_read_with_defaults_and_an_invalid_one_is_rejected(tmp_path):
    record = {
        "file": "net.tflite",
        "size_bytes": 9,
        "labels": ["a", "b"],
        "something": {"new": 1},
        "preprocessing": {"image_size": 8, "resize_to": None},
        "input": {"dtype": "uint8", "shape": [1, 8, 8, 3], "scale": 1.0, "zero_point": 0, "pixel_offset": 0},
        "output": {"dtype": "float32", "shape": [1, 2], "scale": None},
    }
    invalid = [
        {"preprocessing": []},
        {"preprocessing": {"image_size": "8"}},
        {"preprocessing": {"image_size": 8, "mean": [1, 2]}},
        {"preprocessing": {"image_size": 8, "channels": 1, "mean": [1, 2, 3]}},
        {"preprocessing": {"image_size": 8, "channels": 2}},
        {"preprocessing": {"height": 8}},
        {"input": {"dtype": 3}},
        {"input": {"dtype": "uint8", "zero_point": 0.5}},
        {"labels": [1]},
        {"file": None},
    ]
    (tmp_path / "records.json").write_text(
        json.dumps([record, *({**record, **change} for change in invalid), [], None])
    )
    script = """
const results = json("records.json").map((record) => {
  try { return classifier.readRecord(record) } catch (error) {
    if (!(error instanceof classifier.ClassifierError)) throw error
    return error.message
  }
})
console.log(JSON.stringify(results))
"""
    valid, *errors = json.loads(in_node(script, tmp_path))
    assert valid["preprocessing"] == json.loads(json.dumps(Preprocessing(8, resize_to=8).to_dict()))
    assert valid["input"] == record["input"]
    assert valid["output"]["values"] == "logits"
    assert "something" not in valid
    assert len(errors) == len(invalid) + 2
    assert all(error.startswith("The model's record is invalid: ") and "Received: " in error for error in errors), (
        errors
    )
