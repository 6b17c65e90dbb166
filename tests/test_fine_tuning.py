from __future__ import annotations

import contextlib
import itertools
import re

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.compression.compression_stages import compress
from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.tf_keras_bridge import clone
from edge_cv.recipe import ChannelPrune, FineTuning, Prune, Qat, WeightClustering


@pytest.fixture(scope="module")
def small_classifier(digits):
    """Two convolutions, trained on the digits. It compiles faster than `digits_model`."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    for width in (16, 48):
        x = layers.Conv2D(width, 3, strides=2, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    model = keras.Model(image, layers.Dense(10, name="logits")(x))
    fine_tune(model, digits[0], FineTuning(epochs=3, learning_rate=5e-3, freeze_statistics=False))
    return model


class Stopped(Exception):
    """Simulates the end of the process."""


def test_an_interrupted_training_resumes_to_the_same_weights(digits, small_classifier, tmp_path):
    batches, tuning = digits[0], FineTuning(epochs=3, learning_rate=1e-3, distillation=0.3)
    whole = clone(small_classifier)
    fine_tune(whole, batches, tuning, teacher=small_classifier)

    def stop(epoch: int) -> bool:
        if epoch == 2:
            raise Stopped
        return False

    checkpoint = tmp_path / "state.npz"
    stopped, resumed = clone(small_classifier), clone(small_classifier)
    with pytest.raises(Stopped):
        fine_tune(stopped, batches, tuning, teacher=small_classifier, before_epoch=stop, checkpoint=checkpoint)
    assert checkpoint.is_file()
    steps = []
    fine_tune(
        resumed,
        batches,
        tuning,
        teacher=small_classifier,
        callbacks=[counting(steps)],
        checkpoint=checkpoint,
    )
    assert len(steps) == len(batches)  # one of three epochs
    assert not checkpoint.exists()
    for expected, weight in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_every_stage_reaches_the_same_weights_again(digits, small_classifier, tmp_path):
    once = FineTuning(epochs=1, learning_rate=1e-3)
    stages = {
        "channel_prune": ChannelPrune(0.7, fine_tuning=once),
        "prune": Prune(0.5, fine_tuning=once),
        "cluster": WeightClustering(16, fine_tuning=once),
        "qat": Qat(fine_tuning=once),
    }
    first, second = (compress(small_classifier, digits[0], tmp_path / name, **stages) for name in "ab")
    for one, other in zip(first, second, strict=True):
        for expected, weight in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected, err_msg=one.name)


class Stopping:
    """Batches that end the process at an epoch."""

    def __init__(self, batches, epoch: int) -> None:
        self.batches, self.at = batches, epoch
        self.classes, self.batch_size, self.multi_label = batches.classes, batches.batch_size, batches.multi_label

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, first_step: int = 0):
        if number == self.at:
            raise Stopped
        return self.batches.epoch(number, first_step)


@pytest.mark.slow
def test_a_stage_that_stopped_does_not_resume_with_other_settings(digits, small_classifier, tmp_path):
    stopped, wanted = (ChannelPrune(0.7, fine_tuning=FineTuning(epochs=3, learning_rate=rate)) for rate in (1e-2, 1e-3))
    with pytest.raises(Exception):  # noqa: B017, PT011  what TensorFlow makes of an error in a generator
        compress(small_classifier, Stopping(digits[0], 1), tmp_path / "stopped", channel_prune=stopped)
    assert len(list((tmp_path / "stopped").glob("*.checkpoint.npz"))) == 1
    models = [
        compress(small_classifier, digits[0], tmp_path / name, channel_prune=wanted)[0].model
        for name in ("stopped", "whole")
    ]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.glob("*/*.checkpoint.npz"))


@pytest.mark.slow
def test_a_layer_that_draws_does_the_same_after_an_interruption(digits, small_classifier, tmp_path):
    import keras

    def augmented() -> keras.Model:
        image = keras.Input((16, 16, 3))
        return keras.Model(image, clone(small_classifier)(keras.layers.RandomTranslation(0.1, 0.1, seed=4)(image)))

    tuning = FineTuning(epochs=3, learning_rate=1e-3)
    whole, stopped, resumed = augmented(), augmented(), augmented()
    fine_tune(whole, digits[0], tuning)
    with pytest.raises(Exception):  # noqa: B017, PT011  what TensorFlow makes of an error in a generator
        fine_tune(stopped, Stopping(digits[0], 2), tuning, checkpoint=tmp_path / "state.npz")
    fine_tune(resumed, digits[0], tuning, checkpoint=tmp_path / "state.npz")
    for expected, weight in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def counting(steps):
    import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))


def test_distillation_without_labels_reproduces_the_teachers_predictions(digits, small_classifier):
    batches, images, _ = digits
    student = clone(small_classifier)
    layer = student.get_layer("logits")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    fine_tune(student, batches, FineTuning(epochs=3, learning_rate=1e-2, distillation=1.0), teacher=small_classifier)
    predictions = [np.asarray(m(images.astype(np.float32))).argmax(1) for m in (small_classifier, student)]
    assert np.mean(predictions[0] == predictions[1]) > 0.95


@pytest.mark.slow
def test_a_model_with_probabilities_learns_like_one_with_logits(digits, small_classifier):
    import keras

    softened = keras.Model(
        small_classifier.inputs, keras.layers.Softmax()(clone(small_classifier)(small_classifier.inputs[0]))
    )
    plain = clone(small_classifier)
    for model in (plain, softened):
        fine_tune(model, digits[0], FineTuning(epochs=1, learning_rate=1e-3), teacher=small_classifier)
    images = digits[1].astype(np.float32)
    logits, probabilities = (np.asarray(m(images, training=False)) for m in (plain, softened))
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, expected / expected.sum(1, keepdims=True), atol=0.02)


def test_updated_statistics_are_the_means_over_the_batches(digits):
    import keras

    image = keras.Input((16, 16, 3))
    layer = keras.layers.BatchNormalization()
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(layer(image))))
    layer.set_weights([*layer.get_weights()[:2], np.full(3, 1e6), np.full(3, 1e6)])
    update_statistics(model, digits[0])
    images = [np.asarray(images, np.float64) for images, _ in digits[0].epoch(0)]
    np.testing.assert_allclose(layer.moving_mean, np.mean([i.mean((0, 1, 2)) for i in images], 0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, np.mean([i.var((0, 1, 2)) for i in images], 0), rtol=1e-3)
    assert layer.momentum == 0.99


def test_other_classes_and_a_loss_that_is_not_finite_are_refused(digits, small_classifier):
    import keras

    image = keras.Input((16, 16, 3))
    other = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(image)))
    with pytest.raises(InputError, match=r"as many classes as the model, 7. Received: 10"):
        fine_tune(other, digits[0], FineTuning(epochs=1))
    broken = clone(small_classifier)
    broken.get_layer("logits").set_weights([np.full_like(w, np.nan) for w in broken.get_layer("logits").get_weights()])
    with pytest.raises(InputError, match="loss must stay finite"):
        fine_tune(broken, digits[0], FineTuning(epochs=1, distillation=0.0))


def test_the_model_keeps_its_momentum_and_can_be_saved(digits, small_classifier, tmp_path):
    import keras

    model = clone(small_classifier)
    fine_tune(model, digits[0], FineTuning(epochs=1))
    normalizations = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    assert [layer.momentum for layer in normalizations] == [0.99, 0.99]
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras")


def test_a_training_of_some_steps_ends_within_an_epoch_and_tells_the_time_that_remains(digits, small_classifier):
    steps, notes = [], []

    @contextlib.contextmanager
    def progress(title):
        yield lambda done, total, note="": notes.append((done, total, note))

    count = len(digits[0]) + 5
    options = {"callbacks": [counting(steps)], "progress": progress}
    fine_tune(clone(small_classifier), digits[0], FineTuning(steps=count), **options)
    assert len(steps) == count == len(notes)
    assert notes[-1] == (count, count, "")
    assert re.fullmatch(r"\d+ (s|min) left", notes[4][2])


class FewBatches:
    """The first two batches of the digits, as a small set has them."""

    def __init__(self, batches):
        self.batches, self.classes, self.multi_label = batches, batches.classes, batches.multi_label
        self.epochs = []

    def __len__(self):
        return 2

    def epoch(self, number, first_step=0):
        self.epochs.append(number)
        yield from itertools.islice(self.batches.epoch(number), 2)


def test_short_epochs_are_trained_in_rounds_each_with_its_own_images(digits, small_classifier):
    few, asked, steps = FewBatches(digits[0]), [], []
    fine_tune(
        clone(small_classifier),
        few,
        FineTuning(epochs=15),
        before_epoch=lambda epoch: bool(asked.append(epoch)),
        callbacks=[counting(steps)],
    )
    assert asked == few.epochs == list(range(15))
    assert len(steps) == 30


def test_frozen_statistics_stay_while_scales_and_offsets_are_trained(digits, small_classifier):
    frozen, trained = clone(small_classifier), clone(small_classifier)
    fine_tune(frozen, digits[0], FineTuning(steps=10))
    fine_tune(trained, digits[0], FineTuning(steps=10, freeze_statistics=False))
    for before, kept, changed in zip(
        *(map(weights_of_normalization, (small_classifier, frozen, trained))), strict=True
    ):
        np.testing.assert_array_equal(kept[2:], before[2:])
        assert np.abs(kept[:2] - before[:2]).max() > 1e-4
        assert np.abs(changed[2:] - before[2:]).max() > 1e-4
    outputs = [np.asarray(frozen(digits[1][:8].astype(np.float32), training=mode)) for mode in (True, False)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3  # afterwards the layers normalize a batch again in training


def weights_of_normalization(model):
    layers = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    return [np.stack(layer.get_weights()) for layer in layers]
