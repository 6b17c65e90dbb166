"""The training loop: single steps, phases, and resuming an interrupted training with the same result."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.data.input_pipeline.batches import array_batches
from edge_cv.recipe import Fit, Phase, Teacher
from edge_cv.recipe import Model as ModelPart
from edge_cv.training import fit
from edge_cv.training.checkpoint import load
from edge_cv.training.devices import join_hosts
from edge_cv.training.layers import network_layers, precision, trainable_layers
from edge_cv.training.optimizers import optimizer, schedule
from edge_cv.training.training_model import TrainingModel, loss_and_metrics

CLASSES = tuple("abc")


def network(*, seed: int = 0, batch_norm: bool = True, dropout: float = 0.0, classes: int = 3) -> keras.Model:
    """8x8 pixels to logits; 200-odd weights."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="normalize")(pixels)
    x = layers.Conv2D(6, 3, use_bias=not batch_norm, name="stem_conv")(x)
    x = layers.BatchNormalization(name="stem_bn")(x) if batch_norm else x
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.Conv2D(6, 1, name="block1_conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="tiny")


def coloured(count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images whose class is their brightest channel: uint8 `(count, 8, 8, 3)`, int `(count,)`."""
    rng = np.random.default_rng(5)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 60
    return images.astype(np.uint8), labels


def batches(batch_size: int = 8, seed: int = 0, count: int = 48):
    return array_batches(*coloured(count), classes=CLASSES, batch_size=batch_size, seed=seed)


def quick(**fields) -> Fit:
    return Fit(
        **{"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "warmup_epochs": 0, "weight_decay": 0.0, **fields}
    )


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.array(w) for w in model.get_weights()]


def assert_equal(a: keras.Model, b: keras.Model, **tolerance) -> None:
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or {"rtol": 0, "atol": 0}))


# --- results ----------------------------------------------------------------------------------------------------------


def test_learns_what_can_be_learned_and_keeps_the_best_epoch(tmp_path):
    model = network()
    fitted = fit(
        model, batches(), quick(epochs=12, learning_rate=0.3), validation=list(batches(16).epoch(0)), folder=tmp_path
    )
    scores = [entry["validation_score"] for entry in fitted.history]
    assert fitted.score == max(scores) > 0.9
    assert fitted.best_epoch == 1 + int(np.argmax(scores))  # the first of the best
    images, labels = coloured()
    assert (model.predict(images, verbose=0).argmax(1) == labels).mean() == pytest.approx(fitted.score)
    lines = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [int(line["epoch"]) for line in lines] == list(range(1, 13))
    assert {"images_per_second", "learning_rate", "validation_loss"} <= set(lines[0])
    assert any((tmp_path / "tensorboard").iterdir())


def test_without_validation_the_last_epoch_is_kept_and_the_model_is_left_as_it_was_but_for_its_weights():
    model = network()
    fitted = fit(model, batches(), quick(epochs=3))
    assert (fitted.best_epoch, fitted.score) == (3, None)
    assert not model.compiled
    assert model.trainable
    assert all(layer.trainable for layer in model.layers)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_same_seed_gives_the_same_weights():
    first, second = network(dropout=0.5), network(dropout=0.5)
    before = weights(first)
    for model in (first, second):
        fit(model, batches(), quick())
    assert_equal(first, second)
    assert not all(np.allclose(old, new) for old, new in zip(before, weights(first), strict=True))


def test_training_does_not_wait_for_each_step():
    """If a callback has one of these methods, Keras fetches the logs and waits for the device at every step."""
    from edge_cv.training.callbacks import TrainingMonitor

    for name in ("on_batch_end", "on_train_batch_end"):
        assert getattr(TrainingMonitor, name) is getattr(keras.callbacks.Callback, name)


# --- one step, against the formula ------------------------------------------------------------------------------------


def gradients(model: keras.Model, images: np.ndarray, targets: np.ndarray, factors: float | np.ndarray = 1.0):
    """Gradients of the mean cross-entropy, weighted per image, computed with TensorFlow only."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        logits = model(images.astype(np.float32), training=True)
        loss = tf.reduce_mean(factors * tf.nn.softmax_cross_entropy_with_logits(targets, logits))
    return [g.numpy() for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]


def one_step(**fields) -> tuple[keras.Model, list[np.ndarray], list[np.ndarray]]:
    """The network after one step, its weights before the step, and their gradients."""
    model = network(batch_norm=False)
    before = weights(model)
    every = batches(batch_size=48)
    slopes = gradients(model, *next(iter(every.epoch(0))))
    fit(model, every, quick(epochs=1, schedule="constant", **fields))
    return model, before, slopes


def test_sgd_moves_by_the_gradient_and_the_l2_penalty_of_kernels_alone():
    model, before, slopes = one_step(weight_decay=0.01, batch_size=48)
    for new, old, slope in zip(weights(model), before, slopes, strict=True):
        decay = 0.01 * old if old.ndim > 1 else 0
        np.testing.assert_allclose(new, old - 0.1 * (slope + decay), rtol=1e-4, atol=1e-6)


def test_rmsprop_divides_by_the_root_of_the_mean_square_with_epsilon_under_the_root():
    model, before, slopes = one_step(optimizer="rmsprop", learning_rate=0.01)
    for new, old, slope in zip(weights(model), before, slopes, strict=True):
        np.testing.assert_allclose(new, old - 0.01 * slope / np.sqrt(0.1 * slope**2 + 1e-3), rtol=1e-4, atol=1e-6)


def test_adamw_decays_kernels_and_not_biases():
    decayed, before, slopes = one_step(optimizer="adamw", learning_rate=0.01, weight_decay=0.5)
    for new, old, slope in zip(weights(decayed), before, slopes, strict=True):
        kept = old * (1 - 0.01 * 0.5) if old.ndim > 1 else old
        epsilon = 1e-7 / np.sqrt(1 - 0.999)  # Keras adds 1e-7 before it corrects the second moment's bias
        np.testing.assert_allclose(new, kept - 0.01 * slope / (np.abs(slope) + epsilon), rtol=1e-3, atol=1e-5)


def test_gradients_are_clipped_by_their_common_norm():
    model, before, slopes = one_step(clip_norm=0.01)
    norm = np.sqrt(sum((slope**2).sum() for slope in slopes))
    assert norm > 0.01
    for new, old, slope in zip(weights(model), before, slopes, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * slope * 0.01 / norm, rtol=1e-4, atol=1e-7)


def test_accumulated_gradients_of_small_batches_are_those_of_a_large_one():
    large, small = network(batch_norm=False), network(batch_norm=False)
    fit(large, batches(batch_size=48), quick(epochs=1, schedule="constant", batch_size=48))
    fit(small, batches(batch_size=12), quick(epochs=1, schedule="constant", batch_size=12, accumulate=4))
    assert_equal(large, small, rtol=1e-4, atol=1e-6)


def test_class_weights_scale_the_loss_of_a_class():
    """Weights of classes with 32, 12 and 4 images, with mean 1: 48 / (3 * count)."""
    images, _ = coloured()
    labels = np.repeat([0, 1, 2], [32, 12, 4])
    every = array_batches(images, labels, classes=CLASSES, batch_size=48, seed=0)
    model = network(batch_norm=False)
    before, (pixels, targets) = weights(model), next(iter(every.epoch(0)))
    factors = targets @ np.float32([48 / 96, 48 / 36, 48 / 12])
    slopes = gradients(model, pixels, targets, factors)
    settings = quick(epochs=1, schedule="constant", balance="loss", batch_size=48)
    fit(model, every, settings, class_counts=[32, 12, 4])
    for new, old, slope in zip(weights(model), before, slopes, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * slope, rtol=1e-4, atol=1e-6)


# --- schedules --------------------------------------------------------------------------------------------------------


def rates(steps: int, **fields) -> list[float]:
    settings = Fit(**{"epochs": 10, "learning_rate": 0.4, "warmup_epochs": 2, **fields})
    run = schedule(settings, settings, 5)
    return [float(run(step)) for step in range(steps)]


def test_cosine_warms_up_linearly_then_falls_to_zero():
    found = rates(51)
    np.testing.assert_allclose(found[:10], [0.4 * (step + 1) / 10 for step in range(10)], rtol=1e-6)
    np.testing.assert_allclose(found[10:51], [0.2 * (1 + np.cos(np.pi * n / 40)) for n in range(41)], atol=1e-6)


def test_step_decays_by_its_factor_every_decay_epochs():
    found = rates(50, schedule="step", warmup_epochs=0, decay_rate=0.97, decay_epochs=2.4)
    np.testing.assert_allclose(found, [0.4 * 0.97 ** (step // 12) for step in range(50)], rtol=1e-5)


def test_constant_stays():
    assert rates(20, schedule="constant", warmup_epochs=0) == pytest.approx([0.4] * 20)


def test_plateau_lowers_the_rate_without_improvement(tmp_path):
    model = network()
    logits = model.get_layer("logits")
    logits.set_weights([np.zeros_like(w) for w in logits.get_weights()])
    settings = quick(epochs=5, schedule="plateau", learning_rate=1e-12, decay_epochs=1, decay_rate=0.5)
    fitted = fit(model, batches(), settings, validation=list(batches(48).epoch(0)), folder=tmp_path)
    found = [entry["learning_rate"] for entry in fitted.history]
    np.testing.assert_allclose(found, [1e-12, 1e-12, 5e-13, 2.5e-13, 1.25e-13], rtol=1e-5)


def test_early_stopping_ends_after_epochs_without_improvement():
    settings = quick(epochs=50, learning_rate=1e-12, early_stopping=3)
    fitted = fit(network(), batches(24), settings, validation=list(batches(48).epoch(0)))
    assert len(fitted.history) == 4


# --- averages, precision, phases, teachers ----------------------------------------------------------------------------


def test_the_averaged_weights_are_kept():
    """Against the recurrence average = decay * average + (1 - decay) * weights, which starts with the first weights."""
    averaged, every = network(batch_norm=False), batches(batch_size=16)
    settings = quick(epochs=3, schedule="constant", ema=0.5)
    fit(averaged, every, settings)

    plain = dataclasses.replace(settings, ema=None)
    model = TrainingModel(network(batch_norm=False), multi_label=False)
    model.compile(optimizer=optimizer(plain, plain, 3), jit_compile=False, **loss_and_metrics(False, 3))
    average = None
    for epoch in range(3):
        for images, targets in every.epoch(epoch):
            model.train_on_batch(images, targets)
            step = weights(model.network)
            average = step if average is None else [0.5 * a + 0.5 * w for a, w in zip(average, step, strict=True)]
    for kept, expected in zip(weights(averaged), average, strict=True):
        np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "compute"), [("bfloat16", "bfloat16"), ("float16", "float16")])
def test_mixed_precision_computes_low_keeps_float32_weights_and_learns(name: str, compute: str):
    model = network()
    with precision(model, name):
        assert model.get_layer("stem_conv").compute_dtype == compute
        assert model.get_layer("logits").compute_dtype == "float32"
    fitted = fit(model, batches(), quick(epochs=12, learning_rate=0.1, precision=name))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.get_layer("stem_conv").compute_dtype == "float32"
    assert fitted.history[-1]["score"] > 0.8


def test_phases_train_their_layers_one_after_the_other():
    model = network()
    before = {w.path: w.numpy().copy() for w in model.weights}
    fitted = fit(model, batches(), quick(epochs=1, train="block1", phases=(Phase(2, 0.05, train="head"),)))
    changed = {w.path.split("/")[-2] for w in model.weights if (before[w.path] != w.numpy()).any()}
    assert changed == {"block1_conv", "logits"}
    assert [entry["phase"] for entry in fitted.history] == [1, 1, 2]


def test_layers_of_a_phase():
    model = network()
    with trainable_layers(model, Phase(1, 0.1, train="head")):
        assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"logits"}
    with trainable_layers(model, Phase(1, 0.1, freeze_batch_norm=True)):
        assert {v.path.split("/")[-2] for v in model.trainable_variables} == {"stem_conv", "block1_conv", "logits"}
    assert len(model.trainable_variables) == 7
    nested = keras.Sequential([keras.Input((8, 8, 3)), model])
    assert network_layers(nested)[-1].name == "logits"


def test_frozen_batch_norm_keeps_its_statistics():
    model = network()
    norm = model.get_layer("stem_bn")
    before = [w.numpy().copy() for w in norm.weights]
    fit(model, batches(), quick(freeze_batch_norm=True))
    for old, new in zip(before, norm.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_a_student_learns_the_predictions_of_its_teacher():
    teacher = network(seed=9)
    images, labels = coloured()
    fit(teacher, batches(), quick(epochs=12, batch_norm_momentum=0.8))
    wrong = array_batches(images, (labels + 1) % 3, classes=CLASSES, batch_size=8, seed=0)
    student = network(seed=2)
    teaching = Teacher(ModelPart("mobilenet_v2"), share=1.0)
    fit(student, wrong, quick(epochs=20, batch_norm_momentum=0.8, teacher=teaching), teacher=teacher)
    agreed = student.predict(images, verbose=0).argmax(1) == teacher.predict(images, verbose=0).argmax(1)
    assert agreed.mean() > 0.9  # although every label is wrong
    assert all(variable.trainable for variable in teacher.trainable_variables)


def test_distance_from_the_teacher_is_the_divergence_of_softened_probabilities():
    student, teacher = network(seed=1), network(seed=2)
    teaching = Teacher(ModelPart("mobilenet_v2"), share=0.25, temperature=4.0)
    model = TrainingModel(student, multi_label=False, teacher=teacher, distillation=teaching)
    model.compile(optimizer="sgd", jit_compile=False, **loss_and_metrics(False, 3))
    images, targets = next(iter(batches(batch_size=16).epoch(0)))
    logits, taught = student(images, training=True).numpy(), teacher(images).numpy()

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    p, q = log_softmax(taught / 4), log_softmax(logits / 4)
    wanted = 0.75 * -(targets * log_softmax(logits)).sum(1).mean() + 0.25 * 16 * (np.exp(p) * (p - q)).sum(1).mean()
    loss = model.compute_loss(images, targets, logits, training=True)
    assert float(loss) == pytest.approx(wanted, rel=1e-4)


def test_several_labels_per_image_use_binary_cross_entropy_and_average_precision():
    images, labels = coloured()
    several = np.stack([labels == 0, labels != 2, labels == 2], axis=1).astype(np.int32)
    every = array_batches(images, several, classes=CLASSES, batch_size=8, seed=0)
    fitted = fit(network(), every, quick(epochs=12, learning_rate=0.5), validation=list(every.epoch(0)))
    assert fitted.score > 0.95
    model = TrainingModel(network(), multi_label=True)
    model.compile(optimizer="sgd", jit_compile=False, **loss_and_metrics(True, 3))
    pixels, targets = next(iter(every.epoch(0)))
    logits = model(pixels, training=False).numpy()
    wanted = (np.logaddexp(0, logits) - targets * logits).mean()
    assert float(model.compute_loss(pixels, targets, logits)) == pytest.approx(wanted, rel=1e-4)


# --- interrupted and resumed ------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


class Breaking:
    """Batches that interrupt a training at one step of one epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.whole, self.at = batches(), (epoch, step)
        self.classes, self.batch_size, self.multi_label = CLASSES, 8, False

    def __len__(self) -> int:
        return len(self.whole)

    def epoch(self, number: int, first_step: int = 0):
        for step, batch in enumerate(self.whole.epoch(number, first_step), first_step):
            if (number, step) == self.at:
                raise Killed
            yield batch


@pytest.mark.parametrize(
    ("fields", "killed_at"),
    [
        ({"optimizer": "adamw", "accumulate": 2}, (0, 4)),
        ({}, (1, 0)),
        ({"schedule": "plateau", "ema": 0.9}, (2, 3)),
    ],
    ids=str,
)
def test_an_interrupted_training_resumes_to_the_same_weights_and_history(fields: dict, killed_at, tmp_path):
    settings = quick(epochs=2, phases=(Phase(1, 0.05, train="head"),), checkpoint_seconds=0.0, **fields)
    validation = list(batches(16).epoch(0))
    whole, parts = network(dropout=0.5), network(dropout=0.5)
    wanted = fit(whole, batches(), settings, validation=validation, folder=tmp_path / "whole")
    with pytest.raises(Exception):  # noqa: B017, PT011  what the backend makes of an error in a generator
        fit(parts, Breaking(*killed_at), settings, validation=validation, folder=tmp_path / "parts")
    assert load(tmp_path / "parts" / "checkpoint.npz").state["phase"] == int(killed_at[0] > 0)
    again = network(dropout=0.5, seed=77)  # the initial weights do not matter
    found = fit(again, batches(), settings, validation=validation, folder=tmp_path / "parts")
    assert_equal(whole, again)
    timing = {"seconds": 0, "images_per_second": 0}
    assert [entry | timing for entry in found.history] == [entry | timing for entry in wanted.history]


def test_a_finished_training_is_not_repeated(tmp_path):
    first = network()
    fitted = fit(first, batches(), quick(), validation=list(batches(16).epoch(0)), folder=tmp_path)
    again = network(seed=3)
    assert fit(again, Breaking(0, 0), quick(), validation=list(batches(16).epoch(0)), folder=tmp_path) == fitted
    assert_equal(first, again)


@pytest.mark.slow
def test_a_killed_process_leaves_a_checkpoint_from_which_training_resumes(tmp_path):
    """kill -9 in the middle of an epoch, in a separate process."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_training as t
class Dying(t.Breaking):
    def epoch(self, number, first_step=0):
        for step, batch in enumerate(self.whole.epoch(number, first_step), first_step):
            if (number, step) == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch
t.fit(t.network(), Dying(1, 3), t.quick(epochs=3, checkpoint_seconds=0.0), folder={str(tmp_path / "run")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    state = load(tmp_path / "run" / "checkpoint.npz").state
    assert state["epoch"] == 1
    whole, again = network(), network(seed=4)
    fit(whole, batches(), quick(epochs=3))
    fit(again, batches(), quick(epochs=3, checkpoint_seconds=0.0), folder=tmp_path / "run")
    assert_equal(whole, again)


def test_folder_of_another_training_is_refused(tmp_path):
    fit(network(), batches(), quick(), folder=tmp_path)
    with pytest.raises(InputError, match=r"must be empty or contain a checkpoint of this training.*other settings"):
        fit(network(), batches(), quick(learning_rate=0.2), folder=tmp_path)
    with pytest.raises(InputError, match=r"contain a checkpoint of this training"):
        fit(network(batch_norm=False), batches(), quick(), folder=tmp_path)


def test_file_that_is_not_a_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path):
    fit(network(), batches(), quick(), folder=tmp_path)
    place = tmp_path / "checkpoint.npz"
    whole = place.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        place.write_bytes(content)
        with pytest.raises(InputError, match=r"must be a checkpoint of a training; delete it to start over"):
            fit(network(), batches(), quick(), folder=tmp_path)
    np.savez(place, state=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="must be a checkpoint"):
        load(place)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    fit(network(), batches(), quick(epochs=2), folder=tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    shutil.copytree(tmp_path / "run", tmp_path / "full")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    from edge_cv.training import checkpoint

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(
        InputError, match=r"checkpoint.npz cannot be written: No space left on device; the previous checkpoint"
    ):
        checkpoint.save(tmp_path / "full" / "checkpoint.npz", {}, {})
    assert (tmp_path / "full" / "checkpoint.npz").read_bytes() == before
    assert not list((tmp_path / "full").glob(".*part"))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_its_step_and_rate_and_keeps_the_checkpoint(tmp_path):
    class Poisoned(Breaking):
        def epoch(self, number: int, first_step: int = 0):
            for step, (images, targets) in enumerate(self.whole.epoch(number, first_step), first_step):
                yield images.astype(np.float32) * (np.nan if (number, step) == self.at else 1), targets

    settings = quick(epochs=2, checkpoint_seconds=0.0, schedule="constant")
    with pytest.raises(InputError, match=r"NaN or infinity at step 3 of 6 of epoch 2, at a learning rate of 0.1"):
        fit(network(), Poisoned(1, 2), settings, folder=tmp_path)
    found = load(tmp_path / "checkpoint.npz")
    assert (found.state["epoch"], found.state["step"]) == (1, 2)  # the last checkpoint precedes the broken step
    assert all(np.isfinite(array).all() for array in found.arrays["network"])


def test_exhausted_memory_is_reported_with_smaller_settings(monkeypatch):
    from edge_cv.training.loop import TrainingLoop

    def full(self) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes.")

    monkeypatch.setattr(TrainingLoop, "run", full)
    with pytest.raises(
        InputError, match=r"a batch of 8 images of 8x8 does not fit .* fit.batch_size=4 with fit.accumulate=2"
    ):
        fit(network(), batches(), quick())


@pytest.mark.parametrize(
    ("settings", "named", "message"),
    [
        ({}, {"model": 4}, r"as many classes as the model, 4. Received: 3"),
        ({"train": "nothing"}, {}, r"train must be all, head, or the beginning .*stem.*Received: 'nothing'"),
        ({"train": "pool", "phases": ()}, {"headless": True}, r"a phase must train at least one weight"),
        ({"balance": "loss"}, {}, r"balance='loss' needs the number of images per class"),
        ({"balance": "loss"}, {"class_counts": [4, 0, 2]}, r"needs at least one image per class"),
        ({"teacher": Teacher(ModelPart("mobilenet_v2"))}, {}, r"distillation needs both"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, named: dict, message: str):
    model = network(classes=named.pop("model", 3))
    if named.pop("headless", False):
        pixels = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(3, 3, name="conv")(pixels)
        model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D(name="pool")(x))
    with pytest.raises(InputError, match=message):
        fit(model, batches(), quick(**settings), **named)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adam"}, r"unknown Fit.optimizer.*adam"),
        ({"schedule": "linear"}, r"unknown Fit.schedule"),
        ({"precision": "int8"}, r"unknown Fit.precision"),
        ({"learning_rate": 0.0}, r"Fit.learning_rate must be above 0"),
        ({"epochs": 0}, r"Fit.epochs must be at least 1"),
        ({"momentum": 1.0}, r"Fit.momentum must be at least 0 and under 1"),
        ({"ema": 1.5}, r"Fit.ema must be at least 0 and under 1"),
        ({"schedule": "plateau", "warmup_epochs": 1.0}, r"warmup_epochs must be 0 with the schedule plateau"),
        ({"balance": "weights"}, r"unknown Fit.balance"),
        ({"phases": (3,)}, r"Fit.phases must be"),
        ({"clip_norm": 0.0}, r"Fit.clip_norm must be above 0"),
    ],
)
def test_invalid_fields_are_refused(fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        Fit(**fields)


# --- many devices -----------------------------------------------------------------------------------------------------

DISTRIBUTED = """
import os, sys
HIDDEN = os.environ.get("HIDDEN")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == HIDDEN:
            raise ImportError(name + " is hidden")
sys.meta_path.insert(0, Block())
if os.environ.get("DEVICES"):
    import tensorflow as tf
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one, one])
import keras, json
import numpy as np
from edge_cv.training.devices import join_hosts
join_hosts()
from edge_cv.data.input_pipeline.batches import array_batches
from edge_cv.recipe import Fit
from edge_cv.training import fit
hosts = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1"))
index = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0"))
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (64, 8, 8, 3)).astype("uint8"), rng.integers(0, 3, 64)
keras.utils.set_random_seed(0)
L = keras.layers
model = keras.Sequential([
    keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Conv2D(8, 3, use_bias=False),
    L.BatchNormalization(synchronized=keras.backend.backend() == "tensorflow"), L.ReLU(), L.GlobalAveragePooling2D(),
    L.Dense(3)])
batches = array_batches(images, labels, classes=tuple("abc"), batch_size=16 // hosts, seed=0, shard_index=index,
                        shard_count=hosts)
validation = list(array_batches(images, labels, classes=tuple("abc"), batch_size=24, seed=0).epoch(0))
fitted = fit(model, batches, Fit(epochs=3, batch_size=16, learning_rate=0.1), validation=validation, folder=sys.argv[1])
np.savez(sys.argv[2], *model.get_weights(), losses=[entry["loss"] for entry in fitted.history])
"""


def trained_in_processes(tmp_path, name: str, environments: list[dict[str, str]]) -> list[dict[str, np.ndarray]]:
    """The final weights of each process of a common training."""
    files = [tmp_path / f"{name}{i}.npz" for i in range(len(environments))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(tmp_path / name), str(file)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
            stderr=subprocess.PIPE,
        )
        for environment, file in zip(environments, files, strict=True)
    ]
    for process in processes:
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages.decode()[-3000:]
    return [dict(np.load(file)) for file in files]


def free_addresses(count: int) -> str:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    return addresses


@pytest.mark.slow
def test_two_hosts_on_jax_reach_the_weights_of_one_with_twice_the_batch_without_tensorflow(tmp_path):
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "HIDDEN": "tensorflow"}
    together = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": free_addresses(2), "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    (one,) = trained_in_processes(tmp_path, "one", [jax])
    hosts = [jax | together | {"KERAS_DISTRIBUTION_PROCESS_ID": str(i)} for i in range(2)]
    for two in trained_in_processes(tmp_path, "two", hosts):
        assert len(one) == len(two) == 8
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_devices_on_tensorflow_reach_the_weights_of_one(tmp_path):
    (one,) = trained_in_processes(tmp_path, "one", [{"KERAS_BACKEND": "tensorflow"}])
    (two,) = trained_in_processes(tmp_path, "two", [{"KERAS_BACKEND": "tensorflow", "DEVICES": "2"}])
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-4)


def test_several_hosts_on_tensorflow_are_refused(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(InputError, match=r"needs KERAS_BACKEND=jax. Received: tensorflow"):
        join_hosts.__wrapped__()
