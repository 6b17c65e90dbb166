"""`check` on files of other converters: metadata, custom operators and free sizes."""

from __future__ import annotations

import numpy as np
import pytest

from converters.devices import targets
from converters.tflite import metadata
from converters.tflite.graph import Graph

SIZE = 16


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models as TensorFlow's converter writes them: a free batch, free sizes, and an operator of TensorFlow."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)

    class Network(tf.Module):
        def __init__(self, shape, flex=False):
            super().__init__()
            self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype("f4"))
            self.flex = flex
            self.call = tf.function(self._call, input_signature=[tf.TensorSpec(shape, tf.float32, "image")])

        def _call(self, image):
            x = tf.nn.relu(tf.nn.conv2d(image, self.kernel, 1, "SAME"))
            x = tf.reduce_mean(x, [1, 2])
            return tf.linalg.det(tf.reshape(x, [1, 2, 2])) if self.flex else x

    def convert(shape, flex=False) -> bytes:
        network = Network(shape, flex)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([network.call.get_concrete_function()], network)
        if flex:
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        return converter.convert()

    return {
        "fixed": convert((1, SIZE, SIZE, 3)),
        "batch": convert((None, SIZE, SIZE, 3)),
        "sizes": convert((None, None, None, 3)),
        "flex": convert((1, SIZE, SIZE, 3), flex=True),
    }


def with_metadata(content: bytes, mean, std, labels) -> bytes:
    record = {
        "name": "net",
        "scheme": "float32",
        "input": {"mean": mean, "std": std, "description": "", "range": [-1.0, 1.0], "shape": [1, SIZE, SIZE, 3]},
        "output": {"values": "logits", "shape": [1, 4]},
    }
    return metadata.embed(Graph(content), record, labels)


@pytest.mark.parametrize(
    ("mean", "std", "labels", "found"),
    [
        ([127.5], [127.5], "abcd", None),
        ([127.5] * 3, [127.5] * 3, None, None),
        ([120.0, 125.0, 130.0], [127.5] * 3, None, "no normalization by channel. Found: mean 120, 125, 130"),
        ([127.5] * 3, [58.0, 57.0, 56.0], None, "std 58, 57, 56"),
        ([127.5], [127.5], "ab", "a line for each of the 4 outputs. Found: 2"),
    ],
)
def test_metadata_that_mediapipe_refuses_is_found(exported, mean, std, labels, found):
    """The outcomes are those of MediaPipe 1.2.2 itself."""
    content = with_metadata(exported["fixed"], mean, std, labels)
    errors = [diagnostic for diagnostic in targets.check(content, "mediapipe") if diagnostic.level == "error"]
    assert [found in error.what and bool(error.remedy) for error in errors] == ([] if found is None else [True])


def test_mediapipe_needs_a_normalization_for_float_input(exported):
    (diagnostic,) = targets.check(exported["fixed"], "mediapipe")
    assert "NormalizationOptions" in diagnostic.what
    assert not targets.check(exported["fixed"], "cpu")


def test_operators_of_tensorflow_are_named_with_their_layers(exported):
    for target in ("cpu", "edgetpu", "micro"):
        found = [d for d in targets.check(exported["flex"], target) if "Flex" in d.what]
        assert len(found) == 1, target
        assert found[0].level == "error"
        assert "TensorFlow's operator MatrixDeterminant" in found[0].what
        assert found[0].layers
        assert "SELECT_TF_OPS" in found[0].remedy


def test_free_sizes_are_found(exported):
    def free(name, target):
        return [(d.level, d.what) for d in targets.check(exported[name], target) if "Found: (free" in d.what]

    assert free("fixed", "edgetpu") == free("batch", "cpu") == free("fixed", "cpu") == []
    ((level, what),) = free("batch", "edgetpu")
    assert level == "warning"
    assert "the batch must be fixed for edgetpu" in what
    ((level, what),) = free("sizes", "cpu")
    assert level == "warning"
    assert "(free, free, free, 3), which runs as (1, 1, 1, 3)" in what
    assert [level for level, _ in free("sizes", "micro")] == ["error"]
