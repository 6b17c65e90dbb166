"""Operator versions of our files, compared with those that TensorFlow's converter writes."""

from __future__ import annotations

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.tflite.graph import Graph
from converters.tflite.versions import as_numbers, first_runtime, needed


def _versions(content: bytes) -> dict[str, set[int]]:
    graph = Graph(content)
    found: dict[str, set[int]] = {}
    for operator in graph.operators():
        found.setdefault(operator.name, set()).add(graph.version(operator))
    return found


@pytest.fixture(scope="module")
def theirs(small_model, pixels, tmp_path_factory):
    import tensorflow as tf

    def converted(ops: str | None) -> dict[str, set[int]]:
        folder = str(tmp_path_factory.mktemp("saved"))
        small_model.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if ops is not None:
            converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in pixels[:8])
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, ops)]
        return _versions(converter.convert())

    return {"int8": converted("TFLITE_BUILTINS_INT8"), "dynamic_int8": converted(None)}


@pytest.mark.slow
def test_int8_has_the_versions_that_tensorflow_gives(small_model, pixels, theirs):
    ours = _versions(to_tflite(small_model, Int8(correction="none"), calibration=pixels).content)
    common = set(ours) & set(theirs["int8"]) - {"QUANTIZE", "DEQUANTIZE"}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD"} <= common
    # per-channel dense layers of theirs need more
    assert {k: ours[k] for k in common} == {k: theirs["int8"][k] for k in common}


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic_int8", "int8", "int16x8"])
def test_every_operator_of_every_scheme_has_a_version_that_is_enough_and_known(small_model, pixels, scheme):
    graph = Graph(to_tflite(small_model, scheme, calibration=pixels).content)
    for operator in graph.operators():
        assert graph.version(operator) >= needed(graph, operator)
        assert first_runtime(operator.name, graph.version(operator)) is not None


def test_releases_are_compared_as_numbers():
    assert as_numbers("2.10") > as_numbers("2.9") > as_numbers("1.15")
