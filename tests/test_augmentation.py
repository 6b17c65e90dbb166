"""The operations on pixels against Pillow and closed forms; the random numbers against their distributions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from edge_cv.data.input_pipeline import image_operations
from edge_cv.data.input_pipeline.augmentation import change, mix
from edge_cv.data.input_pipeline.draws import draw, random_windows, smooth
from edge_cv.data.input_pipeline.image_operations import OPERATIONS
from edge_cv.data.input_pipeline.sampler import Sampler
from edge_cv.recipe import Augment

PLAIN = Augment(crop_scale=None, flip=0.0)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A seeded uint8 image `(60, 80, 3)` of smooth colours under noise, not over the whole range."""
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(30, 220, (6, 8, 3), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 6, (60, 80, 3)), 20, 235).astype(np.uint8)


def applied(operation, image: np.ndarray, *arguments: float) -> np.ndarray:
    from keras import ops

    result = operation(ops.convert_to_tensor(image[None].astype(np.float32)), *arguments)
    return np.clip(np.rint(ops.convert_to_numpy(result)), 0, 255)[0]


def changed(image: np.ndarray, draws: dict[str, np.ndarray], augment: Augment) -> np.ndarray:
    return np.asarray(change(image[None], {name: values[None] for name, values in draws.items()}, augment))[0]


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(
    ("operation", "pillow"),
    [
        (image_operations.brightness, ImageEnhance.Brightness),
        (image_operations.contrast, ImageEnhance.Contrast),
        (image_operations.saturation, ImageEnhance.Color),
        (image_operations.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_pillows(photo, operation, pillow, factor):
    expected = np.asarray(pillow(Image.fromarray(photo)).enhance(factor)).astype(float)
    assert np.abs(applied(operation, photo, factor) - expected).max() <= 2  # Pillow rounds grey and truncates


def test_autocontrast_is_pillows(photo):
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(photo))).astype(float)
    assert np.abs(applied(image_operations.autocontrast, photo) - expected).max() <= 1
    flat = np.full((4, 4, 3), 7, np.uint8)
    assert (applied(image_operations.autocontrast, flat) == 7).all()


def test_equalize_is_pillows(photo):
    assert (applied(image_operations.equalize, photo) == np.asarray(ImageOps.equalize(Image.fromarray(photo)))).all()
    flat = np.full((4, 4, 3), 7, np.uint8)
    assert (applied(image_operations.equalize, flat) == 7).all()


@pytest.mark.parametrize("turn", [-0.4, 0.1, 0.5])
def test_hue_turns_by_the_part_of_a_turn(photo, turn):
    import colorsys

    result = applied(image_operations.hue, photo, turn)
    for row, column in [(0, 0), (10, 70), (59, 3), (31, 31)]:
        h, s, v = colorsys.rgb_to_hsv(*(photo[row, column] / 255))
        assert np.abs(result[row, column] - np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v)) * 255).max() <= 1


def test_affine_is_pillows(photo):
    angle = np.radians(-20)  # Pillow's angles are anticlockwise
    matrix = np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)
    result = applied(image_operations.affine, photo, matrix)
    expected = np.asarray(Image.fromarray(photo).rotate(20, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)))
    inner = np.asarray(Image.new("L", (80, 60), 255).rotate(20, Image.Resampling.NEAREST)) == 255
    inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert np.abs(result - expected)[inner].max() <= 2
    assert (result[0, 0] == image_operations.FILL).all()


def test_a_shift_moves_by_whole_pixels(photo):
    result = applied(image_operations.affine, photo, (1.0, 0.0, 0.0, 1.0), (5.0, -3.0))
    assert (result[3:, :-5] == photo[:-3, 5:]).all()
    assert (result[:3] == image_operations.FILL).all()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_each_operation_of_randaugment_keeps_type_shape_and_range_and_does_something(photo, name, sign):
    numbers = {"operations": np.array([OPERATIONS.index(name)], np.int32), "signs": np.array([sign], np.float32)}
    result = changed(photo, numbers, Augment(randaugment=1, magnitude=15))
    assert result.dtype == np.uint8
    assert result.shape == photo.shape
    assert (result != photo).any() == (name != "identity")


def test_solarize_and_posterize_are_pillows(photo):
    for name, expected in (
        ("solarize", ImageOps.solarize(Image.fromarray(photo), 128)),  # 255 * (1 - 15 / 30), rounded up
        ("posterize", ImageOps.posterize(Image.fromarray(photo), 6)),
    ):
        numbers = {"operations": np.array([OPERATIONS.index(name)], np.int32), "signs": np.ones(1, np.float32)}
        result = changed(photo, numbers, Augment(randaugment=1, magnitude=15))
        assert (np.asarray(result) == np.asarray(expected)).all()


def test_lighting_adds_along_the_principal_components(photo):
    augment = Augment(crop_scale=None, flip=0.0, lighting=0.1)
    added = draw(augment, Sampler(4000, 4000, 1), 0, 0, 8)["lighting"]
    # covariance of the added colour: 255^2 0.1^2 V diag(l^2) V', as in Krizhevsky's training
    values, vectors = np.linalg.eigh(np.cov(added.T.astype(float)))
    assert np.allclose(np.sqrt(values[::-1]), 25.5 * np.array([0.2175, 0.0188, 0.0045]), rtol=0.05)
    assert abs(vectors[:, -1] @ np.array([0.5675, 0.5808, 0.5836])) > 0.999
    result = changed(photo, {"lighting": np.array([10.0, -5, 0], np.float32)}, augment)
    assert (result == photo.astype(int) + np.array([10, -5, 0])).all()


def test_erasing_fills_a_rectangle_and_nothing_else(photo):
    numbers = {"erased": np.array([10, 20, 5, 30], np.int32), "colour": np.array([1, 2, 3], np.int32)}
    result = changed(photo, numbers, Augment(erasing=1.0))
    expected = photo.copy()
    expected[10:15, 20:50] = 1, 2, 3
    assert (result == expected).all()


def test_erased_areas_have_the_papers_sizes():
    numbers = draw(Augment(erasing=0.25), Sampler(4000, 4000, 1), 0, 0, 100)
    erased = numbers["erased"][:, 2] > 0
    assert abs(erased.mean() - 0.25) < 0.03
    top, left, height, width = numbers["erased"][erased].T
    area, aspect = height * width / 100**2, width / height
    assert 0.015 < area.min() < 0.03
    assert 0.31 < area.max() < 0.35
    assert 0.25 < aspect.min() < aspect.max() < 3.8
    assert ((top + height <= 100) & (left + width <= 100)).all()


def test_windows_have_the_requested_area_and_aspect_ratio():
    uniform = np.random.default_rng(0).random((20000, 11, 2))
    top, left, height, width = random_windows(uniform, (0.08, 1.0), (3 / 4, 4 / 3), 375, 500).T
    assert ((top >= 0) & (left >= 0) & (top + height <= 375) & (left + width <= 500)).all()
    area, aspect = height * width / (375 * 500), width / height
    assert 0.075 < area.min() < 0.09
    assert area.max() <= 1
    assert 0.73 < aspect.min() < 0.76
    assert 1.32 < aspect.max() < 1.36
    small = area < 0.5  # windows so small always fit: there area and logarithm of the aspect ratio are uniform
    assert abs(area[small].mean() - 0.29) < 0.005
    assert abs(np.log(aspect[small]).mean()) < 0.01
    assert abs((top / (375 - height + 1))[small].mean() - 0.5) < 0.01


def test_a_photo_that_no_window_fits_is_cropped_to_the_largest_central_one():
    windows = random_windows(np.full((1, 11, 2), 0.5), (0.9, 1.0), (1.0, 1.0), 100, 1000)
    assert windows.tolist() == [[0, 450, 100, 100]]


def test_mixup_shares_pixels_and_targets_alike():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    targets = np.eye(5, dtype=np.float32)
    own = np.array([0.5, 0.25, 1.0, 0.9, 0.3], np.float32)
    mixed, shares = (np.asarray(v) for v in mix(images, targets, {"kept": own, "box": np.zeros((5, 4), np.float32)}))
    assert np.allclose(shares.sum(1), 1)
    assert np.allclose(mixed[0], (images[0] / 2 + images[1] / 2), atol=0.5)
    assert np.allclose(mixed[1], 0.25 * images[1] + 0.75 * images[0], atol=0.51)
    assert (mixed[2] == images[2]).all()
    assert (mixed[4] == images[4]).all()  # the last image of an odd number has no partner
    assert np.allclose(shares[1], [0.75, 0.25, 0, 0, 0])
    assert np.allclose(shares[4], targets[4])


def test_cutmix_targets_are_the_shares_of_the_pixels():
    size, count = 32, 64
    images = np.repeat(np.arange(count, dtype=np.uint8), size * size * 3).reshape(count, size, size, 3)
    numbers = draw(Augment(cutmix=1.0), Sampler(count, count, 3), 0, 0, size)
    numbers = {name: numbers[name] for name in ("kept", "box")}
    mixed, targets = (np.asarray(v) for v in mix(images, np.eye(count, dtype=np.float32), numbers))
    shares = np.stack([(mixed[:, :, :, 0] == k).mean((1, 2)) for k in range(count)], 1)
    assert np.allclose(shares, targets, atol=1e-6)
    assert 0.3 < numbers["kept"].mean() < 0.75
    assert len(np.unique(numbers["kept"])) > count / 4  # each pair has its own share
    assert (numbers["kept"][::2] == numbers["kept"][1::2]).all()


def test_each_image_gets_either_mixup_or_cutmix():
    numbers = draw(Augment(mixup=0.2, cutmix=1.0), Sampler(2000, 2000, 3), 0, 0, 32)
    cut = (numbers["box"][:, 2:] > 0).all(1)
    assert 0.4 < cut.mean() < 0.55  # some boxes are empty
    assert ((numbers["kept"] >= 0) & (numbers["kept"] <= 1)).all()


def test_smoothed_targets_sum_to_one_and_keep_their_class():
    smoothed = smooth(np.eye(4, dtype=np.float32), 0.1, multi_label=False)
    assert np.allclose(smoothed, 0.9 * np.eye(4) + 0.025)
    assert np.allclose(smooth(np.array([[1, 0, 1]], np.float32), 0.1, multi_label=True), [[0.95, 0.05, 0.95]])


def test_another_operation_does_not_change_the_numbers_of_the_others():
    sampler = Sampler(8, 8, 5)
    few, many = (
        draw(Augment(), sampler, 1, 2, 32),
        draw(Augment(erasing=0.5, mixup=1.0, lighting=0.1), sampler, 1, 2, 32),
    )
    assert set(few) < set(many)
    assert all((few[name] == many[name]).all() for name in few)


def test_several_hosts_draw_the_numbers_of_one():
    augment = Augment(randaugment=2, hue=0.1, erasing=0.5, mixup=1.0)
    whole = draw(augment, Sampler(64, 8, 5), 1, 2, 32)
    parts = [draw(augment, Sampler(64, 4, 5, index, 2), 1, 2, 32) for index in range(2)]
    for name in whole:
        assert (np.concatenate([part[name] for part in parts]) == whole[name]).all()
