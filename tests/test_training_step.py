"""One step of training against its formula, and the learning rate of each step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny_training import CLASSES, assert_equal, batches, coloured, network, quick, weights

from edge_cv.data.input_pipeline.batches import array_batches
from edge_cv.recipe import Fit, Teacher
from edge_cv.recipe import Model as ModelPart
from edge_cv.training import fit
from edge_cv.training.optimizers import schedule


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


def test_the_l2_penalty_is_whole_beside_a_teacher():
    """A student that has its teacher's weights feels no pull from it: the penalty alone moves the kernels."""
    model, teacher = network(batch_norm=False), network(batch_norm=False)
    before = weights(model)
    teaching = Teacher(ModelPart("mobilenet_v2"), share=1.0)
    settings = quick(epochs=1, schedule="constant", weight_decay=0.01, batch_size=48, teacher=teaching)
    fit(model, batches(batch_size=48), settings, teacher=teacher)
    for new, old in zip(weights(model), before, strict=True):
        np.testing.assert_allclose(new, old * (1 - 0.1 * 0.01) if old.ndim > 1 else old, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_plateau_lowers_the_rate_without_improvement(tmp_path):
    model = network()
    logits = model.get_layer("logits")
    logits.set_weights([np.zeros_like(w) for w in logits.get_weights()])
    settings = quick(epochs=5, schedule="plateau", learning_rate=1e-12, decay_epochs=1, decay_rate=0.5)
    fitted = fit(model, batches(), settings, validation=list(batches(48).epoch(0)), folder=tmp_path)
    found = [entry["learning_rate"] for entry in fitted.history]
    np.testing.assert_allclose(found, [1e-12, 1e-12, 5e-13, 2.5e-13, 1.25e-13], rtol=1e-5)


@pytest.mark.slow
def test_early_stopping_ends_after_epochs_without_improvement():
    settings = quick(epochs=50, learning_rate=1e-12, early_stopping=3)
    fitted = fit(network(), batches(24), settings, validation=list(batches(48).epoch(0)))
    assert len(fitted.history) == 4
