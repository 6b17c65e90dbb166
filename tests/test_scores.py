from __future__ import annotations

import math

import pytest

from edge_cv.intervals import wilson_interval


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
    for hits, trials in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=r"hits must be in 0\.\.trials"):
            wilson_interval(hits, trials)
