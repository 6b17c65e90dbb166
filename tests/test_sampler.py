from __future__ import annotations

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.data.input_pipeline.sampler import Sampler


def epoch(sampler: Sampler, number: int = 0) -> np.ndarray:
    return np.concatenate([sampler.indices(number, step) for step in range(sampler.steps)])


def test_an_epoch_takes_every_image_once_and_fills_the_last_batch_with_its_first():
    sampler = Sampler(10, 4, seed=1)
    taken = epoch(sampler)
    assert sampler.steps == 3
    assert sorted(taken[:10]) == list(range(10))
    assert list(taken[10:]) == list(taken[:2])


def test_seed_and_epoch_decide_the_order():
    assert (epoch(Sampler(50, 8, seed=1), 3) == epoch(Sampler(50, 8, seed=1), 3)).all()
    assert (epoch(Sampler(50, 8, seed=1), 3) != epoch(Sampler(50, 8, seed=1), 4)).any()
    assert (epoch(Sampler(50, 8, seed=1), 3) != epoch(Sampler(50, 8, seed=2), 3)).any()


def test_fewer_images_than_a_batch_are_repeated():
    taken = epoch(Sampler(3, 8, seed=1))
    assert np.bincount(taken).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


@pytest.mark.parametrize("balanced", [False, True])
def test_the_batches_of_several_hosts_are_those_of_one_host(balanced):
    labels = np.arange(53) % 5 if balanced else None
    parts = [Sampler(53, 4, 7, index, 3, labels) for index in range(3)]
    one = Sampler(53, 12, 7, balanced=labels)
    assert {part.steps for part in parts} == {one.steps}
    for step in range(one.steps):
        together = np.concatenate([part.indices(2, step) for part in parts])
        assert (together == one.indices(2, step)).all()


def test_balanced_takes_all_classes_equally_often_and_all_their_images():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    taken = epoch(Sampler(100, 10, 3, balanced=labels))
    assert sorted(np.bincount(labels[taken])) == [33, 33, 34]
    assert set(taken[labels[taken] == 1]) == set(range(90, 99))
    assert len(set(taken[labels[taken] == 0])) == np.count_nonzero(labels[taken] == 0)


def test_an_image_is_replaced_by_the_following_ones():
    sampler = Sampler(10, 4, seed=1)
    taken = epoch(sampler)
    assert [sampler.following(0, 1, 2, nth) for nth in range(3)] == list(taken[6:9])


@pytest.mark.parametrize(
    "arguments", [(0, 4, 1), (4, 0, 1), (4, 4, -1), (4, 4, 1.5), (4, 4, 1, 2, 2), (4, 4, 1, -1, 2)]
)
def test_invalid_arguments_are_refused(arguments):
    with pytest.raises(InputError, match="must be"):
        Sampler(*arguments)
