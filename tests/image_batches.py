"""Images in memory as samples, and batches of them, for the tests of the input pipeline."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge_cv.data.input_pipeline.batches import SampleBatches, sample_batches
from edge_cv.data.input_pipeline.pillow_pipeline import PillowPipeline
from edge_cv.recipe import Augment

EVERYTHING = Augment(
    randaugment=1, brightness=0.4, hue=0.1, lighting=0.1, erasing=0.3, label_smoothing=0.1, mixup=0.2, cutmix=1.0
)
MIXED = Augment(erasing=0.3, mixup=0.2, cutmix=1.0)
PLAIN = Augment(crop_scale=None, flip=0.0)


@dataclass(frozen=True, eq=False)
class Memory:
    """Encoded images in memory, used like `Samples`."""

    contents: tuple[bytes, ...]
    labels: np.ndarray
    classes: tuple[str, ...] = ("a", "b", "c")
    name: str = "memory"

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.contents)

    def encoded(self, index: int) -> bytes:
        return self.contents[index]


def scene(number: int, width: int = 80, height: int = 60) -> Image.Image:
    """Smooth seeded colours, for which decoders and resamplers differ little."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def stored(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def taken(batches, epoch: int = 0, first_step: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(images), np.asarray(targets)) for images, targets in batches.epoch(epoch, first_step)]


def same(some, others) -> bool:
    pairs = zip(some, others, strict=True)
    return all((mine == other).all() for one, two in pairs for mine, other in zip(one, two, strict=True))


def make(samples, augment: Augment = MIXED, batch_size: int = 4, **options):
    return sample_batches(samples, image_size=32, batch_size=batch_size, seed=3, augment=augment, **options)


def by_pillow(batches, workers: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    return taken(with_pillow(batches, workers))


def with_pillow(batches, workers: int = 0) -> SampleBatches:
    """The same batches, read by Pillow."""
    return SampleBatches(batches.plan, PillowPipeline(batches.plan, batches._broken, workers), batches._broken)
