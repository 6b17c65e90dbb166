from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def coordinates(height: int, width: int) -> np.ndarray:
    """A photo whose red is the row and whose green is the column, so that a crop shows its position."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 100), (100, 64), (65, 99), (64, 64)])
def test_crop_then_resize_cuts_the_central_square_of_the_short_side(height, width):
    # The side is image_size / resize_to of the short side; here that is image_size itself, so nothing is resized.
    seen = Preprocessing(56, 64 if min(height, width) == 64 else 65, interpolation="nearest").crop_and_resize(
        coordinates(height, width)
    )
    top, left = (height - 56 + 1) // 2, (width - 56 + 1) // 2
    np.testing.assert_array_equal(seen, coordinates(height, width)[top : top + 56, left : left + 56])


def test_crop_then_resize_without_resize_to_takes_the_largest_square():
    seen = Preprocessing(10, interpolation="nearest").crop_and_resize(coordinates(40, 80))
    assert seen[..., 0].min() < 4
    assert seen[..., 0].max() >= 36
    assert 20 <= seen[..., 1].min() < 24
    assert 56 <= seen[..., 1].max() < 60


def test_halving_with_bilinear_is_the_triangle_filter():
    """Antialiased bilinear at half size weighs 1 3 3 1 eighths along each axis, in the inside of the photo."""
    photo = noise(32, 32)
    seen = Preprocessing(16, rule="stretch", interpolation="bilinear").crop_and_resize(photo).astype(float)
    weights = np.array([1, 3, 3, 1]) / 8
    rows = sum(w * photo[1 + i : 29 + i : 2].astype(float) for i, w in enumerate(weights))
    expected = sum(w * rows[:, 1 + i : 29 + i : 2] for i, w in enumerate(weights))
    assert np.abs(seen[1:15, 1:15] - expected).max() <= 1.01


def test_stretch_takes_the_whole_photo():
    seen = Preprocessing(4, rule="stretch", interpolation="nearest").crop_and_resize(coordinates(8, 40))
    assert seen[:, 0, 0].tolist() == [1, 3, 5, 7]
    assert seen[0, :, 1].tolist() == [5, 15, 25, 35]


@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 300), (50, 71), (256, 256)])
def test_resize_then_crop_is_the_resized_photos_middle(height, width):
    photo = noise(height, width)
    seen = Preprocessing(56, 64, rule="resize_then_crop", interpolation="bilinear").crop_and_resize(photo)
    short = min(height, width)
    resized = Image.fromarray(photo).resize((int(64 * width / short), int(64 * height / short)), Image.BILINEAR)
    resized = np.asarray(resized)
    top, left = round((resized.shape[0] - 56) / 2), round((resized.shape[1] - 56) / 2)
    np.testing.assert_array_equal(seen, resized[top : top + 56, left : left + 56])


@pytest.mark.parametrize("rule", ["crop_then_resize", "resize_then_crop", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3_000_000), (3_000_000, 1), (3, 2)])
def test_photos_of_any_shape_give_the_size_asked_for(rule, shape):
    seen = Preprocessing(8, 9, rule=rule).crop_and_resize(np.full((*shape, 3), 77, np.uint8))
    assert seen.shape == (8, 8, 3)
    assert seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - 77).max() <= 1  # Pillow weighs in fixed point


def test_a_pillow_image_and_its_pixels_give_the_same():
    photo = noise(40, 50)
    preprocessing = Preprocessing(16, 18)
    image = Image.fromarray(photo)
    np.testing.assert_array_equal(preprocessing.crop_and_resize(photo), preprocessing.crop_and_resize(image))


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("L", (4, 4)),
        None,
    ],
)
def test_what_is_not_an_rgb_photo_is_rejected(photo):
    with pytest.raises(InputError, match="a photo must"):
        Preprocessing(4).crop_and_resize(photo)


def test_to_input_leaves_pixels_and_normalizes_by_channel():
    pixels = np.array([[[0, 127, 255]]], np.uint8)
    assert Preprocessing(1).takes_pixels
    assert Preprocessing(1).to_input(pixels).tolist() == [[[0.0, 127.0, 255.0]]]
    other = Preprocessing(1, mean=(0, 127, 55), std=(1, 128, 100))
    assert not other.takes_pixels
    assert other.to_input(pixels).tolist() == [[[0.0, 0.0, 2.0]]]
    assert other.to_input(pixels).dtype == np.float32
    assert Preprocessing(1, mean=127, std=128).mean == (127.0, 127.0, 127.0)


def test_it_survives_json():
    value = Preprocessing(224, 256, "resize_then_crop", "lanczos", (1, 2, 3), (4, 5, 6))
    assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert hash(value) == hash(Preprocessing.from_dict(value.to_dict()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "image_size must be a positive"),
        ({"image_size": 1.5}, "image_size must be a positive"),
        ({"image_size": True}, "image_size must be a positive"),
        ({"image_size": 8, "resize_to": 7}, "resize_to must be a whole number not under"),
        ({"image_size": 8, "rule": "strech"}, "Did you mean 'stretch'"),
        ({"image_size": 8, "interpolation": "cubic"}, "Did you mean 'bicubic'"),
        ({"image_size": 8, "std": 0}, "std positive"),
        ({"image_size": 8, "mean": float("nan")}, "mean must be finite"),
        ({"image_size": 8, "mean": (1, 2)}, "mean must be one number, or three"),
        ({"image_size": 8, "std": "wide"}, "std must be one number, or three"),
        ({"image_size": 8, "colour": "bgr"}, "must have the fields"),
        ({}, "must have the fields"),
        ([1], "must have the fields"),
    ],
)
def test_bad_fields_are_rejected(fields, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.from_dict(fields)


def test_grey_is_the_luma_of_the_resized_photo_as_pillow_rounds_it():
    photo = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    rgb, grey = Preprocessing(16, 18), Preprocessing(16, 18, channels=1)
    seen = grey.crop_and_resize(photo)
    assert seen.shape == (16, 16, 1)
    red, green, blue = np.moveaxis(rgb.crop_and_resize(photo).astype(np.int64), -1, 0)
    assert np.array_equal(seen[..., 0], (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)
    level = np.full((9, 9, 3), 77, np.uint8)
    assert (grey.crop_and_resize(level) == 77).all()


@pytest.mark.parametrize("rule", ["crop_then_resize", "resize_then_crop"])
@pytest.mark.parametrize(("height", "width"), [(30, 90), (90, 30), (40, 60), (61, 40)])
def test_a_rectangle_is_the_largest_central_part_of_its_aspect_ratio(rule, height, width):
    seen = Preprocessing(10, width=20, rule=rule, interpolation="nearest").crop_and_resize(coordinates(height, width))
    rows, columns = seen[:, :, 0].astype(int), seen[:, :, 1].astype(int)
    scale = min(height / 10, width / 20)
    for lines, count, length in ((rows[:, 0], 10, height), (columns[0], 20, width)):
        expected = (np.arange(count) + 0.5 - count / 2) * scale + length / 2
        assert np.abs(lines - expected).max() <= scale / 2 + 1


def test_a_rectangles_resize_to_is_of_its_shorter_side():
    whole = Preprocessing(20, width=40, interpolation="nearest").crop_and_resize(coordinates(100, 200))
    part = Preprocessing(20, resize_to=25, width=40, interpolation="nearest").crop_and_resize(coordinates(100, 200))
    assert [int(np.ptp(seen[..., axis])) for seen in (whole, part) for axis in (0, 1)] == [95, 195, 76, 156]


def test_height_and_width_survive_json_and_old_records_have_one_size():
    value = Preprocessing(48, width=64, channels=1, mean=127.5, std=(2, 2, 2))
    assert Preprocessing.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    assert (value.mean, value.std) == ((127.5,), (2.0,))
    assert Preprocessing(48).to_dict()["image_size"] == 48
    assert Preprocessing.from_dict({"image_size": 48, "mean": [0, 0, 0]}) == Preprocessing(48)
    with pytest.raises(InputError, match="height and width"):
        Preprocessing(48, width=64, image_size=48)
    with pytest.warns(DeprecationWarning, match="use height and width"):
        assert Preprocessing(48).image_size == 48
    with pytest.raises(InputError, match="channels must be 3"):
        Preprocessing(48, channels=4)
