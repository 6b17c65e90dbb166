"""Calibration images: every form in which they come, every way in which they can be wrong, and their ranges."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from PIL import Image

from converters import InputError, Preprocessing
from converters.calibration import MAX_IMAGES, gather
from converters.float_model import convert_float
from converters.quantization.ranges import activation_ranges
from converters.sources import open_source
from converters.tflite.graph import Graph

SHAPE = (32, 32, 3)


def _gather(calibration, *, preprocessing=None, takes_pixels=True) -> np.ndarray:
    return gather(calibration, SHAPE, preprocessing=preprocessing, takes_pixels=takes_pixels)


def test_every_form_of_the_same_images_is_the_same(pixels):
    import tensorflow as tf

    floats = pixels.astype(np.float32)
    forms = {
        "array": pixels,
        "floats": floats,
        "doubles": pixels.astype(np.float64),
        "int64": pixels.astype(np.int64),
        "list of images": list(pixels),
        "list of batches": [pixels[:7], pixels[7:]],
        "generator": (image[None] for image in floats),
        "mixed": [pixels[:5], floats[5:]],
        "dataset": tf.data.Dataset.from_tensor_slices(floats).batch(10),
        "tensor": tf.constant(floats),
        "pillow": [Image.fromarray(p) for p in pixels],
        "function": lambda: (image[None] for image in floats),
        "representative dataset": lambda: ([image[None]] for image in floats),
        "by name": lambda: ({"image": image[None]} for image in floats),
        "with labels": tf.data.Dataset.from_tensor_slices((floats, np.arange(len(floats)))).batch(5),
        "with one-hot labels": [(floats[:4], np.eye(4)), (floats[4:], np.eye(len(floats) - 4))],
        "images and labels": (pixels, np.arange(len(pixels))),
        "of TensorFlow Datasets": [{"label": np.arange(len(pixels)), "image": pixels}],
    }
    for name, form in forms.items():
        images = _gather(form)
        np.testing.assert_array_equal(images, pixels, err_msg=name)
        assert images.dtype == np.uint8, f"{name}: whole pixels need a byte each"


def test_every_form_of_grey_images_is_the_same(pixels):
    import tensorflow as tf

    grey = pixels[..., 0]
    forms = {
        "with channels": grey[..., None],
        "without": grey,
        "list": list(grey),
        "batches": [grey[:3], grey[3:, ..., None]],
        "representative dataset": lambda: ([image[None, ..., None].astype(np.float32)] for image in grey),
        "with labels": tf.data.Dataset.from_tensor_slices((grey, np.arange(len(grey)))),
    }
    for name, form in forms.items():
        images = gather(form, (32, 32, 1), preprocessing=None, takes_pixels=True)
        np.testing.assert_array_equal(images, grey[..., None], err_msg=name)
    assert gather(grey[0], (32, 32, 1), preprocessing=None, takes_pixels=True).shape == (1, 32, 32, 1)


def test_a_single_image_is_a_batch_of_one(pixels):
    assert _gather(pixels[0]).shape == (1, *SHAPE)


def test_images_in_a_range_of_their_own_stay_float(pixels):
    x = pixels / np.float32(127.5) - 1
    np.testing.assert_array_equal(_gather(x, takes_pixels=False), x)


def test_the_callers_array_is_not_kept(pixels):
    mine = pixels.copy()
    images = _gather([mine])
    mine[:] = 0
    assert images.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "at least one image. Received: none"),
        (np.zeros((0, *SHAPE)), "at least one image"),
        (iter(()), "at least one image"),
        ([np.zeros((0, *SHAPE))], "at least one image"),
        (np.ones((2, 16, 32, 3)), r"shape \(batch, 32, 32, 3\)\. Received: \(2, 16, 32, 3\)"),
        (np.ones((2, 3, 32, 32)), r"Received: \(2, 3, 32, 32\)"),
        (np.ones((2, 32, 32, 1)), r"Received: \(2, 32, 32, 1\)"),
        (np.ones((32, 32)), r"Received: \(32,\)"),
        ([np.ones((2, 2, 32, 32, 3))], r"Received: \(2, 2, 32, 32, 3\)"),
        ([np.ones(SHAPE), np.ones((31, 32, 3))], r"Received: \(1, 31, 32, 3\)"),
        (np.full((2, *SHAPE), np.nan), "finite"),
        (np.full((2, *SHAPE), np.inf), "finite"),
        (np.full((2, *SHAPE), "x"), "numbers"),
        (np.zeros((2, *SHAPE), complex), "numbers"),
        (np.full((2, *SHAPE), 7.0), "must differ. Received: every value is 7"),
        ([(np.ones((1, *SHAPE)), np.ones((1, *SHAPE)))], r"\(array, labels\)\. Received: a tuple of 2 items"),
        (lambda count: [], "must take no arguments and yield images"),
        ({"images": 1}, "must be an iterable of arrays.*Received: dict"),
        (3, "Received: int"),
        (b"abc", "Received: bytes"),
        (None, "must be given"),
    ],
)
def test_wrong_calibration_is_rejected_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        _gather(wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", [1 / 255, 1 / 256])
def test_images_in_0_to_1_for_a_model_that_takes_pixels_are_found_out(pixels, scale):
    with pytest.raises(InputError, match=r"looks like images scaled to 0\.\.1; multiply them by 255"):
        _gather(pixels * np.float32(scale))


@pytest.mark.parametrize(("scale", "offset"), [(1 / 127.5, -1), (1, -128), (2, 0), (1, 1)])
def test_images_outside_0_to_255_for_a_model_that_takes_pixels_are_found_out(scale, offset):
    x = np.linspace(0, 255, 2 * 32 * 32 * 3).reshape(2, *SHAPE) * scale + offset
    with pytest.raises(InputError, match=r"must be pixels 0\.\.255"):
        _gather(x)


def test_a_preprocessing_of_another_range_is_held_to(pixels):
    told = Preprocessing(32, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    _gather(told.to_input(pixels), preprocessing=told, takes_pixels=False)
    with pytest.raises(InputError, match=r"must be in -2\.\d+\.\.2\.\d+"):
        _gather(pixels, preprocessing=told, takes_pixels=False)


def test_more_images_than_are_of_use_are_left_out_and_said(caplog):
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(1, *SHAPE)
    with caplog.at_level(logging.WARNING):
        images = _gather(image.repeat(300, 0) for _ in range(10**9))
    assert len(images) == MAX_IMAGES
    assert "stops at" in caplog.text


@pytest.fixture
def folder(tmp_path, pixels):
    (tmp_path / "b").mkdir()
    for index, name in enumerate(("a.png", "b/c.PNG", "d.ppm")):
        Image.fromarray(pixels[index]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_of_images_goes_through_the_preprocessing(folder, pixels):
    np.testing.assert_array_equal(_gather(folder, preprocessing=Preprocessing(32)), pixels[:3])
    np.testing.assert_array_equal(_gather(str(folder), preprocessing=Preprocessing(32)), pixels[:3])
    told = Preprocessing(32, mean=127.5, std=127.5)
    x = _gather(folder, preprocessing=told, takes_pixels=False)
    np.testing.assert_allclose(x, pixels[:3] / 127.5 - 1, atol=1e-6)


def test_broken_files_in_a_folder_are_named_and_counted(folder, pixels, caplog):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with caplog.at_level(logging.WARNING):
        assert len(_gather(folder, preprocessing=Preprocessing(32))) == 3
    assert "broken.jpg" in caplog.text
    assert "1 of 4 calibration images were skipped" in caplog.text


def test_hidden_files_are_no_calibration_images(folder, pixels):
    photo = next(folder.rglob("*.png"))
    count = len(gather(folder, (32, 32, 3), preprocessing=Preprocessing(32), takes_pixels=True))
    for name in (".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png", "._a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(photo.read_bytes())
    again = gather(folder, (32, 32, 3), preprocessing=Preprocessing(32), takes_pixels=True)
    for name in (".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png", "._a.png"):
        (folder / name).unlink()
    assert len(again) == count


def test_wrong_folders_are_rejected(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must exist"):
        _gather(tmp_path / "none", preprocessing=Preprocessing(32))
    with pytest.raises(InputError, match="must hold images"):
        _gather(tmp_path / "empty", preprocessing=Preprocessing(32))
    with pytest.raises(InputError, match="needs the model's preprocessing"):
        _gather(folder)
    with pytest.raises(InputError, match=r"image_size must be the model's, 32x32\. Received: 64"):
        _gather(folder, preprocessing=Preprocessing(64))
    (tmp_path / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match="at least one image"):
        _gather(tmp_path / "empty", preprocessing=Preprocessing(32))


def test_ranges_are_the_smallest_and_largest_values(small_model, pixels):
    """Against Keras's own activations, layer by layer."""
    import keras

    model = convert_float(open_source(small_model))
    ranges = activation_ranges(model.content, pixels)
    graph = Graph(model.content)
    assert set(ranges) == {graph.name(t) for op in graph.operators() for t in op.outputs}
    layers = {"normalize": None, "stem": "stem_relu", "depthwise": "depthwise_relu", "pool": "pool", "logits": "logits"}
    for name, layer in layers.items():
        probe = keras.Model(small_model.input, small_model.get_layer(layer or name).output)
        values = np.asarray(probe(pixels.astype(np.float32), training=False))
        key = name if name in ranges else min((n for n in ranges if n.startswith(name)), key=len)
        if name == "normalize":
            key = max((n for n in ranges if n.startswith(name)), key=len)
        assert ranges[key] == pytest.approx((values.min(), values.max()), abs=1e-4), name
