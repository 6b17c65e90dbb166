from __future__ import annotations

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.compression.pruning import prunable, prune, sparsity, total_sparsity
from edge_cv.recipe import FineTuning, Prune


def accuracy(model, images, labels):
    return np.mean(np.asarray(model(images.astype(np.float32), training=False)).argmax(1) == labels)


@pytest.mark.slow
def test_three_quarters_of_the_weights_become_zero_and_the_accuracy_is_kept(digits, digits_model):
    batches, images, labels = digits
    before = [weight.copy() for weight in digits_model.get_weights()]
    part = Prune(
        0.75, exclude=("logits",), fine_tuning=FineTuning(epochs=4, learning_rate=5e-3, freeze_statistics=False)
    )
    pruned = prune(digits_model, part, batches)
    shares = sparsity(pruned)
    assert shares.pop("logits") == 0
    assert all(share == pytest.approx(0.75, abs=0.03) for share in shares.values())
    assert accuracy(pruned, images, labels) >= accuracy(digits_model, images, labels) - 0.05
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in digits_model.layers]
    for after, original in zip(digits_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(after, original)


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


def test_impossible_pruning_is_refused_before_any_training(digits, digits_model):
    import keras

    with pytest.raises(InputError, match="exclude must name"):
        prunable(digits_model, ("nothing",))
    with pytest.raises(InputError, match="leave at least one layer"):
        prunable(digits_model, ("*",))
    image = keras.Input((16, 16, 3))
    with pytest.raises(InputError, match="must have convolutions or dense"):
        prune(keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)), Prune(), digits[0])
