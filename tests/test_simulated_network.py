"""Models that compute with the rounding of their int8 file: of every form, placed right, saved and loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from converters import to_tflite
from converters.schemes import Int8FromQat
from converters.tflite.runtime import predict
from edge_cv import models
from edge_cv.compression import learned_ranges, quantize_aware, strip
from edge_cv.compression.keras_graph import clone
from edge_cv.compression.qat import simulate
from edge_cv.compression.rounding_rules import graph_of, rounded_outputs
from edge_cv.compression.simulated_network import simulated, simulated_network
from edge_cv.recipe import Qat

ROOT = Path(__file__).parents[1]


def body(x, width: int = 8):
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU(6.0)(x)


def nested():
    image = keras.Input((20, 20, 3))
    inner_input = keras.Input((20, 20, 8))
    inner = keras.Model(inner_input, layers.Add()([body(inner_input), inner_input]), name="inner")
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(inner(body(image)))))


def augmented():
    image = keras.Input((20, 20, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(image))
    return keras.Model(image, layers.Dense(5)(layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(body(x)))))


def shared():
    image, conv = keras.Input((20, 20, 3)), layers.Conv2D(8, 3, padding="same", activation="relu")
    x = conv(conv(layers.Conv2D(8, 1)(image)))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


class Doubled(layers.Layer):
    """A layer of one's own, with a call of its own."""

    def call(self, x):
        return keras.ops.relu(2 * x)


def custom():
    image = keras.Input((20, 20, 3))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(Doubled()(body(image)))))


def grey():
    image = keras.Input((20, 20))
    return keras.Model(image, layers.Dense(5)(layers.Flatten()(body(layers.Reshape((20, 20, 1))(image)))))


def rectangular():
    image = keras.Input((12, 28, 1))
    x = layers.SeparableConv2D(8, 3, activation="swish")(layers.Rescaling(1 / 127.5, -1.0)(image))
    return keras.Model(image, layers.Softmax()(layers.Dense(5)(layers.Flatten()(x))))


def pixels(model, count: int):
    shape = model.inputs[0].shape[1:]
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "make",
    [grey, *(pytest.param(make, marks=pytest.mark.slow) for make in (nested, augmented, shared, custom, rectangular))],
)
def test_the_int8_file_of_a_model_trained_by_ones_own_fit_computes_what_was_trained(make):
    keras.utils.set_random_seed(0)
    model = make()
    images = pixels(model, 64)
    labels = (images.reshape(64, -1).mean(1) * 7).astype(int) % 5
    aware = quantize_aware(model, Qat(), images)
    from_logits = not isinstance(model.layers[-1], layers.Softmax)
    aware.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits))
    before = [np.array(weight) for weight in model.get_weights()]
    aware.fit(images, labels, epochs=2, batch_size=16, verbose=0)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    ranges = learned_ranges(aware)
    expected = aware.predict(images, verbose=0)
    photos = images if images.ndim == 4 else images[..., None]
    conversion = to_tflite(strip(aware), Int8FromQat(ranges), calibration=photos)
    offset = conversion.metadata["input"].get("pixel_offset")
    outputs = predict(conversion.content, photos, **({} if offset is None else {"pixel_offset": offset}))
    step = max(high - low for low, high in ranges.values()) / 255
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.95
    assert np.abs(outputs - expected).max() <= max(3 * step, 3 / 256)


SMALL = {
    "mobilenet_v1": {"image_size": 32, "alpha": 0.25},
    "mobilenet_v3_small": {"image_size": 32, "alpha": 0.35},
    "efficientnet_b0": {"image_size": 32, "phi": -4},
    "mobilenet_v2": {"image_size": 32, "alpha": 0.35},
    "mobilenet_v4_conv_small": {"image_size": 32, "alpha": 0.5},
    "alexnet": {"image_size": 63, "alpha": 0.25},
    "efficientnet_lite0": {"image_size": 32, "phi": -4},
}


def with_random_statistics(model):
    """Batch normalization that changes its inputs, as that of a trained network does."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            scales, shifts = rng.uniform(0.5, 1.5, (2, channels)), rng.normal(0, 0.3, (2, channels))
            layer.set_weights([scales[0], shifts[0], shifts[1], scales[1]])
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_rules_round_the_outputs_that_the_int8_file_rounds(name):
    keras.utils.set_random_seed(1)
    model = with_random_statistics(models.build(name, classes=10, **SMALL[name]))
    simulation, _ = simulate(model, None, Qat())
    in_file = simulated_network(simulation).outputs
    by_rule = rounded_outputs(model, "ema")
    # an identity, and x + 3 before a ReLU6 that does not clip, equal the output that is rounded
    equal = {node.name for node in graph_of(model) if node.is_identity} | {n for n in in_file if n.endswith(".shift")}
    assert set(in_file) - equal == set(by_rule)
    assert {name for name in by_rule if by_rule[name].ranges != in_file[name].ranges} == set()


def test_a_saved_simulation_computes_the_same_and_knows_its_ranges(digits, digits_network, tmp_path):
    _, images, _ = digits
    aware = quantize_aware(digits_network, Qat(weight_values=31), images[:50])
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    inputs = images[:16].astype(np.float32)
    np.testing.assert_array_equal(loaded(inputs), aware(inputs))
    assert learned_ranges(loaded) == learned_ranges(aware)
    assert len(learned_ranges(aware)) > 10
    assert strip(digits_network) is digits_network


@pytest.mark.slow
def test_importing_strip_registers_the_layers_of_a_saved_simulation():
    code = "import keras; from edge_cv.compression import strip; print(*keras.saving.get_custom_objects())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert {"edge_cv>SimulatedNetwork", "edge_cv>RoundedOutput", "edge_cv>RoundedKernel"} <= set(done.stdout.split())


def test_batch_normalization_in_training_is_that_of_keras_until_its_statistics_are_frozen():
    model, images = nested(), np.random.default_rng(1).uniform(0, 255, (6, 20, 20, 3)).astype(np.float32)
    simulation = simulated(clone(model), {}, train_statistics=True)
    np.testing.assert_allclose(simulation(images, training=True), model(images, training=True), atol=1e-5)
    for ours, expected in zip(strip(simulation).non_trainable_variables, model.non_trainable_variables, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7)
    simulated_network(simulation).frozen.assign(1.0)
    before = [np.asarray(variable) for variable in strip(simulation).non_trainable_variables]
    np.testing.assert_allclose(simulation(images, training=True), model(images, training=False), atol=1e-5)
    for after, expected in zip(strip(simulation).non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(after, expected)


@pytest.mark.slow
def test_trained_ranges_classify_as_well_as_moving_ones(digits, digits_model):
    from edge_cv.compression.qat import quantization_aware
    from edge_cv.recipe import FineTuning

    batches, images, labels = digits
    once = FineTuning(epochs=2, learning_rate=1e-3)
    learned = quantization_aware(digits_model, Qat(ranges="lsq", fine_tuning=once), batches)
    start = {name: rounding.range() for name, rounding in simulate(digits_model, images[:100], Qat())[1].items()}
    assert any(abs(learned.ranges[name][1] / start[name][1] - 1) > 1e-3 for name in start if start[name][1])
    conversion = to_tflite(learned.model, Int8FromQat(learned.ranges), calibration=images[:100])
    outputs = predict(conversion.content, images, pixel_offset=-128)
    assert np.mean(outputs.argmax(1) == labels) >= 0.96
    assert np.mean(outputs.argmax(1) == learned.predict(images).argmax(1)) >= 0.99


ON_JAX = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tf_keras", "tensorflow_model_optimization"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np
from keras import layers
from edge_cv import compression
from edge_cv.recipe import FineTuning, Prune, Qat, WeightClustering

class Pixels:
    classes, batch_size, multi_label = ("dark", "light"), 16, False
    rng = np.random.default_rng(0)
    images = (rng.uniform(0.2, 1, (96, 1, 1, 1)) * rng.integers(0, 256, (96, 12, 12, 3))).astype(np.uint8)
    targets = np.eye(2, dtype=np.float32)[(images.mean((1, 2, 3)) > 76).astype(int)]
    def __len__(self):
        return 6
    def epoch(self, number, first_step=0):
        for step in range(first_step, 6):
            yield self.images[16 * step : 16 * step + 16], self.targets[16 * step : 16 * step + 16]

keras.utils.set_random_seed(0)
image = keras.Input((12, 12, 3))
x = layers.Conv2D(8, 3, use_bias=False, name="conv")(layers.Rescaling(1 / 255)(image))
x = layers.ReLU()(layers.BatchNormalization()(x))
model = keras.Model(image, layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x)))
batches, tuning = Pixels(), FineTuning(steps=60, learning_rate=1e-2)
compression.fine_tune(model, batches, tuning)
pruned = compression.prune(model, Prune(0.5, fine_tuning=tuning), batches)
clustered = compression.cluster(pruned, WeightClustering(8, fine_tuning=tuning), batches)
aware = compression.quantization_aware(clustered, Qat(fine_tuning=tuning), batches)
aware.simulation.save(sys.argv[1])
outputs = aware.predict(Pixels.images)
print(json.dumps({
    "backend": keras.backend.backend(),
    "tensorflow": "tensorflow" in sys.modules,
    "sparsity": compression.total_sparsity(aware.model),
    "values": len(np.unique(aware.model.get_layer("conv").get_weights()[0])),
    "top1": float(np.mean(outputs.argmax(1) == Pixels.targets.argmax(1))),
    "outputs": outputs.tolist(),
}))
"""


@pytest.mark.slow  # compiles for JAX in a process without TensorFlow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is an extra")
def test_what_jax_trained_without_tensorflow_becomes_int8_elsewhere(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": paths}
    command = [sys.executable, "-c", ON_JAX, str(tmp_path / "aware.keras")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["backend"], result["tensorflow"]) == ("jax", False)
    assert result["sparsity"] == pytest.approx(0.5, abs=0.02)
    assert result["values"] <= 8
    assert result["top1"] >= 0.9
    aware = keras.models.load_model(tmp_path / "aware.keras")
    rng = np.random.default_rng(0)
    images = (rng.uniform(0.2, 1, (96, 1, 1, 1)) * rng.integers(0, 256, (96, 12, 12, 3))).astype(np.uint8)
    simulated = aware.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(simulated, result["outputs"], atol=1e-3)
    ranges = learned_ranges(aware)
    conversion = to_tflite(strip(aware), Int8FromQat(ranges), calibration=images[:32])
    outputs = predict(conversion.content, images, pixel_offset=-128)
    assert np.mean(outputs.argmax(1) == simulated.argmax(1)) >= 0.97
    assert np.abs(outputs - simulated).max() <= 3 * max(high - low for low, high in ranges.values()) / 255
