"""Model files of other converters: of TensorFlow's, with and without standard metadata, and ONNX files of PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.declared import Declaration, declared_record
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.tflite import metadata
from converters.tflite.graph import Graph
from converters.tflite.standard_metadata import read_standard
from edge_cv.data import Samples, imagenet_labels
from edge_cv.evaluation import evaluate
from edge_cv.evaluation.open_model import OpenModel, io_metadata
from edge_cv.pipeline.evaluate import open_for_files

SIZE = 16
NAMES = ("Apple", "green_lime", "plum")
STRETCHED = Preprocessing(SIZE, rule="stretch", mean=127.5, std=127.5)
GIVEN = Declaration({"rule": "stretch", "mean": (127.5,) * 3, "std": (127.5,) * 3})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory, images) -> dict[str, Path]:
    """A model of -1..1 as TensorFlow's converter writes it: float32, uint8, int8 and int8 with uneven ranges."""
    import keras
    import tensorflow as tf
    from keras import layers

    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3), batch_size=1)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(inputs))
    keras.Model(inputs, layers.Dense(3, activation="softmax")(x)).export(folder / "saved", verbose=False)
    scaled = images.astype(np.float32) / 127.5 - 1
    kinds = {
        "float32": None,
        "uint8": (tf.uint8, scaled),
        "int8": (tf.int8, scaled),
        "uneven": (tf.uint8, scaled * 0.7),
    }
    paths = {}
    for name, kind in kinds.items():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
        if kind is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda kind=kind: ([image[None]] for image in kind[1])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = kind[0]
        paths[name] = folder / f"{name}.tflite"
        paths[name].write_bytes(converter.convert())
    return paths


@pytest.fixture(scope="module")
def photos(tmp_path_factory, images) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(images):
        name = ("apple", "Green Lime", "PLUM")[index % 3]
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name / f"{index}.png")
    return folder


def outputs_of(file: Path, images: np.ndarray, declaration: Declaration) -> np.ndarray:
    model, declared = OpenModel(str(file)), io_metadata(file, declaration)
    return model.logits(model.encoder(declared, declared.preprocessing)(images))[0]


def by_interpreter(file: Path, images: np.ndarray) -> np.ndarray:
    """The oracle: inputs of -1..1, quantized and dequantized by the tensors' own scales."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for image in images:
        values = image.astype(np.float32) / 127.5 - 1
        scale, zero_point = given["quantization"]
        if scale:
            limits = np.iinfo(given["dtype"])
            values = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(given["dtype"])
        interpreter.set_tensor(given["index"], values[None])
        interpreter.invoke()
        row = interpreter.get_tensor(answered["index"])[0].astype(np.float32)
        scale, zero_point = answered["quantization"]
        rows.append((row - zero_point) * scale if scale else row)
    return np.stack(rows)


@pytest.mark.parametrize("kind", ["float32", "uint8", "int8", "uneven"])
def test_a_file_without_metadata_takes_the_declared_range_with_any_scale_and_zero_point(files, images, kind):
    found, expected = outputs_of(files[kind], images, GIVEN), by_interpreter(files[kind], images)
    np.testing.assert_allclose(found, expected, atol=0.02)
    if kind == "uneven":  # pixels as they are would be other inputs
        assert declared_record(files[kind], GIVEN).input.pixel_offset is None


def test_integers_without_a_declared_range_are_the_pixels(files):
    for kind, offset in (("uint8", 0), ("int8", -128)):
        assert declared_record(files[kind]).input.pixel_offset == offset
        meant = Declaration({"mean": (0.0,) * 3, "std": (1.0,) * 3})  # would be 127 times too large
        assert declared_record(files[kind], meant).input.pixel_offset == offset
    record = declared_record(files["uint8"])
    assert (record.output.values, record.output.shape, record.labels) == ("probabilities", (1, 3), None)
    assert declared_record(files["float32"]).preprocessing is None


def test_a_file_is_evaluated_on_folders_that_spell_its_labels_in_other_ways(files, photos, images):
    declaration = Declaration(GIVEN.fields, labels=NAMES)
    paths = [files["float32"], files["uint8"]]
    samples = open_for_files(paths, str(photos), declaration=declaration)
    assert samples.classes == NAMES
    named = {"float32": files["float32"], "uint8": files["uint8"]}
    evaluated = evaluate(named, samples, reference="float32", declaration=declaration, workers=1)
    expected = by_interpreter(files["float32"], images).argmax(1) == np.arange(12) % 3
    assert evaluated.scores["float32"].top1 == pytest.approx(expected.mean())
    assert evaluated.scores["uint8"].agreement >= 0.9
    with pytest.raises(InputError, match=r"--mean 127\.5 --std 127\.5 for -1\.\.1.*--resize.*Received: .*float32"):
        evaluate({"float32": files["float32"]}, samples, workers=1)


def standard_file(path: Path, to: Path) -> Path:
    """The file with standard metadata only, by the project's own writer."""
    record = {
        "name": "net",
        "scheme": "float32",
        "input": {
            "mean": [127.5],
            "std": [127.5],
            "description": "",
            "range": [-1.0, 1.0],
            "shape": [1, SIZE, SIZE, 3],
        },
        "output": {"values": "probabilities", "shape": [1, 3]},
    }
    content = metadata.embed(Graph(path.read_bytes()), record, NAMES)
    graph = Graph(content)
    graph.remove_metadata(metadata.OWN_NAME)
    end = content[content.index(b"PK\x03\x04") :]  # the zip with the labels
    to.write_bytes(graph.to_bytes() + end)
    return to


def test_an_onnx_file_of_edge_cv_without_its_sidecar_keeps_its_record(files, tmp_path):
    from converters import to_onnx

    made = to_onnx(files["float32"], preprocessing=STRETCHED, labels=NAMES)
    (tmp_path / "alone.onnx").write_bytes(made.content)
    record = declared_record(tmp_path / "alone.onnx")
    assert (record.preprocessing, record.labels, record.output.values) == (STRETCHED, NAMES, "probabilities")


def test_the_command_line_takes_numbers_for_pixels(files):
    from edge_cv.cli.options import declaration_of

    given = declaration_of("stretch", "127.5", "127.5", "RGB", None)
    assert declared_record(files["float32"], given).preprocessing.mean == (127.5,) * 3
    assert declaration_of(None, None, None, "1", None).channels == "grey"
    with pytest.raises(InputError, match=r"multiply those for 0\.\.1 by 255"):
        declaration_of(None, "0.485,0.456,0.406", "0.229,0.224,0.225", None, None)


def test_standard_metadata_says_the_range_and_the_labels(files, images, tmp_path):
    for kind in ("float32", "uint8"):
        file = standard_file(files[kind], tmp_path / f"{kind}.tflite")
        record = declared_record(file)
        assert record.labels == NAMES
        assert record.preprocessing == Preprocessing(SIZE, interpolation="bilinear", mean=127.5, std=127.5)
        np.testing.assert_allclose(
            outputs_of(file, images, Declaration()), by_interpreter(files[kind], images), atol=0.02
        )
    assert declared_record(file, GIVEN).preprocessing.rule == "stretch"


def test_a_float_file_with_standard_metadata_is_converted_with_its_range_and_labels(files, tmp_path):
    from converters.sources import open_source
    from edge_cv.pipeline.file_model import labels_of

    file = standard_file(files["float32"], tmp_path / "theirs.tflite")
    assert open_source(file).preprocessing == Preprocessing(SIZE, interpolation="bilinear", mean=127.5, std=127.5)
    assert labels_of(file) == list(NAMES)
    assert labels_of(files["float32"]) is None


def test_broken_standard_metadata_is_none(files, tmp_path):
    content = standard_file(files["float32"], tmp_path / "a.tflite").read_bytes()
    graph, rng = Graph(content), np.random.default_rng(0)
    good = graph.metadata(metadata.STANDARD_NAME)
    for _ in range(200):
        broken = bytearray(good)
        for place in rng.integers(0, len(broken), 8):
            broken[place] = rng.integers(256)
        graph.set_metadata(metadata.STANDARD_NAME, bytes(broken[: rng.integers(1, len(broken) + 1)]))
        read_standard(content, graph)  # a value or None, no other error


def linear_onnx(weights: np.ndarray, shape: tuple, end: str | None = None) -> bytes:
    """The means of the channels times weights."""
    from onnx import TensorProto, helper, numpy_helper

    axes = [2, 3] if shape[1] == 3 else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        *([] if end is None else [helper.make_node(end, ["logits"], ["out"])]),
    ]
    outputs = [helper.make_tensor_value_info("out" if end else "logits", TensorProto.FLOAT, ("N", weights.shape[1]))]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "linear", inputs, outputs, [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def test_onnx_files_of_pytorch_take_channels_first_a_free_batch_and_a_background_class(tmp_path, images):
    from PIL import Image

    weights = np.random.default_rng(2).normal(size=(3, 1001)).astype(np.float32)
    (tmp_path / "first.onnx").write_bytes(linear_onnx(weights, ("N", 3, SIZE, SIZE), "Softmax"))
    (tmp_path / "last.onnx").write_bytes(linear_onnx(weights[:, 1:], (1, SIZE, SIZE, 3)))
    (tmp_path / "bgr.onnx").write_bytes(linear_onnx(weights[::-1, 1:], ("N", 3, SIZE, SIZE)))
    expected = ((images / 127.5 - 1).mean(axis=(1, 2)) @ weights[:, 1:]).argmax(1)
    paths = []
    for index, image in enumerate(images):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(paths[-1])
    names = tuple(label.name for label in imagenet_labels())
    samples = Samples.from_files("photos", paths, expected.tolist(), names)
    files = {name: tmp_path / f"{name}.onnx" for name in ("first", "last")}
    evaluated = evaluate(files, samples, reference="last", declaration=GIVEN, workers=1)
    assert {name: score.top1 for name, score in evaluated.scores.items()} == {"first": 1.0, "last": 1.0}
    assert declared_record(files["first"]).output.values == "probabilities"
    bgr = Declaration(GIVEN.fields, channels="bgr")
    assert evaluate({"bgr": tmp_path / "bgr.onnx"}, samples, declaration=bgr, workers=1).scores["bgr"].top1 == 1.0


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"labels": ("a", "b")}, "labels must be 3 class names, one for each output. Received: 2"),
        ({"channels": "grey"}, r"the channels must be those of .*\(3,\). Received: grey"),
        ({"channels": "rgba"}, "rgba"),
        ({"fields": {"rule": "squash"}}, "squash"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(files, declaration, message):
    with pytest.raises(InputError, match=message):
        declared_record(files["uint8"], Declaration(**declaration))
