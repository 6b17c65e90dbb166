"""Models that were trained with fake quantization: int8 by the learned ranges, as the training simulated it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model_files import fake_quantized, normalized_images
from source_refusal import refused

from converters import to_onnx, to_tflite
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict


@pytest.fixture(scope="module")
def trained() -> Any:
    return fake_quantized()


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> dict[str, Any]:
    """The trained model as it is, and in each kind of file."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("aware")
    trained.save(folder / "aware.h5", save_format="h5")
    trained.save(folder / "saved", save_format="tf")
    (folder / "aware.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(trained).convert())
    return {"model": trained, **{name: folder / name for name in ("aware.h5", "saved", "aware.tflite")}}


@pytest.mark.parametrize("kind", ["model", "aware.h5", "saved", "aware.tflite"])
def test_the_int8_file_computes_what_the_training_simulated(kind, trained, files):
    images = normalized_images()
    int8 = to_tflite(files[kind], "int8", calibration=images)
    simulated = np.asarray(trained(images, training=False))
    outputs = predict(int8.content, images)
    step = Graph(int8.content).parameters(Graph(int8.content).outputs[0])[0][0]
    assert np.abs(outputs - simulated).max() <= 1.01 * step
    assert int8.parity.sqnr_db > 35
    integer, total = count_operators(Graph(int8.content))
    assert integer == total


@pytest.mark.slow
def test_each_scale_is_the_learned_one(trained, files):
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


def test_float_files_leave_the_rounding_out(trained, files):
    images = normalized_images()
    for conversion in (to_tflite(trained, "float32", calibration=images), to_onnx(trained, calibration=images)):
        assert conversion.parity.top1_agreement > 0.8
    names = {operator.name for operator in Graph(to_tflite(trained, "float32", calibration=images).content).operators()}
    assert not names & {"QUANTIZE", "DEQUANTIZE"}


def test_a_keras_archive_which_tf_keras_cannot_open_is_named(trained, tmp_path):
    trained.save(tmp_path / "aware.keras")
    refused(tmp_path / "aware.keras", r"must be an \.h5 file or a SavedModel.*save it with model\.save\('x\.h5'\)")
