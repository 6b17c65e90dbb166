from __future__ import annotations

import contextlib
import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from converters import to_tflite
from converters.errors import InputError
from converters.schemes import Int8FromQat
from converters.tflite.runtime import predict
from edge_cv.compression.clustering import cluster
from edge_cv.compression.compression_stages import compress
from edge_cv.compression.fine_tuning import Rounds, _short_training, fine_tune, update_statistics
from edge_cv.compression.keras_graph import clone
from edge_cv.compression.pruning import prune, sparsity
from edge_cv.compression.qat import quantization_aware
from edge_cv.recipe import ChannelPrune, FineTuning, Prune, Qat, WeightClustering
from edge_cv.training import loop
from edge_cv.training.callbacks import StepCallback


@pytest.fixture(autouse=True)
def checkpoint_of_every_epoch(monkeypatch):
    """The epochs here are too short to have one each."""
    monkeypatch.setattr(loop, "SHORT_EPOCHS_SECONDS", 0.0)


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


class StoppingAt(StepCallback):
    """Ends the process before a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.at = step

    def on_step(self) -> None:
        if self.step == self.at:
            raise Stopped


def stopped(train, folder, step: int) -> None:
    """Train until the process ends at a step."""
    with pytest.raises(InputError, match="Stopped"):
        train(folder=folder, callbacks=[StoppingAt(step)])
    assert (folder / "checkpoint.npz").is_file()


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_weights(digits, small_classifier, tmp_path):
    batches, tuning = digits[0], FineTuning(epochs=3, learning_rate=1e-3, distillation=0.3)
    whole, resumed, steps = clone(small_classifier), clone(small_classifier), []
    fine_tune(whole, batches, tuning, teacher=small_classifier)
    train = functools.partial(fine_tune, teacher=small_classifier)
    stopped(functools.partial(train, clone(small_classifier), batches, tuning), tmp_path, 2 * len(batches) + 1)
    train(resumed, batches, tuning, callbacks=[counting(steps)], folder=tmp_path)
    assert len(steps) == len(batches)  # one of three epochs
    for expected, weight in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [Prune(0.75), Prune(0.5, "constant", pattern="2:4"), WeightClustering(8), Qat()],
    ids=["prune", "2:4", "cluster", "qat"],
)
def test_an_interrupted_stage_resumes_to_the_same_weights(digits, small_classifier, tmp_path, part):
    part = dataclasses.replace(part, fine_tuning=FineTuning(epochs=2, learning_rate=1e-3))
    compressor = {Prune: prune, WeightClustering: cluster, Qat: quantization_aware}[type(part)]
    whole = compressor(small_classifier, part, digits[0])
    with pytest.raises(InputError, match="Stopped"):
        compressor(small_classifier, part, Stopping(digits[0], 1), folder=tmp_path)
    assert (tmp_path / "checkpoint.npz").is_file()
    resumed = compressor(small_classifier, part, digits[0], folder=tmp_path)
    models = [made if hasattr(made, "get_weights") else made.model for made in (whole, resumed)]
    for expected, weight in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.slow
def test_stages_in_a_row_reach_the_same_weights_again(digits, small_classifier, tmp_path):
    short = FineTuning(steps=6, learning_rate=1e-3)
    stages = {"channel_prune": ChannelPrune(0.7, fine_tuning=short), "qat": Qat(fine_tuning=short)}
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
    stopped, wanted = (  # an importance that reads no images: the training is what stops
        ChannelPrune(0.7, importance="l1", fine_tuning=FineTuning(epochs=3, learning_rate=rate))
        for rate in (1e-2, 1e-3)
    )
    with pytest.raises(InputError, match="Stopped"):
        compress(small_classifier, Stopping(digits[0], 1), tmp_path / "stopped", channel_prune=stopped)
    assert len(list((tmp_path / "stopped").glob("*.training"))) == 1
    models = [
        compress(small_classifier, digits[0], tmp_path / name, channel_prune=wanted)[0].model
        for name in ("stopped", "whole")
    ]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(tmp_path.glob("*/*.training"))


@pytest.mark.slow
def test_a_layer_that_draws_does_the_same_after_an_interruption(digits, small_classifier, tmp_path):
    import keras

    def augmented() -> keras.Model:
        image = keras.Input((16, 16, 3))
        return keras.Model(image, clone(small_classifier)(keras.layers.RandomTranslation(0.1, 0.1, seed=4)(image)))

    tuning = FineTuning(epochs=3, learning_rate=1e-3)
    whole, stopped, resumed = augmented(), augmented(), augmented()
    fine_tune(whole, digits[0], tuning)
    with pytest.raises(InputError, match="Stopped"):
        fine_tune(stopped, Stopping(digits[0], 2), tuning, folder=tmp_path)
    fine_tune(resumed, digits[0], tuning, folder=tmp_path)
    for expected, weight in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def counting(steps):
    import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_model_keeps_its_momentum_and_can_be_saved(digits, small_classifier, tmp_path):
    import keras

    model = clone(small_classifier)
    fine_tune(model, digits[0], FineTuning(epochs=1))
    normalizations = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    assert [layer.momentum for layer in normalizations] == [0.99, 0.99]
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras")


def test_an_epoch_that_is_repeated_after_an_error_leaves_the_momentum_as_it_was(small_classifier):
    model = clone(small_classifier)
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    before = [layer.momentum for layer in norms]
    behaviour = _short_training(10, FineTuning(steps=10, freeze_statistics=False))
    behaviour.set_model(SimpleNamespace(network=model))
    behaviour.on_train_begin()
    assert all(layer.momentum == 0 for layer in norms)
    behaviour.on_train_begin()  # without `on_train_end`
    behaviour.on_train_end()
    assert [layer.momentum for layer in norms] == before


def test_a_training_of_some_steps_ends_within_an_epoch_and_tells_the_time_that_remains(digits, small_classifier):
    steps, titles, notes = [], [], []

    @contextlib.contextmanager
    def progress(title):
        titles.append(title)
        yield lambda done, total, note="": notes.append(note)

    count = len(digits[0]) + 5
    fine_tune(
        clone(small_classifier), digits[0], FineTuning(steps=count), callbacks=[counting(steps)], progress=progress
    )
    assert len(steps) == count
    assert titles[0] == "fine-tuning, round 1 of 1"
    assert "images/s" in notes[-2]


@pytest.mark.parametrize(("length", "total"), [(2, 30), (22, 27), (22, 66), (7, 3), (30, 100)])
def test_rounds_have_the_batches_of_the_epochs_in_order_from_any_step(length, total):
    class Numbered:
        classes, batch_size, multi_label = ("a", "b"), 1, False

        def __len__(self):
            return length

        def epoch(self, number, first_step=0):
            return ((number, step) for step in range(first_step, length))

    rounds = Rounds(Numbered(), total)
    every = [batch for number in range(rounds.count) for batch in rounds.epoch(number)]
    assert every == [divmod(step, length) for step in range(len(every))]
    assert total <= len(every) < total + rounds.count
    assert len(rounds) >= min(total, max(length, 20))
    assert list(rounds.epoch(0, 2)) == every[2 : len(rounds)]


def test_rounds_mix_images_and_their_targets_by_the_same_shares_from_any_step():
    images = np.arange(4 * 3, dtype=np.uint8).reshape(4, 1, 1, 3) * 20
    targets = images.reshape(4, 3).astype(np.float32)  # which the mixed images must equal

    class Equal:
        classes, batch_size, multi_label = ("a", "b", "c"), 4, False

        def __len__(self):
            return 8

        def epoch(self, number, first_step=0):
            return ((images, targets) for _ in range(first_step, len(self)))

    rounds = Rounds(Equal(), 8, mixup=1.0)
    mixed = list(rounds.epoch(0))
    for pixels, classes in mixed:
        np.testing.assert_allclose(pixels.reshape(4, 3), classes, rtol=1e-5)
        kept = (classes[:, 0] - targets[::-1, 0]) / (targets[:, 0] - targets[::-1, 0])
        assert ((kept >= 0) & (kept <= 1)).all()
    shares = np.stack([classes for _, classes in mixed])
    assert np.abs(shares[1:] - shares[0]).max() > 20  # other shares at each step
    for (pixels, _), (resumed, _) in zip(mixed[5:], rounds.epoch(0, 5), strict=True):
        np.testing.assert_array_equal(pixels, resumed)


@pytest.mark.slow
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


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_the_averaged_weights_of_a_pruned_model_are_as_sparse_and_nearly_as_good(digits, small_classifier, precision):
    batches, images, labels = digits
    tuning = FineTuning(steps=40, ema=0.8, precision=precision)
    part = Prune(0.5, "polynomial", allocation="uniform", fine_tuning=tuning)
    pruned = prune(small_classifier, part, batches)
    assert sparsity(pruned)["logits"] == pytest.approx(0.5, abs=0.01)
    dense, averaged = (
        np.mean(model.predict(images, verbose=0).argmax(1) == labels) for model in (small_classifier, pruned)
    )
    assert averaged >= dense - 0.03
    assert {str(variable.dtype) for variable in pruned.trainable_variables} == {"float32"}


@pytest.mark.slow
def test_quantization_aware_training_rounds_in_float32_where_the_network_computes_in_bfloat16(digits, small_classifier):
    batches, images, _ = digits
    tuning = FineTuning(steps=20, learning_rate=1e-4, precision="bfloat16")
    trained = quantization_aware(small_classifier, Qat(fine_tuning=tuning), batches)
    conversion = to_tflite(trained.model, Int8FromQat(trained.ranges), calibration=images[:50])
    outputs = predict(conversion.content, images, pixel_offset=-128)
    assert np.mean(outputs.argmax(1) == trained.predict(images).argmax(1)) >= 0.99
