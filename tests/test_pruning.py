from __future__ import annotations

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.compression.pruning import (
    PruningCallback,
    magnitude_mask,
    prunable,
    prune,
    scheduled_sparsity,
    sparsity,
    total_sparsity,
)
from edge_cv.recipe import FineTuning, Prune


def accuracy(model, images, labels):
    return np.mean(np.asarray(model(images.astype(np.float32), training=False)).argmax(1) == labels)


@pytest.mark.slow
def test_three_quarters_of_the_weights_become_zero_and_the_accuracy_is_kept(digits, digits_model):
    batches, images, labels = digits
    before = [weight.copy() for weight in digits_model.get_weights()]
    part = Prune(
        0.75,
        allocation="uniform",
        exclude=("logits",),
        fine_tuning=FineTuning(epochs=4, learning_rate=5e-3, freeze_statistics=False),
    )
    pruned = prune(digits_model, part, batches)
    shares = sparsity(pruned)
    assert shares.pop("logits") == 0
    assert all(share == pytest.approx(0.75, abs=0.03) for share in shares.values())
    assert accuracy(pruned, images, labels) >= accuracy(digits_model, images, labels) - 0.05
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in digits_model.layers]
    for after, original in zip(digits_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, original)


@pytest.mark.slow
def test_two_of_four_neighbours_along_the_input_channels_are_zero(digits, digits_model):
    part = Prune(0.5, "constant", pattern="2:4", fine_tuning=FineTuning(epochs=1))
    pruned = prune(digits_model, part, digits[0])
    kernel = np.asarray(pruned.get_layer("project_conv").kernel)[0, 0]
    zeros = (kernel.reshape(-1, 4, kernel.shape[-1]) == 0).sum(1)
    assert (zeros >= 2).all()
    assert total_sparsity(pruned) == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_a_constant_schedule_prunes_from_its_beginning(digits, digits_model):
    part = Prune(0.6, "constant", begin_epoch=0.5, end_epoch=1.0, fine_tuning=FineTuning(epochs=1, distillation=0.0))
    assert total_sparsity(prune(digits_model, part, digits[0])) == pytest.approx(0.6, abs=0.03)


@pytest.mark.slow
def test_with_a_single_step_of_fine_tuning_reconstruction_keeps_more_accuracy(digits, digits_model):
    batches, images, labels = digits
    one_step = FineTuning(steps=1, learning_rate=1e-5)
    found = {}
    for schedule in (None, "one_shot", "constant"):
        pruned = prune(digits_model, Prune(0.75, schedule, fine_tuning=one_step), batches)
        assert total_sparsity(pruned) == pytest.approx(0.75, abs=0.01)
        found[schedule] = accuracy(pruned, images, labels)
    assert found[None] == found["one_shot"] >= found["constant"] + 0.1


def test_pruning_at_once_takes_no_schedule():
    for part in ({"begin_epoch": 1.0}, {"engine": "tfmot"}):
        assert not Prune(**part).at_once
        with pytest.raises(InputError, match="one_shot"):
            Prune(schedule="one_shot", **part)
    with pytest.raises(InputError, match="polynomial or constant"):
        PruningCallback(Prune(schedule="one_shot"))


def test_impossible_pruning_is_refused_before_any_training(digits, digits_network):
    import keras

    with pytest.raises(InputError, match="exclude must name"):
        prunable(digits_network, ("nothing",))
    with pytest.raises(InputError, match="leave at least one layer"):
        prunable(digits_network, ("*",))
    image = keras.Input((16, 16, 3))
    with pytest.raises(InputError, match="must have convolutions or dense"):
        prune(keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)), Prune(), digits[0])


@pytest.mark.parametrize("sparsity_", [0.3, 0.5, 0.87])
def test_masks_equal_tfmots_on_the_same_weights(sparsity_):
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_schedule

    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)
    schedule = pruning_schedule.ConstantSparsity(sparsity_, 0, frequency=1)
    theirs = pruning_impl.Pruning(lambda: tf.constant(0, tf.int64), [], schedule, (1, 1), "AVG")
    _, mask = theirs._update_mask(tf.constant(weights))
    np.testing.assert_array_equal(magnitude_mask(weights, sparsity_, "any"), mask)


def test_masks_of_two_in_four_equal_tfmots_on_the_same_weights():
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_utils

    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)
    rows = weights.transpose(0, 1, 3, 2).reshape(-1, 8)  # tfmot's blocks lie along the last axis
    mask = np.asarray(magnitude_mask(weights, 0.5, "2:4")).transpose(0, 1, 3, 2).reshape(-1, 8)
    np.testing.assert_array_equal(mask, pruning_utils.generate_m_by_n_mask(rows))


@pytest.mark.parametrize(("begin", "end"), [(0, 40), (5, 300), (7, 8)])
def test_the_schedule_equals_tfmots(begin, end):
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule

    part = Prune(0.75)
    every = max(1, (end - begin) // 50)
    theirs = pruning_schedule.PolynomialDecay(0.0, 0.75, begin, begin + (end - begin) // every * every, frequency=every)
    for step in range(end + 3):
        due, share = theirs(step)
        ours = scheduled_sparsity(part, begin, end, step)
        assert (ours is not None) == bool(due), step
        assert ours is None or ours == pytest.approx(float(share), abs=1e-6)


def test_pruning_without_images_is_done_at_once(digits_network):
    pruned = prune(digits_network, Prune(0.6))
    assert total_sparsity(pruned) == pytest.approx(0.6, abs=0.01)
    assert total_sparsity(digits_network) == 0
    kept = np.asarray(pruned.get_layer("head_conv").kernel) != 0
    before = np.asarray(digits_network.get_layer("head_conv").kernel)
    assert np.abs(before[kept]).min() > np.abs(before[~kept]).max()


def test_zeros_are_divided_between_layers_by_the_scores_of_the_paper(digits_network):
    pruned = prune(digits_network, Prune(0.6, allocation="lamp"))
    assert total_sparsity(pruned) == pytest.approx(0.6, abs=0.01)
    scores = {}
    for name in sparsity(digits_network):
        before = np.asarray(digits_network.get_layer(name).kernel)
        after = np.asarray(pruned.get_layer(name).kernel)
        squares = np.sort(np.square(before.astype(float)).reshape(-1))
        score = [square / squares[place:].sum() for place, square in enumerate(squares)]  # equation 2
        zeros = int((after == 0).sum())
        assert np.abs(before[after == 0]).max(initial=0) <= np.abs(before[after != 0]).min()
        scores[name] = max(score[:zeros], default=0.0), score[zeros]
    assert max(removed for removed, _ in scores.values()) <= min(kept for _, kept in scores.values())
    assert len({round(share, 3) for share in sparsity(pruned).values()}) > 1


def test_the_callback_prunes_in_a_training_of_ones_own(digits):
    import keras
    from keras import layers

    batches, _, _ = digits
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16, 16, 3)), layers.Rescaling(1 / 255), layers.Flatten()])
    model.add(layers.Dense(32, activation="relu", name="hidden"))
    model.add(layers.Dense(10, name="logits"))
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    callback = PruningCallback(Prune(0.8, exclude=("logits",)))
    images = batches.images.astype(np.float32)
    model.fit(images, batches.targets, batch_size=64, epochs=3, verbose=0, callbacks=[callback])
    assert sparsity(model) == {"hidden": pytest.approx(0.8, abs=1e-3), "logits": 0.0}
    unknown = ((images[:8], batches.targets[:8]) for _ in range(2))
    with pytest.raises(InputError, match="number of steps"):
        model.fit(unknown, verbose=0, callbacks=[PruningCallback(Prune(0.8))])
