"""Calibration of confidences: closed forms, and scikit-learn's reliability curve."""

from __future__ import annotations

import numpy as np
import pytest

from edge_cv.evaluation.confidence import BINS, TEMPERATURES, confidence_of, temperature_of


def drawn(photos: int, temperature: float = 1.0, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and hits: each prediction is right with probability `p` and has the confidence `p ** temperature`."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(4, 2, photos)
    return (truth**temperature).astype(np.float32), rng.random(photos) < truth


def test_the_bins_are_scikit_learns_reliability_curve():
    from sklearn.calibration import calibration_curve

    confidences, right = drawn(3000)
    found = confidence_of(confidences, right)
    accuracy, mean = calibration_curve(right, confidences, n_bins=BINS, strategy="uniform")
    np.testing.assert_allclose([b.accuracy for b in found.bins], accuracy)
    np.testing.assert_allclose([b.confidence for b in found.bins], mean, rtol=1e-6)
    assert sum(b.images for b in found.bins) == found.images == 3000
    weights = np.array([b.images for b in found.bins]) / 3000
    assert found.ece == pytest.approx(float(np.sum(weights * np.abs(accuracy - mean))), rel=1e-5)


def test_the_error_of_constant_confidence_is_its_distance_from_the_accuracy():
    right = np.arange(100) < 60
    assert confidence_of(np.full(100, 0.9), right).ece == pytest.approx(0.3)
    assert confidence_of(np.full(100, 0.6), right).ece == pytest.approx(0.0, abs=1e-12)
    sure = confidence_of(np.ones(100), right)
    assert (sure.ece, sure.confidence, sure.accuracy) == (pytest.approx(0.4), 1.0, 0.6)


def test_a_bin_includes_its_upper_end_and_zero_is_in_the_first():
    found = confidence_of(np.array([0.0, 1 / BINS, 1.5 / BINS, 1.0]), np.array([False, False, True, True]))
    assert [b.images for b in found.bins] == [2, 1, 1]


def test_calibrated_models_are_within_chance_in_nineteen_cases_of_twenty():
    found = [confidence_of(*drawn(300, seed=seed)) for seed in range(100)]
    within = sum(one.ece <= one.ece_by_chance_95 for one in found)
    assert 88 <= within <= 99  # binomial(100, 0.95) lies there with 99.5 %
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean([one.ece_by_chance for one in found]), rel=0.05)


def test_an_overconfident_model_is_beyond_chance():
    proud = confidence_of(*drawn(2000, 0.3))
    assert proud.ece > 2 * proud.ece_by_chance_95
    assert proud.confidence > proud.accuracy


def test_the_error_by_chance_falls_with_the_square_root_of_the_images():
    few, many = (confidence_of(*drawn(photos)).ece_by_chance for photos in (200, 5000))
    assert few / many == pytest.approx(5, rel=0.2)  # sqrt(25)


def test_without_images_there_are_no_figures():
    assert confidence_of(np.zeros(0), np.zeros(0, bool)) is None


def test_fifty_thousand_images_take_a_second_at_most():
    import time

    start = time.process_time()
    confidence_of(*drawn(50_000))
    assert time.process_time() - start < 2


def scaled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `temperature_of` takes, of logits `(photos, classes)`."""
    from scipy.special import log_softmax

    chances = np.stack([log_softmax(logits / temperature, axis=1) for temperature in TEMPERATURES], axis=2)
    losses = -chances[np.arange(len(labels)), labels]
    return losses, np.exp(chances.max(axis=1)), logits.argmax(axis=1) == labels


@pytest.mark.parametrize("wanted", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_is_the_one_of_the_least_cross_entropy(wanted):
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3 * wanted, (4000, 20))
    chances = np.exp(log_softmax(logits / wanted, axis=1))
    labels = (chances.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(0, 19)
    losses, confidences, right = scaled(logits, labels)
    best = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(4000), labels].mean(), bounds=(0.25, 4), method="bounded"
    ).x
    found = temperature_of(losses, confidences, right)
    assert found.value == pytest.approx(best, rel=0.02)
    assert found.value == pytest.approx(wanted, rel=0.06)
    calibrated = confidence_of(np.exp(log_softmax(logits / best, axis=1)).max(axis=1), right)
    assert found.ece == pytest.approx(calibrated.ece, abs=0.01)
    assert found.ece <= 1.3 * calibrated.ece_by_chance_95


def test_there_is_no_temperature_if_the_best_is_outside_the_range():
    sure = np.tile([1.0, 0.0], (50, 1))
    assert temperature_of(*scaled(sure, np.zeros(50, int))) is None  # always right: the surer the better
    assert temperature_of(*scaled(sure[:1], np.zeros(1, int))) is None
    assert temperature_of(*scaled(sure[:0], np.zeros(0, int))) is None
