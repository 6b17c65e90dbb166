"""Augmentation in the train step: RandAugment's operations against Pillow, and a training against finished batches."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from image_batches import EVERYTHING, MIXED, Memory, make, same, scene, taken, with_pillow
from PIL import Image, ImageEnhance, ImageOps
from tiny_training import assert_equal, quick

from edge_cv.data.input_pipeline.augmentation import PIXELS, augmented, change, compiled
from edge_cv.data.input_pipeline.image_operations import FILL, OPERATIONS
from edge_cv.recipe import Augment
from edge_cv.training import fit
from edge_cv.training.callbacks import TrainingMonitor
from edge_cv.training.checkpoint import load

ROOT = Path(__file__).parents[1]
SIZE, MAGNITUDE = 40, 15.0
STRENGTH = MAGNITUDE / 30


def by_pillow(image: Image.Image, name: str, sign: float) -> np.ndarray:
    """One operation of RandAugment, float `(SIZE, SIZE, 3)`, NaN where Pillow interpolates with the outside."""
    factor, shear, middle = 1 + 0.9 * STRENGTH * sign, 0.3 * STRENGTH * sign, (SIZE - 1) / 2
    move = round(150 / 331 * STRENGTH * SIZE) * sign
    enhance = {"color": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}
    if name in enhance:
        return np.asarray(getattr(ImageEnhance, enhance[name])(image).enhance(factor), float)
    if name in ("autocontrast", "equalize"):
        return np.asarray(getattr(ImageOps, name)(image), float)
    if name == "solarize":
        return np.asarray(ImageOps.solarize(image, math.ceil(255 * (1 - STRENGTH))), float)
    if name == "posterize":
        return np.asarray(ImageOps.posterize(image, 8 - round(4 * STRENGTH)), float)
    angle = sign * math.radians(30 * STRENGTH) if name == "rotate" else 0.0
    a, b, c, d = math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)
    b, c = (shear, c) if name == "shear_x" else (b, shear) if name == "shear_y" else (b, c)
    x, y = (move if name == f"translate_{axis}" else 0.0 for axis in "xy")
    # Pillow samples at (x + 0.5, y + 0.5) and subtracts 0.5.
    matrix = (a, b, middle - a * middle - b * middle + x + 0.5 - 0.5 * (a + b))
    matrix += (c, d, middle - c * middle - d * middle + y + 0.5 - 0.5 * (c + d))
    result = image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
    )
    inside = Image.new("L", image.size, 255).transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    rows, columns = np.mgrid[:SIZE, :SIZE]
    left = matrix[0] * (columns + 0.5) + matrix[1] * (rows + 0.5) + matrix[2] - 0.5
    top = matrix[3] * (columns + 0.5) + matrix[4] * (rows + 0.5) + matrix[5] - 0.5
    well_inside = (left >= 0) & (left <= SIZE - 1) & (top >= 0) & (top <= SIZE - 1)
    outside = (left < -1) | (left > SIZE) | (top < -1) | (top > SIZE)
    expected = np.where(outside[..., None], FILL, np.asarray(result, float))
    expected[~well_inside & ~outside] = np.nan
    assert name == "identity" or (np.asarray(inside)[outside] == 0).all()
    return expected


@pytest.fixture(scope="module")
def every_operation() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One image for each operation and direction, and the draws."""
    images = np.stack([np.asarray(scene(n, SIZE, SIZE)) for n in range(2 * len(OPERATIONS))])
    operations = np.arange(2 * len(OPERATIONS), dtype=np.int32)[:, None] % len(OPERATIONS)
    signs = np.repeat(np.float32([1, -1]), len(OPERATIONS))[:, None]
    return images, {"operations": operations, "signs": signs}


def test_each_operation_of_a_batch_is_pillows(every_operation):
    images, draws = every_operation
    results = np.asarray(change(images, draws, Augment(randaugment=1, magnitude=MAGNITUDE)))
    for image, result, operation, sign in zip(images, results, draws["operations"], draws["signs"], strict=True):
        expected = by_pillow(Image.fromarray(image), OPERATIONS[int(operation[0])], float(sign[0]))
        assert np.isfinite(expected).mean() > 0.5
        assert np.nanmax(np.abs(result - expected)) <= 2, OPERATIONS[int(operation[0])]


def test_one_image_after_the_other_gives_the_batch(every_operation):
    images, draws = every_operation
    augment = Augment(randaugment=1, magnitude=MAGNITUDE)
    at_once = np.asarray(change(images, draws, augment))
    for row in range(len(images)):
        given = {name: values[row : row + 1] for name, values in draws.items()}
        alone = np.asarray(change(images[row : row + 1], given, augment, lazy=True), int)[0]
        assert np.abs(alone - at_once[row]).max() <= 1
        assert (alone == at_once[row]).mean() > 0.999


@pytest.mark.slow
def test_xla_compiles_the_steps_of_a_batch(every_operation, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr("edge_cv.data.input_pipeline.augmentation._on_cpu", lambda: False)
    images, draws = every_operation
    targets = np.eye(len(images), dtype=np.float32)
    augment = Augment(randaugment=1, magnitude=MAGNITUDE, saturation=0.2, hue=0.1, mixup=0.2)
    draws = {**draws, "jitter": np.tile(np.float32([1, 1, 1.1, 0.05]), (len(images), 1))}
    draws |= {"kept": np.full(len(images), 0.75, np.float32), "box": np.zeros((len(images), 4), np.float32)}
    steps = functools.partial(augmented, augment=augment)
    by_xla, plain = tf.function(steps, jit_compile=True)(images, targets, draws), steps(images, targets, draws)
    assert (np.abs(np.asarray(by_xla[0], int) - np.asarray(plain[0], int)) <= 1).mean() > 0.999
    np.testing.assert_allclose(by_xla[1], plain[1])


@pytest.mark.slow
def test_the_feed_of_a_train_step_becomes_the_finished_batch(memory):
    batches = make(memory, EVERYTHING)
    fed = []
    for inputs, targets in batches.feed(1, 2):
        draws = {name: values for name, values in inputs.items() if name != PIXELS}
        fed.append(tuple(map(np.asarray, compiled(EVERYTHING)(inputs[PIXELS], targets, draws))))
    assert same(fed, taken(batches, 1, 2))


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(pixels)
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="stem_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))


class Finished:
    """Batches that a training takes as they are."""

    def __init__(self, batches) -> None:
        self.whole, self.classes, self.batch_size, self.multi_label = batches, batches.classes, 4, False

    def __len__(self) -> int:
        return len(self.whole)

    def epoch(self, number: int, first_step: int = 0):
        return self.whole.epoch(number, first_step)


@pytest.mark.slow
def test_augmenting_in_the_step_trains_as_finished_batches_do(memory):
    settings = quick(batch_size=4, epochs=2, schedule="constant")
    ours, expected = network(), network()
    fit(ours, make(memory, EVERYTHING), settings)
    fit(expected, Finished(make(memory, EVERYTHING)), settings)
    assert_equal(ours, expected, rtol=1e-5, atol=1e-6)


def interrupt(monkeypatch, epoch: int, step: int) -> None:
    """Interrupt a training before a step, after its checkpoint."""
    begin = TrainingMonitor.on_train_batch_begin

    def interrupted(self, batch, logs=None):
        begin(self, batch, logs)
        if (self.epoch, batch) == (epoch, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingMonitor, "on_train_batch_begin", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2])
def test_an_augmented_training_resumes_within_an_epoch(memory, tmp_path, steps):
    settings = quick(batch_size=4, epochs=2, schedule="constant", checkpoint_seconds=0.0, steps_per_execution=steps)
    whole, again = network(), network()
    fit(whole, make(memory, MIXED), settings)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 2, 2)
        with pytest.raises(KeyboardInterrupt):
            fit(network(), make(memory, MIXED), settings, folder=tmp_path)
    state = load(tmp_path / "checkpoint.npz").state
    assert (state["epoch"], state["step"]) == (1, 2)
    fit(again, make(memory, MIXED), settings, folder=tmp_path)
    assert_equal(again, whole)


@pytest.mark.slow
def test_several_steps_a_call_train_as_one_does(memory, monkeypatch):
    monkeypatch.setattr("edge_cv.training.callbacks.UPDATE_SECONDS", 0.0)
    models, reports = [], []
    for steps in (1, 4):  # six steps an epoch: the second call has two
        seen: list[tuple[int, int]] = []

        @contextlib.contextmanager
        def progress(title: str, seen=seen):
            training = title.startswith("training")
            yield lambda done, total, note="": seen.append((done, total)) if training else None

        models.append(network())
        settings = quick(batch_size=4, epochs=2, schedule="cosine", steps_per_execution=steps)
        fitted = fit(models[-1], make(memory, MIXED), settings, progress=progress)
        reports.append(seen)
    assert_equal(*models, rtol=1e-6, atol=1e-7)
    assert reports[0] == [(1, 6), (2, 6), (3, 6), (4, 6), (5, 6), (6, 6)] * 2
    assert reports[1] == [(4, 6), (6, 6)] * 2
    assert fitted.history[1]["learning_rate"] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * 11 / 12)), rel=1e-4)


@pytest.mark.parametrize("broken", [pytest.param("Huffman table", marks=pytest.mark.slow), "all"])
def test_a_jpeg_that_tensorflow_refuses_is_replaced_within_the_training(memory, broken):
    photo = memory.contents[0]
    table = photo.index(b"\xff\xc4") + 5
    refused = photo[:table] + b"\xff" * 16 + photo[table + 16 :]
    contents = [*memory.contents]
    for index in (2, 7, 11) if broken != "all" else range(len(contents)):
        contents[index] = refused
    batches = make(Memory(tuple(contents), memory.labels), Augment())
    settings = quick(batch_size=4, epochs=1, schedule="constant")
    if broken == "all":
        with pytest.raises(Exception, match="must hold images that can be read"):
            fit(network(), batches, settings)
        return
    ours, expected = network(), network()
    fitted = fit(ours, batches, settings)
    assert set(batches.broken) == {2, 7, 11}
    whole = fit(expected, Finished(make(Memory(tuple(contents), memory.labels), Augment())), settings)
    assert_equal(ours, expected, rtol=1e-5, atol=1e-6)
    assert fitted.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-5)


def test_pillows_batches_feed_a_train_step_too(memory):
    batches = with_pillow(make(memory, EVERYTHING))
    (inputs, targets), *_ = batches.feed(0)
    assert inputs[PIXELS].shape == (4, 32, 32, 3)
    assert set(inputs) == {PIXELS, "operations", "signs", "jitter", "lighting", "erased", "colour", "kept", "box"}
    draws = {name: values for name, values in inputs.items() if name != PIXELS}
    given = [np.asarray(values) for values in compiled(EVERYTHING)(inputs[PIXELS], targets, draws)]
    assert same([tuple(given)], taken(batches)[:1])


@pytest.mark.slow  # imports TensorFlow again
def test_a_program_whose_training_is_interrupted_exits():
    code = """
import numpy as np
import image_batches, test_device_augmentation as tests
samples = image_batches.Memory(tuple(image_batches.stored(image_batches.scene(n, 400, 300)) for n in range(8)) * 100,
                               np.zeros(800, np.int32))
with tests.pytest.MonkeyPatch.context() as patch:
    tests.interrupt(patch, 1, 3)
    tests.fit(tests.network(), tests.make(samples, tests.EVERYTHING, batch_size=16), tests.quick(batch_size=16))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, capture_output=True, text=True)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
