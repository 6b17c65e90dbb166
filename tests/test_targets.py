"""Targets' rules: the diagnostics of each scheme's file, and of faults inserted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError, Int8, to_tflite
from converters.devices import targets
from converters.tflite.graph import Graph


@pytest.fixture(scope="module")
def contents(small_model, pixels):
    schemes = ("float32", "float16", "dynamic_int8", "int16x8", Int8(correction="none"))
    made = {getattr(s, "name", s): to_tflite(small_model, s, calibration=pixels).content for s in schemes}
    made["uint8"] = to_tflite(small_model, Int8(correction="none", io="uint8"), calibration=pixels).content
    return made


@pytest.mark.parametrize(
    ("scheme", "target", "errors", "warnings"),
    [
        ("int8", "cpu", "", ""),
        ("int8", "edgetpu", "", ""),
        ("int8", "nnapi", "", ""),
        ("int8", "ethos_u", "", ""),
        ("int8", "micro", "", ""),
        ("int8", "tflite-1.15", "", ""),
        ("uint8", "mediapipe", "", ""),
        ("float32", "gpu", "", ""),
        ("float16", "gpu", "", ""),
        ("float32", "cpu", "", ""),
        ("int8", "mediapipe", "input must be uint8 or float32. Found: int8", ""),
        ("int8", "tflite-1.12", "CONV_2D version 3, which is in 1.14", ""),
        ("int8", "gpu", "input must be float32", "activations must be float32"),
        ("float32", "edgetpu", "input must be uint8 or int8", "activations must be int8"),
        ("float16", "micro", "weights must not be float16", ""),
        ("dynamic_int8", "micro", "int8 weights must be combined with int8 activations", ""),
        ("dynamic_int8", "cpu", "", "rarely run faster"),
        ("dynamic_int8", "tflite-2.3", "version", ""),
        ("int16x8", "cpu", "", "reference kernels"),
        ("int16x8", "ethos_u", "", ""),
        ("int16x8", "tflite-2.2", "CONV_2D version 4, which is in 2.3", "reference kernels"),
        ("int16x8", "nnapi", "", "activations must be int8"),
        ("int8", "artpec8", "", "one scale a layer: others run much slower"),
        ("float32", "k210", "", ""),
        ("int8", "k210", "input must be float32", "activations must be float32"),
        ("float16", "k210", "weights must not be float16", ""),
    ],
)
def test_each_target_reports_the_rules_that_a_scheme_breaks(contents, scheme, target, errors, warnings):
    diagnostics = targets.check(contents[scheme], target)
    for level, expected in (("error", errors), ("warning", warnings)):
        messages = [diagnostic.what for diagnostic in diagnostics if diagnostic.level == level]
        assert bool(messages) == bool(expected), messages
        if expected:
            assert any(expected in message for message in messages), messages
    assert all(diagnostic.remedy for diagnostic in diagnostics)
    assert [d.level for d in diagnostics] == sorted(d.level for d in diagnostics)


@pytest.mark.slow
def test_dense_layers_by_channel_are_found_with_their_names(small_model, pixels, tmp_path):
    import tensorflow as tf

    small_model.export(tmp_path, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in pixels[:8])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content = converter.convert()
    for target in ("nnapi", "edgetpu", "tflite-2.9"):
        (diagnostic,) = [f for f in targets.check(content, target) if "one scale of their weights" in f.what]
        assert diagnostic.level == "error"
        assert len(diagnostic.layers) == 1
    assert not [f for f in targets.check(content, "tflite-2.10") if "one scale" in f.what]


def test_a_version_below_the_needed_one_is_found(contents):
    graph = Graph(contents["int8"])
    for operator in list(graph.operators()):
        if operator.name == "CONV_2D":
            graph.set_version(operator, 1)
    (diagnostic,) = targets.check(graph.to_bytes(), "cpu")
    assert "CONV_2D must declare version 3" in diagnostic.what


def test_operators_that_a_target_lacks_are_named(small_network, pixels):
    def hard(layers, x):
        return layers.Activation("hard_swish")(layers.Rescaling(1 / 127.5, -1)(x))

    content = to_tflite(small_network(hard), Int8(correction="none"), calibration=pixels).content
    diagnostics = targets.check(content, "edgetpu")
    assert any("HARD_SWISH" in diagnostic.what and "ReLU6" in diagnostic.remedy for diagnostic in diagnostics)
    assert not targets.check(content, "ethos_u")


def test_a_conversion_for_a_target_has_its_ends_or_fails(small_model, pixels):
    made = to_tflite(small_model, "int8", calibration=pixels, target="mediapipe")
    assert made.metadata["input"]["dtype"] == "uint8"
    assert made.metadata["target"] == "mediapipe"
    assert to_tflite(small_model, "int8", calibration=pixels, target="micro").metadata["input"]["dtype"] == "int8"
    with pytest.raises(InputError, match=r"for edgetpu, the input must be uint8 or int8. Found: float32. Remedy"):
        to_tflite(small_model, "float32", target="edgetpu")


@pytest.mark.parametrize("name", ["edgetp", "", "tflite-3.1", None, "tflite-2.x"])
def test_an_unknown_target_is_rejected_with_the_known_ones(contents, name):
    with pytest.raises(InputError, match=r"unknown target.*nnapi"):
        targets.check(contents["int8"], name)


def test_mediapipe_refuses_a_grey_input_and_microcontrollers_take_it():
    import keras

    image = keras.Input((16, 24, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    content = to_tflite(keras.Model(image, keras.layers.Dense(2)(x)), "float32").content
    (diagnostic,) = targets.check(content, "mediapipe")
    assert diagnostic.level == "error"
    assert "must be RGB, (1, height, width, 3). Found: (1, 16, 24, 1)" in diagnostic.what
    assert not [found for found in targets.check(content, "micro") if "RGB" in found.what]
