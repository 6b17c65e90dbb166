"""Parity's numbers against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from converters.parity import compare, sqnr_db


def test_sqnr_of_a_tenth_of_noise_is_20_db():
    reference = np.random.default_rng(0).normal(size=(50, 10))
    assert sqnr_db(reference, reference * 1.1) == pytest.approx(20.0)
    assert sqnr_db(reference, reference * 2) == pytest.approx(0.0)
    assert sqnr_db(reference, -reference) == pytest.approx(-20 * np.log10(2))


def test_sqnr_of_rounding_is_what_uniform_noise_gives():
    """Rounding to steps of d adds d^2 / 12."""
    reference = np.random.default_rng(0).uniform(-1, 1, 100_000)
    step = 2 / 255
    expected = 10 * np.log10((1 / 3) / (step**2 / 12))
    assert sqnr_db(reference, np.rint(reference / step) * step) == pytest.approx(expected, abs=0.1)


def test_sqnr_is_bounded_where_there_is_no_noise_or_no_signal():
    assert sqnr_db(np.ones(3), np.ones(3)) == 150
    assert sqnr_db(np.zeros(3), np.ones(3)) == -150
    assert sqnr_db(np.zeros(3), np.zeros(3)) == 150


def test_compare_counts_top_1_and_finds_the_largest_difference():
    reference = np.array([[1.0, 2, 3], [3, 2, 1], [0, 5, 1], [9, 1, 1]])
    other = reference.copy()
    other[0, 0] = 4.5
    parity = compare(reference, other)
    assert (parity.top1_agreement, parity.max_abs_error, parity.images) == (0.75, 3.5, 4)
