from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from converters.decisions import OutputMeaning
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.data import Samples
from edge_cv.evaluation import chunk_results, evaluate, inference, open_model, worker
from edge_cv.evaluation.predictions import Predictions
from edge_cv.parallel.processes import process_pool

SIZE, CLASSES = 32, 10
PREPROCESSING = Preprocessing(image_size=SIZE)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """A small model as float32 and int8 TFLite from TensorFlow's converter, and a linear model as ONNX."""
    import keras
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    outputs = keras.layers.Dense(CLASSES)(keras.layers.Flatten()(x))
    network = keras.Model(inputs, outputs)
    network.export(folder / "saved", verbose=False)
    rng = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    files = {"float32": folder / "float32.tflite", "int8": folder / "int8.tflite", "onnx": folder / "linear.onnx"}
    files["float32"].write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.float32)] for _ in range(20)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    files["int8"].write_bytes(converter.convert())
    files["onnx"].write_bytes(_linear_onnx(rng.normal(size=(3, CLASSES)).astype(np.float32)))
    return files


def _linear_onnx(weights: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, SIZE, SIZE, 3))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, CLASSES))],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Samples:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    photos, labels = [], []
    for i in range(45):
        # smooth images of different sizes and colours, so that their classes differ
        small = np.clip(rng.normal(rng.uniform(0, 255, 3), 40, (4, 5, 3)), 0, 255).astype(np.uint8)
        file = folder / f"{i:02}.png"
        Image.fromarray(small).resize((40 + i, 60), Image.Resampling.BICUBIC).save(file)
        photos.append(file)
        labels.append(int(rng.integers(CLASSES)))
    return Samples.from_files("squares", photos, labels, tuple(f"class {i}" for i in range(CLASSES)))


def _plain_logits(file: Path, source: Samples) -> np.ndarray:
    """The oracle: one process with one interpreter classifies the images one by one."""
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for path in source.paths():
        values = PREPROCESSING.crop_and_resize(np.asarray(Image.open(path).convert("RGB"))).astype(np.float32)
        if given["dtype"] == np.int8:
            scale, zero_point = given["quantization"]
            values = np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], values[None])
        interpreter.invoke()
        row = interpreter.get_tensor(answered["index"])[0].astype(np.float32)
        if answered["dtype"] == np.int8:
            scale, zero_point = answered["quantization"]
            row = (row - zero_point) * np.float32(scale)
        rows.append(row)
    return np.stack(rows)


@pytest.fixture(scope="module")
def evaluated(models, source):
    """The evaluation of float32 and int8 by two workers, and the calls of on_progress."""
    progress = []
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    result = evaluate(
        artifacts, source, PREPROCESSING, reference="float32", workers=2, on_progress=lambda *n: progress.append(n)
    )
    return result, progress


def test_scores_equal_a_plain_loop_over_the_interpreter(models, source, evaluated):
    result, progress = evaluated
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    labels = source.labels
    expected = {name: _plain_logits(file, source) for name, file in artifacts.items()}
    for name, logits in expected.items():
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        score = result.scores[name]
        assert score.images == len(source)
        assert score.top1 == np.mean(order[:, 0] == labels)
        assert score.top5 == np.mean((order == labels[:, None]).any(axis=1))
        assert score.agreement == np.mean(order[:, 0] == expected["float32"].argmax(axis=1))
        assert score.top1_ci95[0] <= score.top1 <= score.top1_ci95[1]
        assert score.seconds_per_image > 0
        for prediction, row in zip(result.predictions, logits, strict=True):
            chances = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            best = prediction.top5[name]
            assert [index for index, _ in best] == np.argsort(-row, kind="stable")[:5].tolist()
            assert [chance for _, chance in best] == pytest.approx(np.sort(chances)[::-1][:5], rel=1e-4, abs=1e-12)
    reference = expected["float32"].astype(np.float64)
    noise = np.sum((reference - expected["int8"]) ** 2)
    assert result.scores["int8"].sqnr_db == pytest.approx(10 * math.log10(np.sum(reference**2) / noise), rel=1e-12)
    assert result.scores["int8"].sqnr_db > 15
    assert result.scores["float32"].sqnr_db is None
    assert result.scores["float32"].agreement == 1.0
    assert [prediction.file for prediction in result.predictions] == list(source.paths())
    assert progress[-1] == (45, 45)
    assert progress == sorted(progress)


def test_results_do_not_depend_on_the_number_of_workers_or_the_chunks(models, source, evaluated, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK", 3)
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    result = evaluate(artifacts, source, PREPROCESSING, reference="float32", workers=1)
    assert result == evaluated[0]


def test_onnx_artifacts_are_classified_by_onnxruntime(models, source):
    import onnx
    from PIL import Image

    result = evaluate({"onnx": models["onnx"]}, source, PREPROCESSING, limit=7)
    weights = onnx.numpy_helper.to_array(onnx.load(models["onnx"]).graph.initializer[0])
    for prediction in result.predictions:
        photo = PREPROCESSING.crop_and_resize(np.asarray(Image.open(prediction.file)))
        logits = photo.astype(np.float64).mean(axis=(0, 1)) @ weights
        assert [index for index, _ in prediction.top5["onnx"]] == np.argsort(-logits)[:5].tolist()
    assert result.images == 7
    assert result.scores["onnx"].agreement is None
    assert result.scores["onnx"].sqnr_db is None
    assert result.runtimes["onnx"].startswith("onnxruntime ")


def test_preprocessing_and_range_are_read_from_metadata(models, source, tmp_path):
    import json

    def with_sidecar(preprocessing: Preprocessing, name: str) -> Path:
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(models["onnx"].read_bytes())
        record = {"file": file.name, "preprocessing": preprocessing.to_dict(), "input": {"pixel_offset": None}}
        file.with_suffix(".json").write_text(json.dumps(record))
        return file

    plain = with_sidecar(PREPROCESSING, "plain")
    halved = with_sidecar(Preprocessing(image_size=SIZE, std=(2, 2, 2)), "halved")
    other_crop = with_sidecar(Preprocessing(image_size=SIZE, rule="stretch"), "other")
    result = evaluate({"plain": plain, "halved": halved}, source, reference="plain", workers=1)
    # a linear model on halved pixels gives halved logits: the error is half the signal, 20 log10(2) dB
    assert result.scores["halved"].sqnr_db == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert result.scores["halved"].agreement == 1.0
    with pytest.raises(InputError, match="must have the same crop and size"):
        evaluate({"plain": plain, "other": other_crop}, source)


def test_broken_photos_are_skipped_and_named(models, source, evaluated, tmp_path):
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no photo")
    empty.write_bytes(b"")
    files, labels = list(source.paths()), source.labels.tolist()
    files, labels = [broken, *files[:20], empty, *files[20:]], [1, *labels[:20], 2, *labels[20:]]
    mixed = Samples.from_files("mixed", files, labels, source.classes)
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    result = evaluate(artifacts, mixed, PREPROCESSING, reference="float32", workers=2)
    clean, _ = evaluated
    assert [file for file, _ in result.skipped] == [str(broken), str(empty)]
    assert result.scores == clean.scores
    assert result.predictions == clean.predictions
    with pytest.raises(InputError, match=r"no photo can be read.*broken\.jpg"):
        evaluate(artifacts, Samples.from_files("bad", [broken, empty], [1, 1], source.classes), PREPROCESSING)


def test_without_labels_there_is_agreement_but_no_accuracy(models, source):
    unlabelled = Samples.from_files("unlabelled", source.paths())
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    result = evaluate(artifacts, unlabelled, PREPROCESSING, reference="float32", limit=5)
    score = result.scores["int8"]
    assert (score.top1, score.top5, score.top1_ci95) == (None, None, None)
    assert score.agreement is not None
    assert score.agreement_ci95 is not None


def test_saved_predictions_load_unchanged(evaluated, tmp_path):
    result, _ = evaluated
    result.predictions.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert loaded == result.predictions
    assert loaded.files == result.predictions.files
    assert loaded.outputs is None
    answers, probabilities = loaded.top1("float32")
    assert answers.tolist() == [p.top5["float32"][0][0] for p in result.predictions]
    assert probabilities.tolist() == [p.top5["float32"][0][1] for p in result.predictions]


def test_multi_label_images_keep_all_outputs_and_have_no_top1(models, source, tmp_path):
    rng = np.random.default_rng(0)
    truth = np.zeros((len(source), CLASSES), bool)
    for row in truth:
        row[rng.choice(CLASSES, rng.integers(0, 4), replace=False)] = True
    several = Samples.from_files("several", source.paths(), truth, source.classes)
    artifacts = {"float32": models["float32"], "int8": models["int8"]}
    result = evaluate(artifacts, several, PREPROCESSING, reference="float32", workers=2)
    assert result.scores["int8"].top1 is None
    assert result.scores["int8"].agreement is not None
    predictions = result.predictions
    for column, file in enumerate(artifacts.values()):
        np.testing.assert_allclose(predictions.outputs[:, column], _plain_logits(file, source), rtol=1e-5, atol=1e-5)
    assert [p.labels for p in predictions] == [tuple(np.flatnonzero(row)) for row in truth]
    np.testing.assert_array_equal(predictions.truth, truth)
    sigmoid = 1 / (1 + np.exp(-predictions.outputs[0, 0].astype(np.float64)))
    assert predictions[0].top5["float32"][0][1] == pytest.approx(sigmoid.max(), rel=1e-5)
    predictions.save(tmp_path / "p.npz")
    np.testing.assert_array_equal(Predictions.load(tmp_path / "p.npz").outputs, predictions.outputs)
    wide = np.zeros((1, CLASSES + 2), bool)
    wide[0, CLASSES + 1] = True
    outside = Samples.from_files("outside", [source.path(0)], wide, ("a",) * (CLASSES + 2))
    with pytest.raises(InputError, match=rf"labels must be in 0\.\..*Received: {CLASSES + 1} for .*00.png"):
        evaluate(artifacts, outside, PREPROCESSING)


def test_invalid_arguments_are_one_line_errors(models, source, tmp_path):
    float32 = {"float32": models["float32"]}
    outside = Samples.from_files("outside", [source.path(0)], [CLASSES], ("a",) * (CLASSES + 1))
    cases = [
        (lambda: evaluate({}, source, PREPROCESSING), "at least one"),
        (lambda: evaluate({"a": tmp_path / "none.tflite"}, source, PREPROCESSING), "no such file"),
        (lambda: evaluate(float32, outside, PREPROCESSING), rf"labels must be in 0\.\.{CLASSES - 1}.*{CLASSES}"),
        (lambda: evaluate(float32, source, PREPROCESSING, reference="float23"), "Did you mean 'float32'"),
        (lambda: evaluate(float32, source, PREPROCESSING, workers=0), "workers must be 1 or more"),
        (lambda: evaluate(float32, source, PREPROCESSING, limit=0), "limit must be 1 or more"),
        (lambda: evaluate(float32, source, Preprocessing(image_size=64)), r"\(1, 64, 64, 3\).*32"),
        (lambda: evaluate(float32, source), "preprocessing must be given"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_corrupt_artifacts_are_input_errors_even_when_they_kill_the_worker(models, source, tmp_path):
    content = models["float32"].read_bytes()
    junk, truncated = tmp_path / "junk.tflite", tmp_path / "truncated.tflite"
    junk.write_bytes(np.random.default_rng(0).bytes(5000))
    truncated.write_bytes(content[: len(content) // 2])
    headed = tmp_path / "headed.tflite"
    headed.write_bytes(content[:8] + np.random.default_rng(1).bytes(5000))
    onnx = tmp_path / "junk.onnx"
    onnx.write_bytes(b"no protobuf")
    for file in (junk, truncated, headed, onnx):
        with pytest.raises(InputError, match=file.name) as caught:
            evaluate({"good": models["float32"], "bad": file}, source, PREPROCESSING, limit=3, workers=1)
        assert "\n" not in str(caught.value)


def test_a_dying_worker_is_an_error_with_the_files_name(models, source, monkeypatch):
    monkeypatch.setattr(worker, "describe", lambda file: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(InputError, match=r"float32\.tflite killed the process"):
        evaluate({"float32": models["float32"]}, source, PREPROCESSING, workers=1)


def test_workers_import_neither_tensorflow_nor_keras(models, source):
    executor = process_pool(1)
    try:
        task = worker.Task(
            ((str(models["float32"]), open_model.IOMetadata(None, None, OutputMeaning())),), None, PREPROCESSING
        )
        executor.submit(chunk_results.classify_chunk, task, source.chunk(0, 2)).result()
        loaded = executor.submit(_top_level_modules).result()
    finally:
        executor.shutdown(kill_workers=True)
    assert "ai_edge_litert" in loaded
    assert not loaded & {"tensorflow", "keras", "tf_keras", "matplotlib", "tensorflow_model_optimization"}


def _top_level_modules() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


@pytest.mark.slow
def test_interrupting_stops_the_workers_promptly(models, source, tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        "import sys\n"
        "from converters.images.preprocessing import Preprocessing\n"
        "from edge_cv.data import Samples\n"
        "from edge_cv.evaluation import evaluate\n"
        "photos = Samples.from_files('long', [sys.argv[2]] * 300_000, [0] * 300_000, ('a',))  # for minutes\n"
        "report = lambda done, total: print(done, flush=True)\n"
        f"pre = Preprocessing(image_size={SIZE})\n"
        "evaluate({'a': sys.argv[1]}, photos, pre, workers=2, on_progress=report)\n"
    )
    command = [sys.executable, str(script), str(models["float32"]), str(source.path(0))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        process.stdout.readline()  # the workers are busy
        workers = _children(process.pid)
        assert len(workers) >= 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        started = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - started < 30
        assert process.returncode not in (0, None)
        assert errors.count("KeyboardInterrupt") <= 2  # the caller's own traceback, none from the workers
        deadline = time.monotonic() + 30
        while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(_alive(pid) for pid in workers)
    finally:
        process.kill()
        process.wait()


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_that_ends_in_softmax_gives_its_own_probabilities(small_model, small_files, pixels, tmp_path):
    import keras
    from PIL import Image

    from converters import Int8, to_tflite
    from converters.tflite.runtime import predict
    from edge_cv.data import open_samples

    for number in range(4):
        Image.fromarray(pixels[number]).save(tmp_path / f"{number}.png")
    softmax = keras.Model(small_model.input, keras.layers.Softmax()(small_model.output))
    files = {"logits": small_files["float32"]}
    for name, scheme in (("own", "float32"), ("int8", Int8(correction="none"))):
        conversion = to_tflite(softmax, scheme, calibration=pixels, preprocessing=PREPROCESSING)
        files[name] = conversion.save(tmp_path / f"{name}.tflite")
    wanted = predict(files["own"].read_bytes(), pixels[:4])
    for prediction, row in zip(evaluate(files, open_samples(tmp_path)).predictions, wanted, strict=True):
        for name, tolerance in (("logits", 1e-5), ("own", 1e-6), ("int8", 0.05)):
            for index, probability in prediction.top5[name]:
                assert probability == pytest.approx(row[index], abs=tolerance), name
