"""Float activations in 16 bits a value: how near they are, and that layers read them as they read float ones."""

from __future__ import annotations

import numpy as np
import pytest

from converters.quantization.activations import Activations
from converters.quantization.layers import Dequantizer, Geometry

SIZES = np.array([0.01, 1.0, 0.0, 300.0, 1e-42])  # of the values of each image


@pytest.fixture
def values() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(5, 9, 11, 8))
    return (drawn * SIZES[:, None, None, None]).astype(np.float32)


@pytest.fixture
def stored(values: np.ndarray) -> Activations:
    activations = Activations.empty(values.shape)
    for image, own in enumerate(values):
        activations[image] = own
    return activations


def test_each_image_is_within_half_a_step_of_its_own_largest_value(values: np.ndarray, stored: Activations):
    assert stored.integers.nbytes == values.nbytes / 2
    for image, own in enumerate(values):
        step = np.abs(own).max() / 32767
        np.testing.assert_allclose(stored[image], own, rtol=1e-6, atol=max(0.501 * step, 1e-37))


@pytest.mark.parametrize(
    "geometry", [Geometry(1, (3, 2), (1, 2)), Geometry(8, (3, 3), same=True), Geometry(1, inputs=8)]
)
def test_layers_read_the_patches_and_means_of_the_float_values(
    values: np.ndarray, stored: Activations, geometry: Geometry
):
    rounded = np.stack([stored[image] for image in range(len(stored))])
    read = geometry.patches(stored, 60, 0, Dequantizer())
    np.testing.assert_array_equal(read, geometry.patches(rounded, 60, 0, Dequantizer()))
    mean = geometry.mean_patch(stored, Dequantizer())
    np.testing.assert_allclose(mean, geometry.mean_patch(values, Dequantizer()), atol=300 / 32767)
    np.testing.assert_allclose(mean, geometry.mean_patch(rounded, Dequantizer()), rtol=1e-4, atol=1e-4)
