"""A network of 200-odd weights, images that it can learn, and batches that interrupt its training."""

from __future__ import annotations

import keras
import numpy as np

from edge_cv.data.input_pipeline.batches import array_batches
from edge_cv.recipe import Fit

CLASSES = tuple("abc")


def network(*, seed: int = 0, batch_norm: bool = True, dropout: float = 0.0, classes: int = 3) -> keras.Model:
    """8x8 pixels to logits; 200-odd weights."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1, name="normalize")(pixels)
    x = layers.Conv2D(6, 3, use_bias=not batch_norm, name="stem_conv")(x)
    x = layers.BatchNormalization(name="stem_bn")(x) if batch_norm else x
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.Conv2D(6, 1, name="block1_conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    return keras.Model(pixels, layers.Dense(classes, name="logits")(x), name="tiny")


def coloured(count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images whose class is their brightest channel: uint8 `(count, 8, 8, 3)`, int `(count,)`."""
    rng = np.random.default_rng(5)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 8, 8, 3))
    images[np.arange(count), :, :, labels] += 60
    return images.astype(np.uint8), labels


def batches(batch_size: int = 8, seed: int = 0, count: int = 48):
    return array_batches(*coloured(count), classes=CLASSES, batch_size=batch_size, seed=seed)


def quick(**fields) -> Fit:
    return Fit(
        **{"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "warmup_epochs": 0, "weight_decay": 0.0, **fields}
    )


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.array(w) for w in model.get_weights()]


def assert_equal(a: keras.Model, b: keras.Model, **tolerance) -> None:
    for one, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or {"rtol": 0, "atol": 0}))


class Killed(Exception):
    pass


class Breaking:
    """Batches that interrupt a training at one step of one epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.whole, self.at = batches(), (epoch, step)
        self.classes, self.batch_size, self.multi_label = CLASSES, 8, False

    def __len__(self) -> int:
        return len(self.whole)

    def epoch(self, number: int, first_step: int = 0):
        for step, batch in enumerate(self.whole.epoch(number, first_step), first_step):
            if (number, step) == self.at:
                raise Killed
            yield batch
