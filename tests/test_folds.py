"""Stratified folds: every image is left out once, and every class is spread evenly."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.data import Samples
from edge_cv.data.split import Splits
from edge_cv.pipeline.folds import cross_validate, small_validation_note, stratified_folds
from edge_cv.progress import silent


def samples(labels: list[int]) -> Samples:
    return Samples.from_files("photos", [f"{n}.jpg" for n in range(len(labels))], labels, ("a", "b"))


def test_every_image_is_left_out_once_and_every_fold_has_each_class():
    every = samples([0] * 10 + [1] * 5)
    left_out: list[str] = []
    for train, rest in stratified_folds(every, 5, seed=0):
        assert np.bincount(rest.labels).tolist() == [2, 1]
        assert not set(train.paths()) & set(rest.paths())
        assert len(train) + len(rest) == 15
        left_out += map(str, rest.paths())
    assert sorted(left_out) == sorted(map(str, every.paths()))


def test_a_class_with_fewer_images_than_folds_is_refused():
    with pytest.raises(InputError, match=r"fit.folds must be at most 2.* Received: 3"):
        list(stratified_folds(samples([0] * 9 + [1] * 2), 3, seed=0))


def test_the_result_counts_the_last_epochs_of_all_folds():
    every = samples([0] * 10 + [1] * 10)
    shares = iter([1.0, 0.5, 0.75, 1.0, 0.25])

    def train(photos: Splits, number: int):
        last = {"validation_score": next(shares), "validation_images": len(photos.validation)}
        return SimpleNamespace(history=[{"validation_score": 0.0, "validation_images": 4}, last])

    text = cross_validate(Splits(every, None, every, every), 5, 0, train, silent)
    # Wilson's interval of 14 of 20, by hand: (0.7 + 0.096 -+ 0.2219) / 1.192
    assert "top-1 70.0 % (48.1 to 85.5) of 20 photos" in text


def test_a_small_validation_set_is_said_with_what_to_do():
    (note,) = small_validation_note(Splits(None, samples([0, 1]), samples([0, 1]), samples([0, 1])))
    assert "2 photos" in note
    assert "fit.folds=5" in note
    many = samples([0, 1] * 25)
    assert small_validation_note(Splits(None, many, many, many)) == []
