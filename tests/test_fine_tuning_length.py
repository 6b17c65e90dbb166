"""The length of fine-tuning after compression: by what is asked, the size of the set, and what the user says."""

from __future__ import annotations

import dataclasses

import pytest

from converters.errors import InputError
from edge_cv.cli.options import fine_tuned
from edge_cv.recipe import ChannelPrune, FineTuning, Prune, Qat, WeightClustering
from edge_cv.recipe.compression import EPOCHS, MOST_EPOCHS, RECOVERY_EPOCHS

SMALL, LARGE = 10, 40_000  # steps an epoch: 300 photos, ImageNet


def test_zeros_that_come_during_the_training_need_more_steps_the_more_they_are():
    steps = [Prune(sparsity, "polynomial").steps(SMALL) for sparsity in (0.5, 0.75, 0.9)]
    assert steps == sorted(set(steps))
    assert steps[1] >= 300  # 5 epochs of this set are 50 steps
    assert Prune(0.75).steps(SMALL) == ChannelPrune().steps(SMALL) == 100  # the outputs are reconstructed


@pytest.mark.parametrize("part", [ChannelPrune(), Prune(), WeightClustering(), Qat()])
def test_a_large_set_is_trained_for_some_epochs_and_the_smallest_for_no_more_than_a_hundred(part):
    recovers = isinstance(part, ChannelPrune | Prune)
    assert part.steps(LARGE) == (RECOVERY_EPOCHS if recovers else EPOCHS) * LARGE
    assert part.steps(1) <= MOST_EPOCHS


def test_given_steps_or_epochs_are_taken_as_they_are():
    assert Prune(0.75, fine_tuning=FineTuning(steps=7)).steps(SMALL) == 7
    assert Prune(0.75, fine_tuning=FineTuning(epochs=20)).steps(SMALL) == 200
    assert FineTuning(steps=7).quick() == FineTuning(epochs=1)
    with pytest.raises(InputError, match="epochs or steps, not both"):
        FineTuning(epochs=1, steps=1)
    with pytest.raises(InputError, match="steps must be at least 1"):
        FineTuning(steps=0)


def test_a_schedule_ends_after_two_thirds_of_the_steps_and_must_lie_within_them():
    part = Prune(0.5, fine_tuning=FineTuning(steps=30))
    assert part.schedule_steps(SMALL) == (0, 20)
    late = Prune(0.5, begin_epoch=4.0, fine_tuning=FineTuning(steps=30))  # the set decides whether that is too late
    assert late.schedule_steps(5) == (20, 20)
    with pytest.raises(InputError, match=r"within its training, 0..3 epochs. Received: 4..4"):
        late.schedule_steps(SMALL)


def test_ranges_are_frozen_with_the_statistics_or_after_two_thirds_of_the_epochs():
    assert Qat(fine_tuning=FineTuning(steps=30)).freeze(SMALL) == 0
    assert Qat(fine_tuning=FineTuning(steps=30, freeze_statistics=False)).freeze(SMALL) == 2
    assert Qat(freeze_epoch=1, fine_tuning=FineTuning(steps=30)).freeze(SMALL) == 1


def test_the_options_of_the_command_replace_what_is_given_and_keep_the_rest():
    assert fine_tuned(Prune(), None, None, None) == Prune()
    assert fine_tuned(Prune(), 2, None, None).fine_tuning == dataclasses.replace(Prune().fine_tuning, epochs=2)
    assert fine_tuned(Qat(), None, 50, 1e-2).fine_tuning.steps == 50
    assert fine_tuned(Qat(), None, 50, 1e-2).fine_tuning.learning_rate == pytest.approx(1e-3)
    assert fine_tuned(ChannelPrune(), None, None, 1e-2).fine_tuning.learning_rate == 1e-2
