"""Training batches of grey images and of rectangles, from files and from memory, and a training on them."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError, Preprocessing
from edge_cv.data.input_pipeline.augmentation import augmented, of_device
from edge_cv.data.input_pipeline.batches import array_batches, evaluation_batches, sample_batches
from edge_cv.data.input_pipeline.draws import draw, windows
from edge_cv.data.input_pipeline.sampler import Sampler
from edge_cv.data.samples import Samples
from edge_cv.recipe import Augment, Fit
from tests.image_batches import by_pillow, scene, stored, taken

PLAIN = Augment(crop_scale=None, flip=0.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six JPEGs of 80 x 60 and two PNGs, of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    files = []
    for number in range(8):
        kind = "PNG" if number > 5 else "JPEG"
        files.append(folder / f"{number}.{kind.lower()}")
        files[-1].write_bytes(stored(scene(number), kind))
    return Samples.from_files("scenes", files, [0, 1] * 4, classes=("a", "b"))


@pytest.mark.parametrize(("size", "channels"), [((24, 40), 3), ((24, 40), 1), (32, 1), ((40, 24), 1)])
def test_both_pipelines_and_the_evaluation_see_the_same_images(photos, size, channels):
    batches = sample_batches(photos, image_size=size, channels=channels, batch_size=8, seed=1, augment=PLAIN)
    height, width = (size, size) if isinstance(size, int) else size
    ((images, targets),) = taken(batches)
    assert images.shape == (8, height, width, channels)
    ((by, _),) = by_pillow(batches)
    assert np.abs(images.astype(int) - by).mean() < 2
    preprocessing = Preprocessing(height, width=width, channels=channels, interpolation="bilinear")
    ((measured, labels),) = evaluation_batches(photos, preprocessing, 8)
    order = [int(np.abs(measured.astype(int) - image).mean((1, 2, 3)).argmin()) for image in images.astype(int)]
    assert sorted(order) == list(range(8))
    assert np.abs(measured[order].astype(int) - images).mean() < 3
    assert np.array_equal(labels[order], targets)


@pytest.mark.slow
def test_every_augmentation_keeps_the_shape_of_grey_rectangles(photos):
    everything = Augment(randaugment=2, brightness=0.2, hue=0.1, lighting=0.1, erasing=0.5, mixup=0.2, cutmix=1.0)
    batches = sample_batches(photos, image_size=(24, 40), channels=1, batch_size=8, seed=1, augment=everything)
    ((images, _),) = taken(batches)
    assert images.shape == (8, 24, 40, 1)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 50


def test_a_change_of_colour_leaves_grey_images_and_a_change_of_brightness_does_not():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 1), np.uint8)
    for augment, same in ((Augment(hue=0.5, saturation=0.9), True), (Augment(brightness=0.5), False)):
        draws = of_device(draw(augment, Sampler(4, 4, 1), 0, 0, (8, 12)))
        changed, _ = augmented(images, np.eye(4, dtype=np.float32), draws, augment)
        assert bool(np.abs(np.asarray(changed).astype(int) - images).max() <= 1) is same


def test_boxes_of_mixed_and_erased_rectangles_lie_within_them():
    numbers = draw(Augment(cutmix=1.0, erasing=1.0), Sampler(400, 400, 1), 0, 0, (20, 60))
    for name in ("box", "erased"):
        top, left, height, width = numbers[name].T
        assert (top + height).max() <= 20
        assert 20 < (left + width).max() <= 60
    area = numbers["box"][:, 2] * numbers["box"][:, 3]
    assert np.allclose(numbers["kept"], 1 - area / 1200, atol=1e-6)


def test_crops_of_a_rectangle_have_its_aspect_ratio():
    numbers = draw(Augment(), Sampler(400, 400, 1), 0, 0, (20, 40))
    _, _, height, width = windows(Augment(), numbers, 300, 400, (20, 40)).T
    assert abs(np.log(width / height / 2)).max() < np.log(4 / 3) + 0.1
    assert windows(PLAIN, {}, 300, 400, (20, 40)).tolist() == [[50, 0, 200, 400]]
    assert windows(PLAIN, {}, 300, 400, (40, 20)).tolist() == [[0, 125, 300, 150]]


@pytest.mark.parametrize("without_channels", [pytest.param(False, marks=pytest.mark.slow), True])
def test_grey_arrays_are_augmented_and_fitted(tmp_path, without_channels):
    import keras

    from edge_cv.training import fit

    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = (rng.integers(0, 100, (64, 12, 20, 1)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 20) if without_channels else (12, 20, 1))
    x = keras.layers.Reshape((12, 20, 1))(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(4, 3)(x)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    images = images[..., 0] if without_channels else images
    batches = array_batches(images, labels, classes=("dark", "light"), batch_size=16, seed=0, augment=Augment())
    assert next(iter(batches.epoch(0)))[0].shape == (16, 12, 20, 1)
    validation = [(images, np.eye(2, dtype=np.float32)[labels])]
    fitted = fit(
        model, batches, Fit(epochs=8, batch_size=16, learning_rate=0.1), validation=validation, folder=tmp_path
    )
    assert fitted.history[-1]["validation_score"] == 1.0


def test_other_numbers_of_channels_are_refused(photos):
    with pytest.raises(InputError, match=r"channels must be 3 \(RGB\) or 1 \(grey\). Received: 2"):
        sample_batches(photos, image_size=8, channels=2, batch_size=2, seed=0)
    with pytest.raises(InputError, match=r"\(n, height, width, 1\) if they are grey"):
        array_batches(np.zeros((4, 8, 8, 2), np.uint8), np.zeros(4), classes=("a",), batch_size=2, seed=0)
