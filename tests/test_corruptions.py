"""The common corruptions: the strengths of the paper, and their dependence on the seed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.data import corruptions
from edge_cv.data.corruptions import NAMES, corrupt


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return np.ascontiguousarray(load_sample_image("flower.jpg")[100:196, 200:296])


@pytest.mark.parametrize("name", NAMES)
def test_a_corruption_depends_on_its_seed_and_grows_with_severity(photo, name):
    photo = photo[:48, :48]
    before = np.random.get_state()[1].copy()
    mild, hard = (corrupt(photo, name, severity, seed=3) for severity in (1, 5))
    assert mild.shape == hard.shape == photo.shape
    assert mild.dtype == np.uint8
    np.testing.assert_array_equal(corrupt(photo, name, 5, seed=3), hard)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # numpy's global generator is unchanged
    mild, hard = ([corrupt(photo, name, severity, seed=seed) for seed in range(3)] for severity in (1, 5))
    assert (
        0 < np.abs(np.subtract(mild, photo, dtype=float)).mean() < np.abs(np.subtract(hard, photo, dtype=float)).mean()
    )


@pytest.mark.parametrize(
    "name", ["gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "frost", "fog", "snow"]
)
def test_another_seed_is_another_corruption(photo, name):
    assert (corrupt(photo, name, 3, seed=1) != corrupt(photo, name, 3, seed=2)).any()


def test_noise_has_the_papers_strength():
    grey = np.full((128, 128, 3), 128, np.uint8)
    for severity, sigma in zip((1, 2, 3), (0.08, 0.12, 0.18), strict=True):
        assert corrupt(grey, "gaussian_noise", severity).std() == pytest.approx(255 * sigma, rel=0.05)
    for severity, rate in zip((1, 3), (60, 12), strict=True):  # Poisson: the variance is the mean
        expected = 255 * np.sqrt(128 / 255 / rate)
        assert corrupt(grey, "shot_noise", severity).std() == pytest.approx(expected, rel=0.08)
    for severity, share in zip((1, 5), (0.03, 0.27), strict=True):
        hit = corrupt(grey, "impulse_noise", severity) != 127  # 128 / 255 and back is cut to 127
        assert ((hit & (corrupt(grey, "impulse_noise", severity) != 128)).mean()) == pytest.approx(share, rel=0.1)


def test_bad_input_is_one_line(photo, monkeypatch):
    for call, says in (
        (lambda: corrupt(photo, "gausian_noise", 1), "Did you mean 'gaussian_noise'"),
        (lambda: corrupt(photo, "fog", 6), "from 1 to 5. Received: 6"),
        (lambda: corrupt(photo[:20], "fog", 1), "at least 32 pixels a side"),
    ):
        with pytest.raises(InputError, match=says):
            call()
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(InputError, match=r"pip install 'edge-cv\[corruptions\]'"):
        corruptions.check_installed()
