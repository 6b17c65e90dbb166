from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from converters.errors import InputError
from converters.images.image_hash import image_hash, near_duplicates


def photo(seed: int, side: int = 256) -> Image.Image:
    """Smooth colours, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)


def distance(a: Image.Image, b: Image.Image) -> int:
    return (image_hash(a) ^ image_hash(b)).bit_count()


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def test_the_bits_are_the_signs_of_scipys_cosine_transform():
    from scipy.fft import dctn

    image = photo(0, 32).resize((32, 32))
    low = dctn(np.asarray(image.convert("L"), np.float64), norm=None)
    order = sorted((v + h, v, h) for v in range(32) for h in range(32))[1:65]
    values = np.array([low[v, h] for _, v, h in order])
    bits = "".join("01"[int(value > np.median(values))] for value in values)
    assert image_hash(np.asarray(image)) == image_hash(image) == int(bits, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: as_jpeg(image, 60),
        lambda image: image.resize((100, 75), Image.Resampling.LANCZOS),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: image.convert("L").convert("RGB"),
    ],
)
def test_a_copy_in_another_form_is_near(change):
    assert max(distance(photo(seed), change(photo(seed))) for seed in range(20)) <= 4


def test_different_photos_are_far_apart():
    hashes = np.array([image_hash(photo(seed)) for seed in range(200)], np.uint64)
    assert len(near_duplicates(hashes, max_distance=8)) == 0


def test_photos_of_one_colour_are_alike():
    assert {image_hash(Image.new("RGB", (40, 30), colour)) for colour in ("black", "white", (7, 99, 201))} == {0}


def brute_force(a, b, limit):
    return [[i, j] for i in range(len(a)) for j in range(len(b)) if (int(a[i]) ^ int(b[j])).bit_count() <= limit]


@pytest.mark.parametrize("limit", [0, 1, 4, 7, 15])
def test_the_pairs_are_those_of_comparing_all_with_all(limit):
    rng = np.random.default_rng(limit)
    a = rng.integers(0, 2**64, 120, np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, limit + i % 3, replace=False)) for i in range(90)])
    b = np.concatenate([a[:90] ^ flips.astype(np.uint64), a[:3], rng.integers(0, 2**64, 40, np.uint64)])
    pairs = near_duplicates(a, b, limit)
    assert pairs.tolist() == brute_force(a, b, limit)
    assert len(pairs) >= 30
    every = np.concatenate([a, b])
    within = [[i, j] for i, j in brute_force(every, every, limit) if i < j]
    assert near_duplicates(every, max_distance=limit).tolist() == within


def test_pairs_beyond_one_block_are_found(monkeypatch):
    monkeypatch.setattr("converters.images.image_hash._BLOCK", 7)
    assert len(near_duplicates(np.zeros(30, np.uint64), np.zeros(4, np.uint64))) == 120


def test_nothing_has_no_pairs():
    assert near_duplicates(np.empty(0, np.uint64)).shape == (0, 2)
    with pytest.raises(InputError, match="Received: 16"):
        near_duplicates(np.empty(0, np.uint64), max_distance=16)


def test_what_is_not_a_photo_is_rejected():
    with pytest.raises(InputError, match=r"Received: float64 \(4, 4, 3\)"):
        image_hash(np.zeros((4, 4, 3)))


@pytest.mark.slow
def test_two_hundred_thousand_hashes_take_seconds():
    hashes = np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64)
    hashes[-1000:] = hashes[:1000] ^ np.uint64(0b10100001)
    start = time.process_time()
    pairs = near_duplicates(hashes, max_distance=4)
    assert time.process_time() - start < 20
    assert len(pairs) == 1000
