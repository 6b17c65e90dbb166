"""Sources of models that hold code or are damaged: refused, and nothing in them runs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_refusal import one_line, refused

from converters import InputError, load
from converters.sources import open_source


def test_the_code_of_a_lambda_layer_in_an_h5_file_is_not_run(tmp_path):
    import keras

    trace = tmp_path / "trace"
    path = str(trace)
    code = lambda x: (open(path, "w").write("executed"), x * 2)[1]  # noqa: E731, SIM115
    image = keras.Input((32, 32, 3))
    x = keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "code.h5")
    trace.unlink(missing_ok=True)
    refused(tmp_path / "code.h5", "Lambda layer.*runs only if you trust")
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".tflite"])
def test_a_suffix_in_upper_case_is_named(suffix, tmp_path):
    (tmp_path / f"m{suffix.upper()}").write_bytes(b"")
    refused(tmp_path / f"m{suffix.upper()}", f"rename it to m{suffix}. Received")


def test_a_model_under_the_suffix_of_another_kind_is_named(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"\x89HDF\r\n")
    refused(tmp_path / "m.keras", "rename it to m.h5")
    (tmp_path / "n.h5").write_bytes(b"PK\x03\x04")
    refused(tmp_path / "n.h5", "rename it to n.keras")


def test_links_to_other_files_are_named(tmp_path):
    import h5py

    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_group("layers")["kernel"] = h5py.ExternalLink("/etc/passwd", "x")
    refused(tmp_path / "m.h5", r"refers to data in other files \(layers/kernel\), and is not read")


def test_files_that_are_no_models_are_rejected(tmp_path):
    (tmp_path / "empty.keras").write_bytes(b"")
    (tmp_path / "junk.keras").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "lambda.keras").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "folder.keras").mkdir()
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "none.keras", "must be a file that exists")
    for name in ("empty", "junk", "lambda"):
        refused(tmp_path / f"{name}.keras", "not a .keras archive, or is corrupt")
    refused(tmp_path / "model.h5", "not an HDF5 file of a Keras model")
    (tmp_path / "model.onnx").write_bytes(b"junk")
    refused(tmp_path / "model.onnx", "must be a .keras archive.*with onnx2tf")
    refused(tmp_path / "other.keras", "must hold config.json")
    refused(tmp_path / "folder.keras", "must hold saved_model.pb")


def _rewrite(source: Path, target: Path, change: dict[str, bytes | None]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_a_damaged_keras_file_is_rejected(small_model, tmp_path):
    good = tmp_path / "lambda_m.keras"
    small_model.save(good)
    content = good.read_bytes()
    cut = tmp_path / "cut.keras"
    cut.write_bytes(content[: len(content) // 2])
    refused(cut, "corrupt")
    flipped = bytearray(content)
    at = content.index(b"\x89HDF") + 2000
    flipped[at : at + 50] = bytes(50)
    cut.write_bytes(flipped)
    with pytest.raises(InputError) as error:
        open_source(cut)
    one_line(error)
    for change, message in (
        ({"config.json": b"{"}, "its configuration is not JSON"),
        ({"config.json": b"[]"}, "its configuration is not a JSON object"),
        ({"config.json": b'{"class_name": "NoSuch", "config": {}}'}, "holds NoSuch, which is not a layer of Keras"),
        (
            {"config.json": b'{"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}}'},
            "must hold a model. Received: Dense",
        ),
        ({"model.weights.h5": None}, "declares layers of|cannot be loaded as a Keras 3 model"),
        ({"model.weights.h5": b"no weights"}, "its weights cannot be read"),
    ):
        refused(_rewrite(good, tmp_path / "lambda_bad.keras", change), message)


@pytest.mark.parametrize(("offset", "value"), [((6, 8), 1), ((8, 10), 8), ((8, 10), 99)])
def test_an_archive_that_is_encrypted_or_packed_otherwise_is_rejected(small_model, tmp_path, offset, value):
    small_model.save(tmp_path / "m.keras")
    content = bytearray((tmp_path / "m.keras").read_bytes())
    for mark, at in zip(
        (b"PK\x03\x04", b"PK\x01\x02"), offset, strict=True
    ):  # the members' headers, and the directory's
        for found in re.finditer(re.escape(mark), bytes(content)):
            content[found.start() + at] = value
    (tmp_path / "m.keras").write_bytes(content)
    refused(tmp_path / "m.keras", "is corrupt")


def test_an_archive_that_unpacks_to_far_more_than_it_weighs_is_rejected(small_model, tmp_path):
    small_model.save(tmp_path / "m.keras")
    bomb = _rewrite(tmp_path / "m.keras", tmp_path / "bomb.keras", {"model.weights.h5": bytes(200_000_000)})
    assert bomb.stat().st_size < 1_000_000
    refused(bomb, "unpacks to 2.* bytes, over 50 times its size")


@pytest.fixture
def lambda_file(tmp_path: Path) -> tuple[Path, Path]:
    """A .keras file whose Lambda layer writes a file when it is called, and that file."""
    import keras

    trace = tmp_path / "trace"

    image = keras.Input((32, 32, 3))
    path = str(trace)
    code = lambda x: (open(path, "w").write("executed"), x * 2)[1]  # noqa: E731, SIM115
    x = keras.layers.Lambda(code, output_shape=(32, 32, 3))(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(tmp_path / "code.keras")
    trace.unlink(missing_ok=True)
    return tmp_path / "code.keras", trace


def test_the_code_of_a_lambda_layer_is_not_run(lambda_file):
    file, trace = lambda_file
    refused(file, "Lambda layer.*runs only if you trust")
    assert not trace.exists()


def test_the_code_of_a_lambda_layer_is_run_when_the_caller_says_so(lambda_file, pixels):
    file, trace = lambda_file
    model = load(file, unsafe=True)
    np.testing.assert_allclose(open_source(model).predict(pixels[:2]), 2 * pixels[:2].mean((1, 2)), rtol=1e-5)
    assert trace.exists()


def _save_hostile(folder: Path, step: Any) -> None:
    """A SavedModel whose signature does `step()` before it computes."""
    import tensorflow as tf

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])
        def serve(self, image):
            with tf.control_dependencies([step()]):
                return {"scores": tf.reduce_mean(image, (1, 2))}

    module = Hostile()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


KINDS = (
    "WriteFile",
    "ReadFile",
    "EagerPyFunc",
    "PyFunc",
    "PrintV2",
    "MatchingFiles",
    "ImmutableConst",
    "DatasetFromGraph",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_that_reaches_outside_is_not_run(kind, tmp_path):
    import tensorflow as tf

    trace = tmp_path / "trace"

    def touch() -> np.float32:
        trace.write_text("executed")
        return np.float32(0)

    steps = {
        "WriteFile": lambda: tf.io.write_file(str(trace), "executed"),
        "ReadFile": lambda: tf.io.read_file("/etc/hostname"),
        "EagerPyFunc": lambda: tf.py_function(touch, [], tf.float32),
        "PyFunc": lambda: tf.numpy_function(touch, [], tf.float32),
        "PrintV2": lambda: tf.print("executed", output_stream=f"file://{trace}"),
        "MatchingFiles": lambda: tf.io.matching_files("/etc/*"),
        "ImmutableConst": lambda: tf.raw_ops.ImmutableConst(
            dtype=tf.float32, shape=[4], memory_region_name="/etc/hostname"
        ),
        "DatasetFromGraph": lambda: tf.raw_ops.DatasetFromGraph(graph_def=tf.constant(b"")),
    }
    _save_hostile(tmp_path / "saved", steps[kind])
    refused(tmp_path / "saved", f"may read or write files, so it is not run: .*{kind}")
    assert not trace.exists()


def test_a_saved_model_that_reaches_outside_runs_when_the_caller_says_so(tmp_path):
    import tensorflow as tf

    _save_hostile(tmp_path / "saved", lambda: tf.io.matching_files("/etc/*"))
    source = open_source(tmp_path / "saved", unsafe=True)
    assert source.predict(np.ones((1, 32, 32, 3))).tolist() == [[1, 1, 1]]


def test_the_message_on_operations_is_short_whatever_they_are_called():
    from tensorflow.core.protobuf import saved_model_pb2

    from converters.sources.saved_model_guard import refuse_unsafe

    model = saved_model_pb2.SavedModel()
    graph = model.meta_graphs.add().graph_def
    for number in range(30):
        graph.node.add(name=f"n{number}", op=f"{number:02}" + 5000 * "x")
    with pytest.raises(InputError, match=r"00x{78}, .*07x{78} and others"):
        refuse_unsafe("m", model)


def test_unsafe_code_under_the_name_of_the_saver_is_not_run(tmp_path):
    """The functions that save and restore may touch files, but only while the model itself does not call them."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    trace = tmp_path / "trace"
    _save_hostile(tmp_path / "saved", lambda: tf.io.write_file(str(trace), "executed"))
    file = tmp_path / "saved" / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    text = str(proto)
    names = {f.signature.name for meta in proto.meta_graphs for f in meta.graph_def.library.function}
    for name in sorted(names, key=len, reverse=True):
        if not name.startswith("__inference__traced"):
            text = text.replace(f'"{name}"', f'"__inference__traced_save_{name}"')
    from google.protobuf import text_format

    file.write_bytes(text_format.Parse(text, saved_model_pb2.SavedModel()).SerializeToString())
    refused(tmp_path / "saved", "WriteFile")
    assert not trace.exists()


def test_damaged_saved_models_are_rejected(small_model, tmp_path):
    (tmp_path / "saved").mkdir()
    refused(tmp_path / "saved", "must hold saved_model.pb")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    refused(tmp_path / "saved", "saved by TensorFlow 2")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(np.random.default_rng(0).bytes(3000))
    refused(tmp_path / "saved", "not a SavedModel, or is corrupt")
    small_model.export(tmp_path / "cut", verbose=False)
    for file in (tmp_path / "cut" / "variables").iterdir():
        file.unlink()
    refused(tmp_path / "cut", "cannot be loaded as a SavedModel")
