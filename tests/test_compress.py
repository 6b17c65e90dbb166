from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest

from converters import to_tflite
from converters.errors import InputError
from converters.tflite.runtime import predict
from edge_cv.compression.compression_stages import compress
from edge_cv.compression.keras_graph import inner_layers
from edge_cv.compression.qat import calibration_images
from edge_cv.recipe import ChannelPrune, FineTuning, Prune, Qat, WeightClustering

SHORT = FineTuning(epochs=2, learning_rate=2e-3)


def test_public_functions_are_exported_by_the_package():
    from edge_cv import compression

    for name in compression.__all__:
        assert callable(getattr(compression, name)), name
    with pytest.raises(AttributeError, match="no attribute 'prunes'"):
        compression.prunes  # noqa: B018


@pytest.fixture(scope="module")
def stages(digits, digits_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    parts = {
        "prune": Prune(
            0.75,
            "polynomial",
            allocation="uniform",
            fine_tuning=FineTuning(epochs=2, learning_rate=5e-3, freeze_statistics=False),
        ),
        "qat": Qat(fine_tuning=FineTuning(epochs=1, learning_rate=1e-3)),
    }
    return folder, parts, compress(digits_model, digits[0], folder, **parts, key="digits")


@pytest.mark.slow
def test_after_pruning_and_qat_the_int8_file_is_smaller_and_classifies_digits(digits, digits_model, stages):
    batches, images, labels = digits
    calibration = calibration_images(batches, 100)
    dense = to_tflite(digits_model, "int8", calibration=calibration)
    made = to_tflite(stages[2][-1].model, stages[2][-1].int8, calibration=calibration)
    outputs = predict(made.content, images, pixel_offset=-128)
    assert np.mean(outputs.argmax(1) == labels) >= 0.9
    assert min(stages[2][-1].sparsity.values()) >= 0.7
    # half of this small file is names, scales and operators
    assert len(gzip.compress(made.content)) < 0.8 * len(gzip.compress(dense.content))


@pytest.mark.slow
def test_a_stage_keeps_the_history_of_its_fine_tuning(stages):
    pruned, qat = stages[2]
    sparsity = [entry["sparsity"] for entry in pruned.history]
    assert 0 < sparsity[0] < sparsity[-1] == pytest.approx(pruned.total_sparsity)
    assert [entry["epoch"] for entry in pruned.history] == [1, 2]
    assert all(0 < entry["score"] <= 1 and entry["loss"] > 0 for entry in (*pruned.history, *qat.history))
    assert "sparsity" not in qat.history[0]


@pytest.mark.slow
def test_int8_of_a_pruned_model_keeps_its_zeros(digits, stages):
    from converters.tflite.graph import Graph

    pruned = stages[2][0]
    conversion = to_tflite(pruned.model, pruned.int8, calibration=calibration_images(digits[0], 100))
    graph = Graph(conversion.content)
    for operator in graph.operators():
        if operator.name == "CONV_2D" and graph.name(operator.outputs[0]) in pruned.sparsity:
            zeros = np.mean(graph.constant(operator.inputs[1]) == 0)
            # a channel of zeros gets one weight, so that its bias has a scale
            assert zeros >= pruned.sparsity[graph.name(operator.outputs[0])] - 0.01


@pytest.mark.slow
def test_a_second_run_reuses_all_stages_and_a_changed_part_reruns_the_later_ones(digits, digits_model, stages):
    folder, parts, first = stages
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.keras")}
    assert set(times) == {"pruned.keras", "qat.keras"}
    again = compress(digits_model, digits[0], folder, **parts, key="digits")
    assert again == first
    changed = parts | {"qat": Qat(fine_tuning=FineTuning(epochs=1, learning_rate=2e-4))}
    compress(digits_model, digits[0], folder, **changed, key="digits")
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.keras")}
    assert after["pruned.keras"] == times["pruned.keras"]
    assert after["qat.keras"] > times["qat.keras"]


@pytest.mark.slow
def test_all_stages_can_be_combined(digits, digits_model, tmp_path):
    made = compress(
        digits_model,
        digits[0],
        tmp_path,
        channel_prune=ChannelPrune(0.7, fine_tuning=SHORT),
        prune=Prune(0.5, allocation="uniform", fine_tuning=SHORT),
        cluster=WeightClustering(16, fine_tuning=FineTuning(epochs=1)),
        qat=Qat(fine_tuning=FineTuning(epochs=1)),
    )
    assert [stage.name for stage in made] == ["channel_pruned", "pruned", "clustered", "qat"]
    kernel = np.asarray(made[-1].model.get_layer("head_conv").kernel)
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.05)
    assert len(np.unique(kernel)) <= 16
    assert made[-1].model.count_params() < digits_model.count_params()


class Noise:
    """Two batches of random pixels with ten classes."""

    classes, batch_size, multi_label = tuple("0123456789"), 16, False

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (32, size, size, 3)).astype(np.uint8)

    def __len__(self) -> int:
        return 2

    def epoch(self, number: int, first_step: int = 0):
        targets = np.eye(10, dtype=np.float32)[np.arange(16) % 10]
        for step in range(first_step, 2):
            yield self.images[16 * step : 16 * step + 16], targets


def settled(model, images):
    """A random network with batch normalization statistics of the images, so that its outputs differ between them."""
    layers = [layer for layer in inner_layers(model) if type(layer).__name__ == "BatchNormalization"]
    for layer in layers:
        layer.momentum = 0.0
    model(images.astype(np.float32), training=True)
    for layer in layers:
        layer.momentum = 0.99
    return model


def nested(backbone, *front):
    """A user's classifier around a network of keras.applications, which is one layer of it."""
    import keras

    last, options = APPLICATIONS[backbone]
    whole = getattr(keras.applications, backbone)(input_shape=(32, 32, 3), include_top=False, weights=None, **options)
    features = keras.layers.GlobalAveragePooling2D()(whole.get_layer(last).output)
    network = keras.Model(whole.input, features)
    pixels = x = keras.Input((32, 32, 3))
    for layer in front:
        x = layer(x)
    return keras.Model(pixels, keras.layers.Dense(10)(network(x)))


def augmented_mobilenet_v2():
    from keras.layers import RandomFlip, RandomRotation, Rescaling

    return nested("MobileNetV2", RandomFlip(), RandomRotation(0.1), Rescaling(1 / 127.5, -1.0))


def nested_mobilenet_v3():
    return nested("MobileNetV3Small")


def nested_efficientnet():
    return nested("EfficientNetB0")  # which normalizes the pixels itself


# The last layer that is kept, which ends the second kind of block, and the options.
APPLICATIONS = {
    "EfficientNetB0": ("block2b_add", {}),
    "MobileNetV2": ("block_4_add", {"alpha": 0.35}),
    "MobileNetV3Small": ("expanded_conv_4_add", {"alpha": 0.75, "minimalistic": True}),
}

# Small forms, with each kind of block once or twice. The other networks have no other kinds of layers and blocks.
NETWORKS = {
    "efficientnet_b0": {"image_size": 32, "phi": -4},
    "mobilenet_v3_large": {"image_size": 32, "alpha": 0.35},
    "mobilenet_v3_small": {"image_size": 32, "alpha": 0.35},
    "mobilenet_v4_conv_small": {"image_size": 32},
    "alexnet_2012": {"image_size": 67, "alpha": 0.25},
}


@pytest.fixture
def fewer_blocks(monkeypatch):
    from edge_cv.models import efficientnet, mobilenet_v3, mobilenet_v4

    monkeypatch.setattr(efficientnet, "BASELINE", efficientnet.BASELINE[:4])
    for name, kept in {"mobilenet_v3_small": range(5), "mobilenet_v3_large": (0, 1, 2, 3, 6, 7, 10)}.items():
        v3 = mobilenet_v3.VARIANTS[name]
        blocks = tuple(v3.blocks[number] for number in kept)
        monkeypatch.setitem(mobilenet_v3.VARIANTS, name, dataclasses.replace(v3, blocks=blocks))
    v4 = mobilenet_v4.VARIANTS["mobilenet_v4_conv_small"]
    *first, fourth, fifth = v4.stages
    shorter = (*first, (fourth[0], fourth[1], fourth[-1]), fifth[:2])
    monkeypatch.setitem(mobilenet_v4.VARIANTS, "mobilenet_v4_conv_small", dataclasses.replace(v4, stages=shorter))


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_blocks")
@pytest.mark.parametrize("network", [*NETWORKS, augmented_mobilenet_v2, nested_mobilenet_v3, nested_efficientnet])
def test_networks_with_pruning_and_qat_convert_to_integer_operators_only(network, tmp_path):
    from converters.tflite.graph import Graph, count_operators
    from edge_cv import models

    built = callable(network)
    batches = Noise(32 if built else NETWORKS[network]["image_size"])
    model = settled(network() if built else models.build(network, classes=10, **NETWORKS[network]), batches.images)
    once = FineTuning(epochs=1, learning_rate=1e-4)
    made = compress(model, batches, tmp_path, prune=Prune(0.5, "constant", fine_tuning=once), qat=Qat(fine_tuning=once))
    assert [stage.total_sparsity for stage in made] == pytest.approx([0.5, 0.5], abs=0.02)
    for stage in made:
        conversion = to_tflite(stage.model, stage.int8, calibration=batches.images)
        integer, total = count_operators(Graph(conversion.content))
        assert integer == total, (stage.name, integer, total)
        assert conversion.parity.sqnr_db > 3


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "compress needs one of"),
        ({"channel_prune": ChannelPrune(0.01), "qat": Qat()}, "no further"),
        ({"prune": Prune(exclude=("absent",)), "qat": Qat()}, "exclude must name"),
        ({"cluster": WeightClustering(300), "qat": Qat()}, "at most 255 together"),
    ],
)
def test_impossible_stages_are_refused_before_any_training(digits_network, tmp_path, parts, message):
    class Untouched:
        def __getattr__(self, name):
            raise AssertionError(f"the data was used: {name}")

    with pytest.raises(InputError, match=message):
        compress(digits_network, Untouched(), tmp_path / "out", **parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prune(1.0), "sparsity must be a share above 0 and under 1"),
        (
            lambda: Prune(end_epoch=9.0, fine_tuning=FineTuning(epochs=5)),
            r"within its training, 0..5 epochs. Received: 0..9",
        ),
        (lambda: Prune(begin_epoch=5.0, fine_tuning=FineTuning(epochs=5)), "within its training"),
        (lambda: Prune(0.75, pattern="2:4"), r"must have sparsity=0.5"),
        (lambda: Prune(schedule="linear"), "schedule of Prune"),
        (lambda: ChannelPrune(0.0), "keep must be a share"),
        (lambda: ChannelPrune(target="size"), "target of ChannelPrune"),
        (lambda: WeightClustering(2), "at least 3"),
        (lambda: Qat(freeze_epoch=4, fine_tuning=FineTuning(epochs=3)), "within its training"),
        (lambda: FineTuning(distillation=1.5), "share in 0..1"),
        (lambda: FineTuning(learning_rate=0.0), "learning_rate must be above 0"),
    ],
)
def test_parts_refuse_invalid_values(make, message):
    with pytest.raises(InputError, match=message):
        make()
