"""int8 of many kinds of layer and activation beside TensorFlow's own converter: integer operators and SQNR."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operator_kinds import images, kinds, network

from converters import CheckFailed, InputError, Int8, Mixed, to_tflite
from converters.devices.targets import check as check_target
from converters.parity import sqnr_db
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import interpreter, predict

# By the library or a kernel of its own, and rewritten; the slow test has all others, tables too.
QUICK = ("elu", "group_normalization", "mish")
MARGIN_DB = 1.0
STORED_MARGIN_DB = 2.0  # to a figure of another processor, whose float sums are rounded otherwise
# The SQNR of TensorFlow's int8 by kind, in dB, as TensorFlow 2.21 converted them on x86-64. To measure again:
# PYTHONPATH=.:tests python -c "import test_operators; test_operators.measure_tensorflows()"
GOLDEN = Path(__file__).parent / "golden" / "tensorflow_int8_sqnr.json"
TENSORFLOWS_DB: dict[str, float] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}


@pytest.mark.parametrize("kind", QUICK)
def test_layers_are_as_integer_and_as_near_as_tensorflows(kind):
    assert check(kind) == pytest.approx(TENSORFLOWS_DB[kind], abs=STORED_MARGIN_DB)


@pytest.mark.slow
def test_all_kinds_are_as_integer_and_as_near_as_tensorflows():
    others = sorted(set(kinds()) - set(QUICK))
    assert set(TENSORFLOWS_DB) == set(kinds())
    for kind in others:
        check(kind, TENSORFLOWS_DB[kind])


def check(kind: str, tensorflows_db: float | None = None) -> float:
    """Assert that int8 is integer throughout, and that TensorFlow's int8 is not nearer to the float model.

    Args:
        kind: of `kinds()`.
        tensorflows_db: the SQNR of TensorFlow's int8; None converts with TensorFlow.

    Returns:
        The SQNR of TensorFlow's int8, in dB.
    """
    model, photos = network(kind), images()
    conversion = to_tflite(model, "int8", calibration=photos)
    integer, total = conversion.metadata["operators"].values()
    assert integer == total, (kind, count_operators(Graph(conversion.content)))
    margin_db = STORED_MARGIN_DB
    if tensorflows_db is None:
        tensorflows_db, margin_db = tensorflows(model, photos), MARGIN_DB
    assert conversion.parity.sqnr_db >= tensorflows_db - margin_db, (kind, conversion.parity.sqnr_db, tensorflows_db)
    return tensorflows_db


def tensorflows(model: Any, photos: np.ndarray) -> float:
    """The SQNR of TensorFlow's int8 file to the model, in dB."""
    expected = np.asarray(model(photos, training=False))
    return sqnr_db(expected, outputs(of_tensorflow(model, photos), photos))


def measure_tensorflows() -> None:
    """Write `GOLDEN`, in minutes."""
    measured = {kind: round(tensorflows(network(kind), images()), 2) for kind in sorted(kinds())}
    GOLDEN.write_text(json.dumps(measured, indent=1) + "\n")


def of_tensorflow(model: Any, photos: np.ndarray) -> bytes:
    """The int8 file of TensorFlow's converter, with int8 input and output."""
    import tempfile

    import tensorflow as tf

    spec = tf.TensorSpec((1, *photos.shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec]).get_concrete_function()
    module = tf.Module()
    module.variables_of_call = list(function.graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=function)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([photo[None]] for photo in photos)
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def outputs(content: bytes, photos: np.ndarray) -> np.ndarray:
    """The dequantized outputs of an int8 file for photos that are quantized by its input tensor's parameters."""
    at = interpreter(content)
    given, made = at.get_input_details()[0], at.get_output_details()[0]
    (scale, zero), (out_scale, out_zero) = given["quantization"], made["quantization"]
    rows = []
    for photo in photos:
        at.set_tensor(given["index"], np.clip(np.rint(photo[None] / scale) + zero, -128, 127).astype(np.int8))
        at.invoke()
        rows.append((at.get_tensor(made["index"]).astype(np.float32) - out_zero) * out_scale)
    return np.concatenate(rows)


def test_operators_that_stay_float_are_named_with_their_layers_and_the_reason(caplog):
    import keras
    from keras import layers, ops

    image = keras.Input((32, 32, 3))

    class Running(layers.Layer):
        def call(self, x):
            return ops.cumsum(x, axis=1)

    x = layers.Conv2D(4, 3, 2)(layers.Rescaling(1 / 127.5, -1)(image))
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(Running(name="running_sum")(x))))
    reason = r"has no int8 form of CUMSUM \(running_sum\)"
    conversion = to_tflite(model, "int8", calibration=images())
    assert re.search(reason, caplog.text)
    with pytest.raises(CheckFailed, match=rf"must be integer.*{reason}"):
        to_tflite(model, Int8(min_integer_share=1.0), calibration=images())
    (diagnostic,) = [d for d in check_target(conversion.content, "edgetpu") if "activations" in d.what]
    assert "CUMSUM has no int8 form" in diagnostic.remedy


@pytest.mark.slow
def test_a_divisor_that_rounds_to_zero_does_not_stop_the_file():
    import keras
    from keras import layers, ops

    class Standardized(layers.Layer):
        def call(self, x):
            return x / (ops.std(x, axis=(1, 2), keepdims=True) + 1e-4)

    image = keras.Input((32, 32, 3))
    x = Standardized()(layers.Conv2D(4, 3, 2)(layers.Rescaling(1 / 127.5, -1)(image)))
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    conversion = to_tflite(model, "int8", calibration=images())
    assert "DIV" in {operator.name for operator in Graph(conversion.content).operators()}
    plain = np.full((1, 32, 32, 3), 200, np.float32)
    assert np.isfinite(predict(conversion.content, plain, pixel_offset=-128)).all()


def test_a_loop_is_refused_with_what_to_do():
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    model = keras.Model(image, layers.LSTM(4)(layers.Reshape((32, 96))(image)))
    with pytest.raises(InputError, match="unroll=True"):
        to_tflite(model, "float32")


@pytest.mark.slow
def test_mixed_widens_layers_beside_truth_values_and_tables():
    model = network("mask")
    conversion = to_tflite(model, Mixed(sqnr_db=70.0), calibration=images(24))
    integer, total = conversion.metadata["operators"].values()
    assert integer < total
    assert conversion.parity.sqnr_db > 30
