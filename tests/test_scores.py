from __future__ import annotations

import json
import math

import numpy as np
import pytest

from edge_cv.evaluation.scores import sqnr_db, wilson_interval


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_equals_published_figures(hits, trials, low, high):
    assert wilson_interval(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_solves_the_score_equation():
    for hits, trials in [(3, 10), (391, 400), (1, 400), (49_999, 50_000)]:
        for end in wilson_interval(hits, trials):
            assert abs(hits / trials - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / trials))


def test_wilson_interval_at_the_ends():
    low, high = wilson_interval(20, 20)
    assert (1 - high, 1 - low) == pytest.approx((0.0, wilson_interval(0, 20)[1]))
    assert wilson_interval(0, 0) is None
    with pytest.raises(ValueError, match=r"hits must be in 0\.\.trials"):
        wilson_interval(3, 2)


def test_sqnr_of_rounding_a_sine_to_8_bits_is_the_closed_form():
    # full-scale sine, N bits: 6.02 N + 1.76 dB
    wave = np.sin(np.arange(1_000_003) * 0.7371)
    step = 2 / 256
    noise = np.rint(wave / step) * step - wave
    assert sqnr_db(float(np.sum(wave**2)), float(np.sum(noise**2))) == pytest.approx(6.0206 * 8 + 1.7609, abs=0.15)


def test_sqnr_that_is_no_finite_number_is_none_and_json():
    assert sqnr_db(1.0, 0.0) is None
    assert sqnr_db(0.0, 1.0) is None
    assert json.dumps(sqnr_db(0.0, 0.0)) == "null"
