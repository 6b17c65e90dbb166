"""Models that were trained with fake quantization: int8 by the learned ranges, as the training simulated it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import fake_quantized, normalized_images
from source_refusal import refused

from converters import to_onnx, to_tflite
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained() -> Any:
    return fake_quantized()


def saved(model: Any, path: Path) -> Any:
    """The model itself, or the place where it is saved in one kind of file."""
    import tensorflow as tf

    if path.suffix == ".tflite":
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    elif path.name != "model":
        model.save(path, save_format="h5" if path.suffix == ".h5" else "tf")
    return model if path.name == "model" else path


@pytest.mark.parametrize("kind", ["aware.h5", "model", "saved", "aware.tflite"])
def test_the_int8_file_computes_what_the_training_simulated(kind, trained, tmp_path):
    images = normalized_images()
    int8 = to_tflite(saved(trained, tmp_path / kind), "int8", calibration=images)
    simulated = np.asarray(trained(images, training=False))
    outputs = predict(int8.content, images)
    step = Graph(int8.content).parameters(Graph(int8.content).outputs[0])[0][0]
    difference = np.abs(outputs - simulated)  # a value halfway between two integers can go either way in each layer
    assert difference.max() <= 2.01 * step
    assert difference.mean() <= 0.5 * step
    assert int8.parity.sqnr_db > 35
    integer, total = count_operators(Graph(int8.content))
    assert integer == total


def test_each_scale_is_the_learned_one(trained):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(trained)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    theirs, ours = (
        Graph(converter.convert()),
        Graph(to_tflite(trained, "int8", calibration=normalized_images()).content),
    )

    def scales(graph: Graph) -> list[float]:
        kinds = ("CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED")
        found = [o.outputs[0] for o in graph.operators() if o.name in kinds]
        return [float(graph.parameters(tensor)[0][0]) for tensor in found]

    np.testing.assert_allclose(scales(ours), scales(theirs), rtol=1e-5)


def test_float_files_leave_the_rounding_out(trained):
    images = normalized_images()
    tflite, onnx = to_tflite(trained, "float32", calibration=images), to_onnx(trained, calibration=images)
    assert min(tflite.parity.top1_agreement, onnx.parity.top1_agreement) > 0.8
    names = {operator.name for operator in Graph(tflite.content).operators()}
    assert not names & {"QUANTIZE", "DEQUANTIZE"}


def test_a_keras_archive_which_tf_keras_cannot_open_is_named(trained, tmp_path):
    trained.save(tmp_path / "aware.keras")
    refused(tmp_path / "aware.keras", r"must be an \.h5 file or a SavedModel.*save it with model\.save\('x\.h5'\)")
