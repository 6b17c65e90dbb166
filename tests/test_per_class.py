"""Figures per class, compared with scikit-learn's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edge_cv.evaluation.per_class import class_scores, confused_pairs, distinct


def predictions_of(classes: int, photos: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels with different numbers of images per class, two empty classes, and predictions that are mostly right."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes))
    shares[[1, classes - 1]] = 0
    labels = rng.choice(classes, photos, p=shares / shares.sum())
    return labels, np.where(rng.random(photos) < 0.7, labels, rng.integers(0, classes, photos))


@pytest.mark.parametrize(("classes", "photos"), [(3, 50), (12, 400), (200, 900)])
def test_every_figure_is_scikit_learns(classes, photos):
    from sklearn import metrics

    labels, answers = predictions_of(classes, photos)
    scores = class_scores(labels, answers, [f"c{i}" for i in range(classes)])
    there = np.unique(labels)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, answers, labels=there, zero_division=0
    )
    assert scores.names == tuple(f"c{i}" for i in there)
    assert scores.images == tuple(support)
    np.testing.assert_allclose(scores.recall, recall)
    np.testing.assert_allclose(scores.precision, precision)
    np.testing.assert_allclose(scores.f1, f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of answers that no photo has as its label
        assert scores.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, answers))
    for average in ("macro", "weighted"):
        expected = metrics.precision_recall_fscore_support(
            labels, answers, labels=there, average=average, zero_division=0
        )
        assert getattr(scores, f"{average}_precision") == pytest.approx(expected[0])
        assert getattr(scores, f"{average}_f1") == pytest.approx(expected[2])


def test_the_matrix_and_the_worst_pairs_are_scikit_learns_confusion_matrix():
    from sklearn.metrics import confusion_matrix

    labels, answers = predictions_of(12, 400)
    expected = confusion_matrix(labels, answers, labels=range(12))
    scores = class_scores(labels, answers, [f"c{i}" for i in range(12)])
    np.testing.assert_array_equal(scores.matrix, expected)
    off = expected - np.diag(np.diag(expected))
    assert [c.photos for c in scores.confusions] == sorted(off[off > 0], reverse=True)[:20]
    for c in scores.confusions:
        label, answer = int(c.label[1:]), int(c.answer[1:])
        assert (c.photos, c.of) == (expected[label, answer], expected[label].sum())
    assert confused_pairs(labels, answers)[0][2] == off.max()


def test_images_without_a_label_are_ignored():
    labels, answers = predictions_of(5, 100)
    more = class_scores(np.append(labels, [-1, -1]), np.append(answers, [0, 3]), list("abcde"))
    assert more == class_scores(labels, answers, list("abcde"))
    assert class_scores(np.array([-1, -1]), np.array([0, 1]), list("ab")) is None


def test_the_whole_matrix_is_kept_for_fifty_classes_and_not_for_more():
    for classes, kept in ((50, 50), (51, 0)):
        scores = class_scores(np.array([0, 2]), np.array([0, 1]), [str(n) for n in range(classes)])
        assert len(scores.matrix) == len(scores.matrix_names) == kept
        assert scores.confusions[0].photos == 1


def test_without_errors_there_are_no_confusions():
    assert class_scores(np.array([0, 1, 1]), np.array([0, 1, 1]), ["a", "b"]).confusions == ()


def test_repeated_names_get_their_index():
    assert distinct(["a", "crane", "b", "crane"]) == ("a", "crane (1)", "b", "crane (3)")
    assert distinct(["a", "b"]) == ("a", "b")
