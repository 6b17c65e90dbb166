"""Rotation of linear tensors: the outputs stay, the noise is the closed form's, zeros and RELU6 are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.parity import sqnr_db
from converters.quantization.equalization import equalizable, equalized
from converters.quantization.ranges import activation_ranges, observe
from converters.quantization.rotation import _least_noise, rotated, rotated_groups
from converters.quantization.sensitivity import rounded
from converters.quantization.tensorflow_graph import TensorflowGraph
from converters.tflite.channels import read_channels
from converters.tflite.graph import Graph
from converters.tflite.layers import layer_errors
from converters.tflite.runtime import predict


def _residual(kernel: int = 1, padding: str = "same", zeros: float = 0.0):
    """Linear bottlenecks with a sum, between RELU6 layers, as in MobileNetV2; few directions carry the power."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = a = layers.Conv2D(12, 3, strides=2, name="a")(layers.Conv2D(16, 3, activation="relu6", name="first")(x))
    x = layers.Conv2D(24, kernel, padding=padding, activation="relu6", name="wide")(x)
    if kernel == 1 or padding == "same":
        x = layers.Add(name="sum")([a, layers.Conv2D(12, 1, name="b")(x)])
    x = layers.Conv2D(32, 1, activation="relu6", name="last")(x)
    model = keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))
    for layer in model.layers:
        if layer.get_weights():
            values, bias = layer.get_weights()
            values = rng.normal(0, 1 / np.sqrt(np.prod(values.shape[:-1])), values.shape)
            if layer.name in ("a", "b"):
                mix = np.linalg.qr(rng.normal(size=(12, 12)))[0] * np.geomspace(1, 0.02, 12)
                values = values @ (mix @ np.linalg.qr(rng.normal(size=(12, 12)))[0])
            if layer.name == "a":
                values[rng.uniform(size=values.shape) < zeros] = 0
            layer.set_weights([values, rng.normal(0, 0.3, bias.shape)])
    return model


@pytest.mark.parametrize(("kernel", "padding"), [(1, "same"), (3, "same"), (3, "valid")])
def test_outputs_and_operators_stay_the_same(pixels, kernel, padding):
    content, images = to_tflite(_residual(kernel, padding), "float32").content, pixels.astype(np.float32)
    changed, names = rotated(TensorflowGraph(content), images[:16])
    assert {"a"} <= names <= {"a", "b", "sum"}
    assert sqnr_db(predict(content, images), predict(changed, images)) > 90
    assert [o.name for o in Graph(content).operators()] == [o.name for o in Graph(changed).operators()]


def test_the_noise_is_that_of_the_closed_form_and_less_than_that_of_gains():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(20, 20)) * np.geomspace(1, 0.05, 20) for _ in range(2))
    derivatives, covariance = a @ a.T, b @ b.T
    forward, backward = _least_noise(derivatives, covariance, rng)
    np.testing.assert_allclose(forward @ backward, np.eye(20), atol=1e-8)
    variances = np.diag(forward @ covariance @ forward.T)
    np.testing.assert_allclose(variances, 1, rtol=1e-2)  # the least eigenvalues are raised
    noise = np.trace(derivatives @ backward @ backward.T) * variances.mean()
    values, vectors = np.linalg.eigh(derivatives)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    least = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum() ** 2 / 20
    assert least <= noise * (1 + 1e-9)
    assert noise < 1.1 * least  # S is damped
    assert noise < 0.7 * (np.diag(derivatives) * np.diag(covariance)).sum()  # gains that make all variances 1


def test_a_constant_tensor_is_not_mixed():
    derivatives = np.eye(3)
    for matrices in ((derivatives, np.zeros((3, 3))), (np.zeros((3, 3)), derivatives)):
        for mix in _least_noise(*matrices, np.random.default_rng(0)):
            np.testing.assert_array_equal(mix, np.eye(3))


def test_layers_with_zeros_and_tensors_behind_an_activation_stay():
    def names(model):
        graph = Graph(to_tflite(model, "float32").content)
        return {graph.name(t) for group in rotated_groups(graph) for t in group.tensors}

    assert names(_residual()) == {"a", "b", "sum"}
    assert names(_residual(zeros=0.5)) == set()


def test_rounding_a_rotated_tensor_changes_the_outputs_less(pixels):
    content, images = to_tflite(_residual(), "float32").content, pixels.astype(np.float32)
    reference, found = predict(content, images), {}
    equal, _ = equalized(content, observe(content, images, equalizable(content))[1])
    for name, of in (("equalized", equal), ("rotated", rotated(TensorflowGraph(content), images)[0])):
        graph, ranges = TensorflowGraph(of), activation_ranges(of, images)
        values = {graph.graph.inputs[0]: images}
        for operator in graph.operators:
            output = graph.graph.name(operator.outputs[0])
            inputs = [values[t] if t in values else graph.graph.constant(t) for t in operator.inputs]
            result = graph.apply(operator, inputs)
            values[operator.outputs[0]] = rounded(result, *ranges[output]) if output in ("a", "b", "sum") else result
        found[name] = sqnr_db(reference, np.asarray(values[graph.graph.outputs[0]]))
    assert found["rotated"] > found["equalized"] + 1


@pytest.mark.parametrize("options", [{"effort": "high"}, {"weights": "per_tensor"}])
def test_a_rotated_file_is_compared_where_its_channels_are_not_mixed(pixels, options):
    model = _residual()
    made = to_tflite(model, Int8(**options), calibration=pixels)
    maps = read_channels(Graph(made.content))
    assert {name for name, map_ in maps.items() if map_ is None} == {"a", "b", "sum"}
    reference = to_tflite(model, "float32").content
    images = pixels.astype(np.float32)
    errors = {e.layer: e for e in layer_errors(reference, made.content, images, pixel_offset=-128)}
    assert {"first", "wide", "last", "logits"} <= set(errors)
    assert errors.keys().isdisjoint({"a", "b", "sum"})
    assert min(e.sqnr_db for e in errors.values()) > 15
    assert errors["wide"].weights_sqnr_db is None
