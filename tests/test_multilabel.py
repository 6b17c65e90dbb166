"""Average precision, compared with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.evaluation.multilabel import MultiLabel, multi_label


@pytest.mark.parametrize("steps", [None, 8], ids=["float", "as int8, with many equals"])
def test_average_precision_is_scikit_learns(steps):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    truth = rng.random((300, 7)) < rng.uniform(0.02, 0.6, 7)
    truth[:, 3] = False
    scores = rng.normal(truth * 1.0, 1).astype(np.float32)
    scores = scores if steps is None else np.round(scores * steps / 4)
    found = multi_label(truth, scores, [f"c{i}" for i in range(7)])
    there = [i for i in range(7) if i != 3]
    expected = [average_precision_score(truth[:, i], scores[:, i]) for i in there]
    np.testing.assert_allclose(found.average_precision, expected)
    assert found.mean_average_precision == pytest.approx(np.mean(expected))
    assert found.names == tuple(f"c{i}" for i in there)
    assert found.positives == tuple(truth[:, there].sum(axis=0))


def test_a_perfect_ranking_is_one_and_the_reverse_the_closed_form():
    truth = np.array([[1], [1], [0], [0]], bool)
    assert multi_label(truth, np.array([[4.0], [3], [2], [1]]), ["a"]).average_precision == (1.0,)
    reverse = multi_label(truth, np.array([[1.0], [2], [3], [4]]), ["a"]).average_precision[0]
    assert reverse == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_without_positives_there_are_no_figures():
    assert multi_label(np.zeros((3, 2), bool), np.zeros((3, 2)), ["a", "b"]) is None


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="each of the 2 classes"):
        MultiLabel(3, 0.5, ("a", "b"), (1,), (0.5, 0.5))
