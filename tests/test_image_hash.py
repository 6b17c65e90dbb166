"""Hashes of pictures: the same picture in other clothes is found, another picture is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from converters.image_hash import NEAR_BITS, _shrunk, image_hash, near_pairs


def _picture(seed: int, size: int = 128) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.BICUBIC))


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("seed", range(8))
def test_the_same_picture_is_near_after_what_happens_to_files(seed):
    picture = _picture(seed)
    changed = (
        _jpeg(picture, 40),
        np.asarray(Image.fromarray(picture).resize((96, 96))),
        np.asarray(Image.fromarray(picture).resize((300, 200))),
        np.clip(picture * 0.9 + 10, 0, 255).astype(np.uint8),
        picture / 127.5 - 1,
    )
    for other in changed:
        assert (image_hash(picture) ^ image_hash(other)).bit_count() <= NEAR_BITS


def test_other_pictures_are_far():
    hashes = [image_hash(_picture(seed)) for seed in range(60)]
    assert near_pairs(hashes) == []


def test_pairs_are_found_within_and_between():
    hashes = [image_hash(_picture(seed)) for seed in (0, 1, 0, 2)]
    assert near_pairs(hashes) == [(0, 2)]
    assert near_pairs(hashes[:2], [image_hash(_jpeg(_picture(1), 50))]) == [(1, 0)]


@pytest.mark.parametrize("size", [32, 64, 224, 48, 5])
def test_shrinking_takes_means_of_equal_parts(size):
    values = np.random.default_rng(0).normal(size=(size, 3))
    fine = np.repeat(values, 32, axis=0).reshape(32, size, 3).mean(1)  # exact: parts of size * 32 / 32 values
    np.testing.assert_allclose(_shrunk(values, 0), fine, atol=1e-9)


def test_a_picture_of_one_colour_has_a_hash():
    assert isinstance(image_hash(np.full((20, 20, 3), 7, np.uint8)), int)
