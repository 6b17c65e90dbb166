from __future__ import annotations

import gzip

import numpy as np
import pytest

from converters import to_tflite
from converters.errors import InputError
from converters.schemes import Int8FromQat
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict
from edge_cv.compression.qat import calibration_images, quantization_aware, simulate
from edge_cv.recipe import FineTuning, Qat


@pytest.fixture(scope="module")
def trained(digits, digits_model):
    return quantization_aware(digits_model, Qat(fine_tuning=FineTuning(epochs=1, learning_rate=1e-3)), digits[0])


@pytest.fixture(scope="module")
def conversion(digits, trained):
    calibration = calibration_images(digits[0], 100)
    return to_tflite(trained.model, Int8FromQat(trained.ranges), calibration=calibration)


@pytest.mark.slow
def test_the_int8_file_predicts_like_the_trained_simulation(digits, trained, conversion):
    _, images, labels = digits
    simulated = trained.predict(images)
    outputs = predict(conversion.content, images, pixel_offset=-128)
    assert np.mean(simulated.argmax(1) == outputs.argmax(1)) >= 0.995
    assert np.mean(outputs.argmax(1) == labels) >= 0.93


@pytest.mark.slow
def test_every_operator_of_the_file_is_integer_and_the_input_is_pixels(conversion):
    integer, total = count_operators(Graph(conversion.content))
    assert integer == total
    assert conversion.metadata["input"]["pixel_offset"] == -128
    assert conversion.metadata["input"]["dtype"] == "int8"


@pytest.mark.slow
def test_each_tensor_of_the_file_has_the_trained_range(trained, conversion):
    graph = Graph(conversion.content)
    scales = {graph.name(t): graph.quantization(t) for operator in graph.operators() for t in operator.outputs}
    assert len(trained.ranges) > 10
    for name, (low, high) in trained.ranges.items():
        assert scales[name][0][0] == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-4), name


@pytest.mark.slow
def test_the_folded_weights_of_the_file_are_the_rounded_weights_of_training(trained, conversion):
    graph = Graph(conversion.content)
    for operator in graph.operators():
        name = graph.name(operator.outputs[0]) if operator.name == "CONV_2D" else ""
        if name in ("stem_conv", "expand_conv", "project_conv", "head_conv"):
            kernel = np.asarray(trained.model.get_layer(name).kernel)
            sign = np.sign(np.asarray(trained.model.get_layer(name.replace("_conv", "_bn")).gamma))
            integers = np.rint(kernel / np.abs(kernel).max((0, 1, 2)) * 127) * sign
            stored = graph.constant(operator.inputs[1]).transpose(1, 2, 3, 0)
            assert np.mean(stored != integers) < 1e-3  # ties


@pytest.mark.slow
def test_statistics_and_ranges_are_constant_when_frozen_from_the_beginning(digits, digits_model):
    _, roundings = simulate(digits_model, calibration_images(digits[0], 100), Qat())
    before = {name: rounding.range() for name, rounding in roundings.items()}
    frozen = quantization_aware(digits_model, Qat(freeze_epoch=0, fine_tuning=FineTuning(epochs=1)), digits[0])
    assert frozen.ranges == before
    for layer in digits_model.layers:
        if layer.name.endswith("_bn"):
            kept = frozen.model.get_layer(layer.name)
            np.testing.assert_array_equal(np.asarray(kept.moving_mean), np.asarray(layer.moving_mean))
    kernels = [np.asarray(m.get_layer("head_conv").kernel) for m in (digits_model, frozen.model)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


@pytest.mark.slow
def test_zeros_of_a_pruned_model_stay_zero_with_few_weight_values(digits, digits_model):
    from edge_cv.compression.keras_graph import clone
    from edge_cv.compression.pruning import sparsity

    sparse = clone(digits_model)
    kernel = np.asarray(sparse.get_layer("head_conv").kernel).copy()
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.75)] = 0
    sparse.get_layer("head_conv").set_weights([kernel])
    trained = quantization_aware(sparse, Qat(weight_values=31, fine_tuning=FineTuning(epochs=1)), digits[0])
    after = np.asarray(trained.model.get_layer("head_conv").kernel)
    assert max(len(np.unique(after[..., channel])) for channel in range(after.shape[-1])) <= 31
    assert sparsity(trained.model)["head_conv"] == pytest.approx(0.75, abs=1e-3)
    assert not after[kernel == 0].any()
    assert np.abs(after - kernel).max() > 1e-5


@pytest.mark.parametrize("zeros", [0.75, 0.0])
def test_few_zeros_of_a_layer_stay_zero_where_the_model_is_pruned(zeros):
    from tiny_training import network

    from edge_cv.compression.qat import rounded_kernels

    model = network()
    for name, share in (("stem_conv", zeros), ("block1_conv", 0.05)):
        kernel = model.get_layer(name).kernel
        size = np.abs(np.asarray(kernel))
        kernel.assign(kernel * (size >= np.quantile(size, share)))
    parts = rounded_kernels(model, 127, None)
    assert parts["block1_conv", "kernel"].pruned == (zeros > 0)
    assert not parts["logits", "kernel"].pruned  # it has no zeros


@pytest.mark.slow
def test_equal_weights_of_a_clustered_model_stay_equal(digits, digits_model):
    from edge_cv.compression.keras_graph import clone

    few = clone(digits_model)
    kernel = np.asarray(few.get_layer("head_conv").kernel)
    step = np.abs(kernel).max() / 4
    few.get_layer("head_conv").set_weights([np.rint(kernel / step) * step])
    before = np.asarray(few.get_layer("head_conv").kernel)
    trained = quantization_aware(few, Qat(fine_tuning=FineTuning(epochs=1, learning_rate=1e-3)), digits[0])
    after = np.asarray(trained.model.get_layer("head_conv").kernel)
    assert len(np.unique(after)) <= len(np.unique(before)) <= 9
    assert np.abs(after - before).max() > 1e-5


@pytest.mark.slow
def test_fewer_weight_values_are_simulated_like_the_file_and_compress_better(digits, digits_model, conversion):
    _, images, labels = digits
    part = Qat(weight_values=15, fine_tuning=FineTuning(epochs=3, learning_rate=1e-3))
    trained = quantization_aware(digits_model, part, digits[0])
    coarse = to_tflite(trained.model, Int8FromQat(trained.ranges), calibration=calibration_images(digits[0], 100))
    graph = Graph(coarse.content)
    head = next(o for o in graph.operators() if graph.name(o.outputs[0]) == "head_conv")
    assert len(np.unique(graph.constant(head.inputs[1]))) <= 15
    outputs = predict(coarse.content, images, pixel_offset=-128)
    assert np.mean(trained.predict(images).argmax(1) == outputs.argmax(1)) >= 0.995
    assert np.mean(outputs.argmax(1) == labels) >= 0.93
    assert len(gzip.compress(coarse.content)) < 0.85 * len(gzip.compress(conversion.content))


def test_a_quantized_model_is_refused(digits):
    import keras

    image = keras.Input((16, 16, 3))
    dense = keras.layers.Dense(10, name="dense")
    model = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(image)))
    model.quantize("int8")
    with pytest.raises(InputError, match="is already quantized"):
        quantization_aware(model, Qat(), digits[0])
