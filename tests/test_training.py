"""The training loop: its results, averages, precision, phases, teachers and errors."""

from __future__ import annotations

import csv
import dataclasses

import keras
import numpy as np
import pytest
from tiny_training import CLASSES, Breaking, assert_equal, batches, coloured, network, quick, weights

from converters.errors import InputError
from edge_cv.data.input_pipeline.batches import Batches, array_batches
from edge_cv.recipe import Fit, Phase, Teacher
from edge_cv.recipe import Model as ModelPart
from edge_cv.training import fit
from edge_cv.training.checkpoint import load
from edge_cv.training.layers import network_layers, precision, trainable_layers
from edge_cv.training.optimizers import optimizer
from edge_cv.training.training_model import TrainingModel, loss_and_metrics

# --- results ----------------------------------------------------------------------------------------------------------


def test_learns_what_can_be_learned_and_keeps_the_best_epoch(tmp_path):
    model = network()
    fitted = fit(
        model, batches(), quick(epochs=12, learning_rate=0.3), validation=list(batches(16).epoch(0)), folder=tmp_path
    )
    scores = [entry["validation_score"] for entry in fitted.history]
    assert fitted.score == max(scores) > 0.9
    assert scores[fitted.best_epoch - 1] == fitted.score
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


@pytest.mark.slow
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


# --- averages, precision, phases, teachers ----------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_mixed_precision_computes_low_keeps_float32_weights_and_learns(name: str):
    model = network()
    with precision(model, name):
        assert model.get_layer("stem_conv").compute_dtype == name
        assert model.get_layer("logits").compute_dtype == "float32"
    fitted = fit(model, batches(), quick(epochs=12, learning_rate=0.1, precision=name))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.get_layer("stem_conv").compute_dtype == "float32"
    assert fitted.history[-1]["score"] > 0.8


@pytest.mark.slow
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


@pytest.mark.slow
def test_frozen_batch_norm_keeps_its_statistics():
    model = network()
    norm = model.get_layer("stem_bn")
    before = [w.numpy().copy() for w in norm.weights]
    fit(model, batches(), quick(freeze_batch_norm=True))
    for old, new in zip(before, norm.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.slow
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


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_distance_from_the_teacher_is_the_divergence_of_softened_probabilities_and_the_error_of_features(weight: float):
    student, teacher = network(seed=1), network(seed=2)
    teaching = Teacher(ModelPart("mobilenet_v2"), share=0.25, temperature=4.0, features=weight)
    model = TrainingModel(student, multi_label=False, teacher=teacher, distillation=teaching)
    model.compile(optimizer="sgd", jit_compile=False, **loss_and_metrics(False, 3))
    images, targets = next(iter(batches(batch_size=16).epoch(0)))
    logits, taught = student(images, training=True).numpy(), teacher(images).numpy()

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    p, q = log_softmax(taught / 4), log_softmax(logits / 4)
    wanted = 0.75 * -(targets * log_softmax(logits)).sum(1).mean() + 0.25 * 16 * (np.exp(p) * (p - q)).sum(1).mean()
    own, others = (
        keras.Model(one.inputs, one.layers[-1].input)(images, training=one is student).numpy()
        for one in (student, teacher)
    )
    wanted += weight * np.square(own - others).sum() / np.square(others).sum()
    assert len(model.trainable_variables) == len(student.trainable_variables)
    loss = model.compute_loss(images, targets, model(images, training=True), training=True)
    assert float(loss) == pytest.approx(wanted, rel=1e-4)


def test_features_of_different_lengths_are_not_compared():
    student, teacher = (
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(n), keras.layers.Dense(3)])
        for n in (4, 5)
    )
    teaching = Teacher(ModelPart("mobilenet_v2"), features=1.0)
    model = TrainingModel(student, multi_label=False, teacher=teacher, distillation=teaching)
    model(np.zeros((2, 8, 8, 3), np.float32), training=True)
    assert model.losses == []


def several_labels() -> Batches:
    """Images of one to two labels each."""
    images, labels = coloured()
    several = np.stack([labels == 0, labels != 2, labels == 2], axis=1).astype(np.int32)
    return array_batches(images, several, classes=CLASSES, batch_size=8, seed=0)


@pytest.mark.slow
def test_several_labels_per_image_are_learned_by_their_average_precision():
    every = several_labels()
    fitted = fit(network(), every, quick(epochs=12, learning_rate=0.5), validation=list(every.epoch(0)))
    assert fitted.score > 0.95


def test_several_labels_per_image_use_binary_cross_entropy():
    every = several_labels()
    model = TrainingModel(network(), multi_label=True)
    model.compile(optimizer="sgd", jit_compile=False, **loss_and_metrics(True, 3))
    pixels, targets = next(iter(every.epoch(0)))
    logits = model(pixels, training=False).numpy()
    wanted = (np.logaddexp(0, logits) - targets * logits).mean()
    assert float(model.compute_loss(pixels, targets, logits)) == pytest.approx(wanted, rel=1e-4)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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
