"""`to_tflite`, `to_onnx`, `verify`: compared with Keras's outputs and TensorFlow's converter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from converters import CheckFailed, InputError, Int8, Preprocessing, to_onnx, to_tflite, verify
from converters.tflite.runtime import predict

NAMES = [f"class {i}" for i in range(10)]


def _sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(reference**2.0) / np.sum((reference - other) ** 2.0)))


@pytest.fixture(scope="module")
def logits(small_model, pixels) -> np.ndarray:
    return np.asarray(small_model(pixels.astype(np.float32), training=False))


@pytest.mark.parametrize(
    ("scheme", "min_sqnr_db"), [("float32", 90), ("float16", 45), ("dynamic_int8", 25), ("int8", 20)]
)
def test_each_scheme_predicts_as_keras_does(small_model, pixels, logits, scheme, min_sqnr_db):
    conversion = to_tflite(small_model, scheme, calibration=pixels, labels=NAMES)
    outputs = predict(conversion.content, pixels, pixel_offset=conversion.pixel_offset)
    assert _sqnr(logits, outputs) > min_sqnr_db
    assert min(100, conversion.parity.sqnr_db) == pytest.approx(min(100, _sqnr(logits, outputs)), abs=0.5)
    assert conversion.parity.top1_agreement == pytest.approx(np.mean(logits.argmax(1) == outputs.argmax(1)), abs=0.05)
    assert conversion.parity.images == len(pixels)
    assert conversion.scheme == scheme
    assert conversion.labels == tuple(NAMES)
    assert conversion.size_bytes == len(conversion.content)


@pytest.mark.slow
def test_int8_is_as_good_as_tensorflows_own_converter_makes_it(small_model, pixels, logits, tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    def representative():
        for image in pixels:
            yield [image[None].astype(np.float32)]

    small_model.export(tmp_path, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    peer = Interpreter(model_content=converter.convert())
    peer.allocate_tensors()
    theirs = []
    for image in pixels:
        peer.set_tensor(peer.get_input_details()[0]["index"], image[None].astype(np.float32))
        peer.invoke()
        theirs.append(peer.get_tensor(peer.get_output_details()[0]["index"])[0])
    ours = to_tflite(small_model, "int8", calibration=pixels)
    outputs = predict(ours.content, pixels, pixel_offset=ours.pixel_offset)
    assert _sqnr(logits, outputs) > _sqnr(logits, np.array(theirs)) - 1.0


def test_the_schemes_of_a_model_share_one_float_conversion(small_model, pixels, monkeypatch):
    from converters import float_model

    to_tflite(small_model, "float32")
    monkeypatch.setattr(float_model, "_with_tensorflow", lambda source: pytest.fail("converted again"))
    for scheme in ("float16", "dynamic_int8", "int8"):
        to_tflite(small_model, scheme, calibration=pixels)


def test_a_model_whose_weights_changed_is_converted_again(small_network, pixels):
    model = small_network()
    x = pixels / np.float32(255)
    before = predict(to_tflite(model, "float32").content, x)
    kernel = model.get_layer("logits").kernel
    kernel.assign(-kernel)
    after = predict(to_tflite(model, "float32").content, x)
    np.testing.assert_allclose(after, np.asarray(model(x, training=False)), atol=1e-4)
    assert np.abs(before - after).max() > 0.1


def test_equal_weights_behind_another_normalization_are_another_model(small_network, pixels):
    first = small_network(lambda layers, x: layers.Rescaling(1 / 255)(x))
    second = small_network(lambda layers, x: layers.Rescaling(1 / 127.5, -1)(x))
    a, b = to_tflite(first, "float32"), to_tflite(second, "float32")
    assert a.metadata["source_sha256"] != b.metadata["source_sha256"]
    assert np.abs(predict(a.content, pixels) - predict(b.content, pixels)).max() > 0.01


def test_a_conversion_without_images_is_checked_on_noise(small_model):
    conversion = to_tflite(small_model, "dynamic_int8")
    assert conversion.parity.images > 0
    assert conversion.parity.sqnr_db > 20


def test_a_result_under_the_limit_fails_its_check_with_its_number(small_model, pixels):
    with pytest.raises(CheckFailed, match=r"at least 90 dB\. Measured: \d+\.\d dB"):
        to_tflite(small_model, Int8(min_sqnr_db=90), calibration=pixels)


def test_a_graph_that_stays_float_fails_the_share_of_integer_operators(small_network, pixels):
    with pytest.raises(CheckFailed, match=r"operators must be integer\. Measured: 6 of 8"):
        to_tflite(
            small_network(lambda layers, x: layers.Rescaling(1 / 255)(x)),
            Int8(io="float32", min_integer_share=1.0),
            calibration=pixels,
        )


@pytest.mark.parametrize("wrong", ["int9", "INT8", "", None, 8])
def test_an_unknown_scheme_is_rejected_with_the_known_ones(small_model, wrong):
    with pytest.raises(InputError, match="float32, float16, dynamic_int8, int8"):
        to_tflite(small_model, wrong)


def test_an_integer_scheme_without_calibration_is_rejected(small_model):
    with pytest.raises(InputError, match="calibration must be given"):
        to_tflite(small_model, "int8")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (NAMES[:9], "10 class names, one for each output. Received: 9"),
        ("cat", "Received: str"),
        (iter(NAMES), "Received: list_iterator"),
        ([*NAMES[:9], "two\nlines"], "one line"),
        ([*NAMES[:9], 9], "one line. Received: 9"),
        ([*NAMES[:9], " "], "one line"),
    ],
)
def test_labels_that_are_not_one_name_for_each_output_are_rejected(small_model, labels, message):
    with pytest.raises(InputError, match=message):
        to_tflite(small_model, "float32", labels=labels)


def test_the_preprocessing_must_be_of_the_models_size(small_model):
    with pytest.raises(InputError, match=r"32x32\. Received: 64"):
        to_tflite(small_model, "float32", preprocessing=Preprocessing(64))


def test_verify_measures_against_the_source_and_against_another_conversion(
    small_model, small_conversion, pixels, logits
):
    conversion = small_conversion
    outputs = predict(conversion.content, pixels, pixel_offset=conversion.pixel_offset)
    parity = verify(small_model, conversion, pixels)
    assert parity.sqnr_db == pytest.approx(_sqnr(logits, outputs), abs=0.01)
    assert parity.max_abs_error == pytest.approx(np.abs(logits - outputs).max(), abs=1e-4)
    assert parity.worst_layers
    assert [e.sqnr_db for e in parity.worst_layers] == sorted(e.sqnr_db for e in parity.worst_layers)
    again = verify(to_tflite(small_model, "float32"), conversion, iter(pixels.astype(np.float32)[:, None]))
    assert again.sqnr_db == pytest.approx(parity.sqnr_db, abs=0.01)
    assert verify(conversion, conversion, pixels).sqnr_db == 150


def test_verify_refuses_a_reference_with_other_classes(small_model, small_network, pixels):
    other = small_network(lambda layers, x: layers.Rescaling(1 / 255)(x), classes=7)
    with pytest.raises(InputError, match=r"10\. Received: 7"):
        verify(other, to_tflite(small_model, "float32"), pixels)


@pytest.mark.parametrize("wrong", [b"bytes", "path.tflite", None])
def test_verify_refuses_what_is_not_a_conversion(small_model, pixels, wrong):
    with pytest.raises(InputError, match="must be a Conversion"):
        verify(small_model, wrong, pixels)


def test_a_third_party_model_keeps_its_range_of_minus_one_to_one(small_network, pixels):
    """Nothing is assumed about pixels; the caller's preprocessing is checked and recorded."""
    model = small_network()
    x = pixels / np.float32(127.5) - 1
    told = Preprocessing(32, mean=127.5, std=127.5)
    for preprocessing in (None, told):
        conversion = to_tflite(model, "int8", calibration=x, preprocessing=preprocessing)
        assert conversion.pixel_offset is None
        assert _sqnr(np.asarray(model(x, training=False)), predict(conversion.content, x)) > 20
    assert conversion.metadata["preprocessing"]["mean"] == (127.5,) * 3
    with pytest.raises(InputError, match=r"-1\.\.1, as the model's preprocessing makes them. Received: 0\.\.255"):
        to_tflite(model, "int8", calibration=pixels, preprocessing=told)


@pytest.mark.slow
def test_threads_can_convert_at_once(small_network, pixels):
    models = [small_network(lambda layers, x, k=k: layers.Rescaling(1 / (255 - k))(x), name=f"m{k}") for k in range(2)]
    results, errors = {}, []

    def work(index: int, scheme: str) -> None:
        try:
            results[index, scheme] = to_tflite(models[index], scheme, calibration=pixels).parity.sqnr_db
        except Exception as error:
            errors.append(error)

    jobs = [threading.Thread(target=work, args=(i, s)) for i in range(2) for s in ("float32", "dynamic_int8", "int8")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert not errors
    assert len(results) == 6
    assert sys.stderr is not None


def interrupted(process: subprocess.Popen) -> str:
    """The errors of a process after Ctrl-C. A library's callback may swallow it, so it is pressed again."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=30)[1]
    raise AssertionError("the process does not end")


@pytest.mark.slow
def test_an_interrupt_in_the_middle_leaves_nothing_behind(small_model, tmp_path):
    (tmp_path / "tmp").mkdir()
    small_model.save(tmp_path / "small.keras")
    script = textwrap.dedent(
        """
        import numpy as np
        from converters import to_onnx, to_tflite
        images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)
        to_tflite("small.keras", "float32", calibration=images).save("out.tflite")
        print("go", flush=True)
        while True:
            to_onnx("small.keras", calibration=images)
            to_tflite("small.keras", "int8", calibration=np.roll(images, 1)).save("out.tflite")
        """
    )
    # TensorFlow imports modules from TMPDIR, whose bytecode Python would leave there.
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "go\n"
    time.sleep(0.7)
    try:
        err = interrupted(process)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in err
    assert not list((tmp_path / "tmp").iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "out.tflite", "small.keras", "tmp"]
    assert json.loads((tmp_path / "out.json").read_text())["file"] == "out.tflite"


@pytest.mark.slow
def test_a_conversion_writes_nothing_to_the_terminal(small_model, tmp_path):
    small_model.save(tmp_path / "small.keras")
    script = textwrap.dedent(
        """
        import numpy as np
        from converters import to_onnx, to_tflite
        images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
        to_tflite("small.keras", "int8", calibration=images)
        to_onnx("small.keras")
        """
    )
    env = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == ""


def test_importing_converters_loads_no_tensorflow():
    script = "import sys, converters; converters.Int8; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_onnx_predicts_as_keras_does(small_model, pixels, logits):
    conversion = to_onnx(small_model, calibration=pixels, labels=NAMES)
    import onnxruntime

    session = onnxruntime.InferenceSession(conversion.content)
    name = session.get_inputs()[0].name
    outputs = np.concatenate([session.run(None, {name: p[None].astype(np.float32)})[0] for p in pixels])
    assert _sqnr(logits, outputs) > 90
    assert conversion.format == "onnx"


@pytest.mark.parametrize("opset", [12, 99, 17.0, "17", None])
def test_an_opset_out_of_range_is_rejected(small_model, opset):
    with pytest.raises(InputError, match=r"opset must be a whole number in 13\.\."):
        to_onnx(small_model, opset=opset)


def test_an_unknown_onnx_scheme_is_rejected(small_model):
    with pytest.raises(InputError, match="unknown ONNX scheme"):
        to_onnx(small_model, "int7")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(small_network, value):
    model = small_network()
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[0, 0] = value
    model.get_layer("logits").set_weights([kernel, bias])
    with pytest.raises(InputError, match=r"weights must be finite\. Received: 'small' with NaN or infinity"):
        to_tflite(model, "float32")


@pytest.mark.parametrize("scheme", ["int8", *(pytest.param(s, marks=pytest.mark.slow) for s in ("int16x8", "mixed"))])
def test_layers_of_constant_outputs_convert(scheme, pixels):
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(layers.Rescaling(1 / 127.5, -1)(image))
    constant = layers.Conv2D(8, 3, kernel_initializer="zeros", bias_initializer="ones", name="constant")(x)
    dead = layers.Conv2D(8, 3, activation="relu", bias_initializer=keras.initializers.Constant(-100), name="dead")(x)
    x = layers.Add()([constant, dead, layers.Conv2D(8, 3, name="alive")(x)])
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    made = to_tflite(model, scheme, calibration=pixels)
    assert made.parity.sqnr_db > 20


@pytest.mark.parametrize("scheme", ["int8", "int16x8", "mixed"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda pixels: pixels / 255, "looks like images scaled to 0..1"),
        (lambda pixels: pixels * 2.0, r"pixels 0..255"),
        (lambda pixels: np.full_like(pixels, 7), "must differ. Received: every value is 7"),
        (lambda pixels: pixels[:0], "at least one image"),
    ],
)
def test_wrong_calibration_images_are_rejected(small_model, pixels, scheme, wrong, message):
    with pytest.raises(InputError, match=message):
        to_tflite(small_model, scheme, calibration=wrong(pixels))


def test_fewer_than_8_images_are_warned_of(small_model, pixels, caplog):
    to_tflite(small_model, "int8", calibration=pixels[:7])
    assert "7 calibration images are few: use at least 8, better 100" in caplog.text
    caplog.clear()
    to_tflite(small_model, "int8", calibration=pixels[:8])
    assert not caplog.text
