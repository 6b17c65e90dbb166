"""Batches of images to train on, in an order that seed and epoch decide, and batches to evaluate on.

A training batch is a function of seed, epoch and step, for any number of threads and wherever training is resumed. The
steps of augmentation are listed in `edge_cv.data.input_pipeline.augmentation`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from converters.errors import InputError
from converters.images.decoding import ImageError, decode_image
from converters.images.preprocessing import Preprocessing
from edge_cv.data.input_pipeline.augmentation import PIXELS, compiled
from edge_cv.data.input_pipeline.draws import Draws
from edge_cv.data.input_pipeline.loading import BatchPlan, BrokenImages, Encoded, one_hot
from edge_cv.data.input_pipeline.pillow_pipeline import ArraySamples, PillowPipeline
from edge_cv.data.input_pipeline.sampler import Sampler
from edge_cv.data.samples import UNKNOWN
from edge_cv.parallel.threads import map_in_threads
from edge_cv.recipe import Augment

logger = logging.getLogger(__name__)


class Batches(Protocol):
    """Batches of training images, in an order that seed and epoch decide.

    Attributes:
        classes: the class names in order.
        batch_size: images a step.
        multi_label: whether an image may have several classes.
    """

    classes: tuple[str, ...]
    batch_size: int
    multi_label: bool

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, number: int, first_step: int = 0) -> Iterable[tuple[Any, Any]]:
        """The batches of one epoch from `first_step`; earlier ones are not read.

        Yields:
            Images, uint8 or float32 `(batch, height, width, channels)`, pixels 0..255, and targets, float32
            `(batch, classes)`, whose rows sum to 1 (multi-hot for `multi_label`). Arrays of numpy or of the backend.
        """
        ...


def sample_batches(
    samples: Encoded,
    *,
    image_size: int | tuple[int, int],
    batch_size: int,
    seed: int,
    augment: Augment | None = None,
    balanced: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
    workers: int = 0,
    channels: int = 3,
) -> SampleBatches:
    """Training batches of image files, by tf.data where Keras runs on TensorFlow, else by Grain and Pillow.

    A file that cannot be read is logged, listed in `broken`, and replaced by the next one in the epoch's order. All
    random numbers are the same on every backend; the pixels differ by as much as two decoders and resamplers differ.

    Args:
        samples: the images and their labels. If no image has one, the targets are zeros, for a teacher to replace.
        image_size: height and width of the batches, in pixels; one number for squares.
        batch_size: images a step, on this host.
        seed: decides order and augmentation.
        augment: the augmentation. Default: `Augment()`, random crops and flips.
        balanced: whether all classes are taken equally often.
        shard_index, shard_count: this host and the number of hosts, which together take the batches of one host with
            `shard_count * batch_size`. With Mixup or CutMix `batch_size` must then be even.
        workers: processes that decode where Keras does not run on TensorFlow; 0 for threads, enough for ten cores.
        channels: 3 for RGB, 1 for grey images.

    Raises:
        InputError: some images have no label, `balanced` is used with several labels an image, or a size is invalid.
    """
    shape = _shape(image_size, channels)
    plan = _plan(samples, shape, batch_size, seed, augment or Augment(), balanced, shard_index, shard_count)
    broken = BrokenImages(samples)
    import keras

    if keras.backend.backend() == "tensorflow":
        from edge_cv.data.input_pipeline.tf_pipeline import TfPipeline

        return SampleBatches(plan, TfPipeline(plan, broken), broken)
    return SampleBatches(plan, PillowPipeline(plan, broken, workers), broken)


def array_batches(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    batch_size: int,
    seed: int,
    augment: Augment | None = None,
    image_size: int | tuple[int, int] | None = None,
    balanced: bool = False,
    shard_index: int = 0,
    shard_count: int = 1,
) -> Batches:
    """Training batches of images in memory, on any backend.

    Args:
        images: pixels 0..255, RGB `(n, height, width, 3)` or grey `(n, height, width, 1)` or `(n, height, width)`:
            uint8, or float32 where `augment` is None.
        labels: int `(n,)`, or `(n, classes)` of 0 and 1 for several labels an image.
        classes: the class names in order.
        batch_size: images a step, on this host.
        seed: decides order and augmentation.
        augment: the augmentation. Default: none.
        image_size: height and width of the batches, in pixels, with `augment`; one number for squares. Default: those
            of the images.
        balanced: whether all classes are taken equally often.
        shard_index, shard_count: as for `sample_batches`.

    Raises:
        InputError: images, labels and `classes` do not fit one another.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype not in (np.uint8, np.float32):
        raise InputError(
            "images must be uint8 or float32 (n, height, width, 3), or (n, height, width, 1) if they are grey. "
            f"Received: {images.dtype} {images.shape}"
        )
    if len(labels) != len(images):
        raise InputError(f"there must be one label an image. Received: {len(images)} images, {len(labels)} labels")
    if augment is not None and images.dtype != np.uint8:
        raise InputError(f"images must be uint8 to be augmented. Received: {images.dtype}")
    samples = ArraySamples(images, labels, tuple(classes))
    shape = _shape(image_size or images.shape[1:3], images.shape[3])
    plan = _plan(samples, shape, batch_size, seed, augment or Augment(), balanced, shard_index, shard_count)
    broken = BrokenImages(samples)
    pipeline = _Unchanged(plan, images) if augment is None else PillowPipeline(plan, broken)
    return SampleBatches(plan, pipeline, broken)


def is_labelled(batches: Batches) -> bool:
    """Whether the images have labels; the targets of images without any are all zeros."""
    return not isinstance(batches, SampleBatches) or batches.labelled


class SampleBatches:
    """`Batches` of a plan. Each `epoch` has its own threads, which end when it ends or is closed."""

    def __init__(self, plan: BatchPlan, pipeline: Any, broken: BrokenImages) -> None:
        self.classes = tuple(plan.samples.classes)
        self.batch_size = plan.sampler.batch_size
        self.multi_label = plan.samples.multi_label
        self.labelled = not _unlabelled(plan.samples.labels)
        self.plan = plan
        self._pipeline = pipeline
        self._broken = broken

    @property
    def augment(self) -> Augment:
        """The augmentation, whose steps after the flip `epoch` does and `feed` leaves to the train step."""
        return self.plan.augment

    @property
    def broken(self) -> dict[int, str]:
        """The reason by index for each image that could not be read so far."""
        return dict(self._broken.reasons)

    def __len__(self) -> int:
        return self.plan.sampler.steps

    def epoch(self, number: int, first_step: int = 0) -> Iterator[tuple[Any, Any]]:
        return self._finished(self._pipeline.epoch(number, first_step))

    def _finished(self, batches: Iterator[tuple[Any, Any, Draws]]) -> Iterator[tuple[Any, Any]]:
        with contextlib.closing(batches):  # type: ignore[type-var]  # generators
            for images, targets, draws in batches:
                yield compiled(self.augment)(images, targets, draws) if draws else (images, targets)

    def feed(self, number: int, first_step: int = 0) -> Any:
        """The epoch for Keras's `fit`: cropped and flipped images whose train step does the rest of the augmentation.

        Returns:
            A `tf.data.Dataset` if the images come from tf.data, else an iterator. Its elements are inputs and targets;
            the inputs are a dictionary of the images as `PIXELS` and of the random numbers for `augmented`, or only
            the images where the train step has nothing to do.
        """
        if isinstance(self._pipeline, PillowPipeline | _Unchanged):
            epoch = self._pipeline.epoch(number, first_step)
            return (({PIXELS: images, **draws} if draws else images, targets) for images, targets, draws in epoch)
        return self._pipeline.dataset(number, first_step)

    def recover(self, number: int, step: int, error: Exception) -> bool:
        """Whether an epoch of `feed` that failed at this step can go on from it: an image is decoded otherwise then.

        Raises:
            InputError: it failed because no image can be read.
        """
        recover = getattr(self._pipeline, "recover", None)
        return recover is not None and recover(number, step, error)


@dataclass(frozen=True, eq=False)
class _Unchanged:
    plan: BatchPlan
    images: np.ndarray

    def epoch(self, number: int, first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray, Draws]]:
        for step in range(first_step, self.plan.sampler.steps):
            indices = self.plan.sampler.indices(number, step)
            yield self.images[indices], self.plan.targets(indices), {}


def _shape(image_size: int | tuple[int, ...], channels: int) -> tuple[int, int, int]:
    """`(height, width, channels)` of the images; InputError for a length under 1 or other channels."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise InputError(f"image_size must be at least 1. Received: {image_size}")
    if channels not in (1, 3):
        raise InputError(f"channels must be 3 (RGB) or 1 (grey). Received: {channels}")
    return height, width, channels


def _plan(
    samples: Any,
    shape: tuple[int, int, int],
    batch_size: int,
    seed: int,
    augment: Augment,
    balanced: bool,
    shard_index: int,
    shard_count: int,
) -> BatchPlan:
    labels, classes = np.asarray(samples.labels), len(samples.classes)
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if labels.ndim == 2:
        if labels.shape[1] != classes or not np.isin(labels, (0, 1)).all():
            raise InputError(f"labels must be 0 and 1 (n, {classes}). Received: {labels.dtype} {labels.shape}")
        if balanced:
            raise InputError("balanced needs one label an image. Received: several")
    elif _unlabelled(labels) and classes:
        if balanced:
            raise InputError("balanced needs one label an image. Received: images without labels")
    elif not whole or not ((labels >= 0) & (labels < classes)).all():
        wrong = labels[(labels < 0) | (labels >= classes)][0] if whole else labels.dtype
        raise InputError(f"labels must be whole numbers in 0..{classes - 1} to train on. Received: {wrong}")
    if shard_count > 1 and (augment.mixup or augment.cutmix) and batch_size % 2:
        raise InputError(f"batch_size must be even for Mixup and CutMix on several hosts. Received: {batch_size}")
    sampler = Sampler(len(samples), batch_size, seed, shard_index, shard_count, labels if balanced else None)
    return BatchPlan(samples, sampler, augment, shape)


def _unlabelled(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and bool((labels == UNKNOWN).all())


@dataclass(frozen=True, eq=False)
class EvaluationBatches:
    """Every image once, in order, resized and cropped by `Preprocessing`; the last batch may be smaller. Reusable.

    Attributes:
        samples: the images and their labels.
        preprocessing: of the model.
        batch_size: images a batch.
    """

    samples: Encoded
    preprocessing: Preprocessing
    batch_size: int

    def __len__(self) -> int:
        """The number of batches if every image can be read."""
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images, uint8 `(batch, height, width, channels)`, and targets, float32 `(batch, classes)`.

        An image that cannot be read is logged and left out. The target of an image without a label is all zeros.

        Raises:
            InputError: no image can be read.
        """
        classes, images, indices, skipped = len(self.samples.classes), [], [], 0
        for index, pixels in enumerate(map_in_threads(self._pixels, range(len(self.samples)))):
            if isinstance(pixels, Exception):
                skipped += 1
                logger.warning("image %d of %s is left out: %s", index, self.samples.name, pixels)
                if skipped == len(self.samples):
                    raise InputError(f"none of the {skipped} images of {self.samples.name} can be read: {pixels}")
                continue
            images.append(pixels)
            indices.append(index)
            if len(images) == self.batch_size:
                yield np.stack(images), one_hot(self.samples.labels[indices], classes)
                images, indices = [], []
        if images:
            yield np.stack(images), one_hot(self.samples.labels[indices], classes)

    def _pixels(self, index: int) -> np.ndarray | Exception:
        try:
            return self.preprocessing.crop_and_resize(decode_image(self.samples.encoded(index)))
        except (ImageError, OSError) as error:
            return error


def evaluation_batches(samples: Encoded, preprocessing: Preprocessing, batch_size: int) -> EvaluationBatches:
    """Batches to evaluate on: without augmentation, with the pixels that `edge_cv.evaluation` uses.

    Raises:
        InputError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1. Received: {batch_size}")
    return EvaluationBatches(samples, preprocessing, batch_size)
