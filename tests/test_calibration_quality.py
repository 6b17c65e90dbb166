"""Calibration images that are good, repeated, leaked, few, and of another kind than those measured."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError, assess_calibration


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    rng = np.random.default_rng(11)
    coarse = rng.integers(0, 256, (160, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


def test_good_images_need_no_advice(small_model, many):
    quality = assess_calibration(small_model, many[:100], many[100:])
    assert quality.advice == ()
    assert (quality.images, quality.repeats, quality.leaked) == (100, (), ())
    assert 20 < quality.stability_db < 150
    assert abs(quality.seen_db - quality.unseen_db) < 4
    assert 0 <= quality.beyond <= 0.1


def test_repeats_and_leaked_images_are_named(small_model, many):
    calibration = np.concatenate([many[:70], many[5:6]])
    evaluation = np.concatenate([many[100:110], many[3:4]])
    quality = assess_calibration(small_model, calibration, evaluation)
    assert quality.repeats == ((5, 70),)
    assert quality.leaked == ((3, 10),)
    assert any("near-duplicates" in line for line in quality.advice)
    assert any("makes the result too good" in line for line in quality.advice)


@pytest.mark.slow
def test_few_images_and_images_of_another_kind_are_told(small_model, many):
    quality = assess_calibration(small_model, many[:6], many[100:])
    assert any("6 calibration images are few" in line for line in quality.advice)
    dull = (many[:80] // 8 + 120).astype(np.uint8)
    quality = assess_calibration(small_model, dull, many[100:])
    assert quality.beyond > 0.9
    assert any("calibrate on images like those" in line for line in quality.advice)


def test_images_of_the_wrong_range_are_rejected(small_model, many):
    with pytest.raises(InputError, match=r"pixels 0..255"):
        assess_calibration(small_model, many / 255)
