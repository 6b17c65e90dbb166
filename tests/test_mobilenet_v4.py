from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from converters import Int8, to_onnx, to_tflite
from converters.errors import InputError
from edge_cv import models
from edge_cv.models import mobilenet_v4

SMALL, MEDIUM = "mobilenet_v4_conv_small", "mobilenet_v4_conv_medium"


@functools.cache
def quick(name: str = SMALL, **options) -> keras.Model:
    """A narrow network with a small input, which converts within seconds. Tests that change it build their own."""
    keras.utils.set_random_seed(1)
    return models.build(name, **{"classes": 6, "image_size": 64, "alpha": 0.25, **options})


def photos(number: int, size: int = 64) -> np.ndarray:
    """Smooth random images. After pooling, images of pixel noise would all be alike."""
    coarse = np.random.default_rng(0).integers(0, 256, (number, 4, 4, 3)).astype(np.float32)
    return np.round(np.kron(coarse, np.ones((1, size // 4, size // 4, 1), np.float32)))


def by_hand(stages, size: int) -> tuple[int, int]:
    """Trainable parameters and MACs with 1000 classes, computed from the table rows independently of the network."""
    parameters = macs = 0
    channels = 3

    def layer(into: int, out: int, kernel: int, side: int, groups: int = 1) -> None:
        nonlocal parameters, macs
        weights = kernel * kernel * into // groups * out
        parameters += weights + 2 * out  # batch normalization's scale and shift
        macs += weights * side * side

    for stage in stages:
        for row in stage:
            before, size = size, -(-size // row.stride)
            match row:
                case mobilenet_v4.Conv():
                    layer(channels, row.channels, row.kernel, size)
                case mobilenet_v4.Fused():
                    layer(channels, channels * row.expand, row.kernel, size)
                    layer(channels * row.expand, row.channels, 1, size)
                case mobilenet_v4.Uib():
                    wide = channels * row.expand
                    if row.start:
                        layer(channels, channels, row.start, before if row.middle else size, channels)
                    layer(channels, wide, 1, before)
                    if row.middle:
                        layer(wide, wide, row.middle, size, wide)
                    layer(wide, row.channels, 1, size)
            channels = row.channels
    layer(channels, 960, 1, size)
    layer(960, 1280, 1, 1)
    return parameters + 1280 * 1000 + 1000, macs + 1280 * 1000


@pytest.mark.parametrize(("name", "millions", "giga"), [(SMALL, 3.77, 0.2), (MEDIUM, 9.72, 1.1)])
def test_counts_follow_from_the_stages_and_round_to_the_published_ones(name: str, millions: float, giga: float):
    facts = mobilenet_v4.VARIANTS[name]
    parameters, macs = by_hand(facts.stages, facts.image_size)

    assert facts.parameters == parameters
    assert facts.macs == pytest.approx(macs, rel=0.005)
    assert round(parameters / 1e6, 2) == millions
    assert round(macs / 1e9, 1) == giga


@pytest.mark.slow
def test_depthwise_convolutions_follow_the_four_kinds_of_blocks():
    layers = {layer.name: layer for layer in quick(MEDIUM).layers}

    def parts(block: str) -> list[str]:
        return [part for part in ("start", "expand", "middle", "project") if f"{block}_{part}_conv" in layers]

    assert parts("block1a") == ["expand", "project"]  # fused
    assert layers["block1a_expand_conv"].kernel_size == (3, 3)
    assert parts("block2a") == ["start", "expand", "middle", "project"]  # extra depthwise
    assert parts("block3f") == ["start", "expand", "project"]  # ConvNeXt
    assert parts("block3g") == ["expand", "project"]  # feed-forward
    assert layers["block3g_expand_conv"].kernel_size == (1, 1)
    layers = {layer.name: layer for layer in quick(SMALL).layers}
    assert parts("block3b") == ["expand", "middle", "project"]  # inverted bottleneck


def test_activations_follow_all_convolutions_but_the_first_depthwise_and_the_projection():
    names = {layer.name for layer in quick(MEDIUM).layers}
    assert {"block2a_expand_relu", "block2a_middle_relu", "neck_relu", "head_relu"} <= names
    assert not {"block2a_start_relu", "block2a_project_relu"} & names


def test_resolution_is_halved_five_times_within_the_block_and_by_the_last_depthwise():
    model = models.build(SMALL, classes=3, image_size=64, alpha=0.25)
    assert model.get_layer("block3a_start_conv").output.shape[1] == 8
    assert model.get_layer("block3a_middle_conv").output.shape[1] == 4
    assert model.get_layer("neck_conv").output.shape[1] == 2


@pytest.mark.slow
def test_dropout_and_stochastic_depth_are_the_variants_and_can_be_turned_off():
    def rates(model: keras.Model) -> dict[str, float]:
        return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}

    assert rates(quick()) == {"dropout": 0.3}
    medium = rates(quick(MEDIUM))
    assert medium.pop("dropout") == 0.2
    assert list(medium.values()) == sorted(medium.values())
    assert 0 < medium["block2b_drop"] < medium["block4k_drop"] < 0.075
    assert rates(quick(dropout=0, stochastic_depth=0)) == {}


@pytest.mark.slow
def test_alpha_narrows_the_stages_but_not_the_head():
    narrow, wide = quick(), quick(alpha=1.5)
    assert narrow.get_layer("block0a_conv").filters == 8
    assert narrow.get_layer("head_conv").filters == 1280
    assert wide.get_layer("block4a_project_conv").filters == 192
    assert wide.get_layer("head_conv").filters == 1920
    with pytest.raises(InputError, match=r"at least 0.25 for mobilenet_v4_conv_small. Received: 0.2"):
        models.build(SMALL, alpha=0.2)


def test_pixels_become_minus_one_to_one():
    np.testing.assert_allclose(quick().get_layer("normalize")(np.array([0.0, 127.5, 255.0], np.float32)), [-1, 0, 1])


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in (SMALL, MEDIUM)])
def test_trains_and_converts_to_every_format(name: str):
    model = quick.__wrapped__(name)
    images = photos(16)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # so that one step gives statistics of the data, as after training
    before = [weight.numpy().copy() for weight in model.trainable_weights]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)

    assert np.isfinite(model.train_on_batch(images, np.arange(16) % 6))
    assert all((old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True))
    assert to_tflite(model, "float32", calibration=[images]).parity.sqnr_db > 60
    # test_applications.py has GPTQ, which takes long, of a network with the same blocks
    int8 = to_tflite(model, Int8(correction="none", min_sqnr_db=0.0), calibration=[images])
    assert int8.metadata["operators"]["integer"] == int8.metadata["operators"]["total"]
    assert int8.metadata["input"]["pixel_offset"] == -128
    assert to_onnx(model, calibration=[images]).parity.sqnr_db > 60
