"""Training batches by Pillow, where Keras does not run on TensorFlow: from files (by Grain where installed) or memory.

Pillow decodes, crops and flips on all cores. The other steps of augmentation follow on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.packages import missing_extra
from edge_cv.data.input_pipeline.augmentation import of_device
from edge_cv.data.input_pipeline.draws import Draws
from edge_cv.data.input_pipeline.loading import (
    BatchPlan,
    BrokenImages,
    crop,
    crop_of_image,
    first_readable,
    row_of,
)
from edge_cv.parallel.threads import available_cores, map_in_threads


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """Images in memory, used like `Samples`.

    Attributes:
        pixels: uint8 `(n, height, width, channels)`.
        labels: int `(n,)`, or `(n, classes)` of 0 and 1.
        classes: the class names in order.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str = "images in memory"

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.pixels)


class PillowPipeline:
    """The cropped and flipped batches of a plan, as arrays of numpy."""

    def __init__(self, plan: BatchPlan, broken: BrokenImages, workers: int = 0) -> None:
        """
        Args:
            plan: of the batches.
            broken: collects the images that cannot be read.
            workers: processes that decode files; 0 for threads of this process.
        """
        self._plan = plan
        self._broken = broken
        self._workers = workers

    def epoch(self, number: int, first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray, Draws]]:
        """Yields images, targets, and the random numbers of the steps that follow on the device."""
        plan, steps = self._plan, range(first_step, self._plan.sampler.steps)
        batches = self._through_grain if not isinstance(plan.samples, ArraySamples) else _through_threads
        for step, (images, targets, problems) in zip(steps, batches(steps, _Load(plan, number)), strict=True):
            for index, why in problems.items():
                self._broken.add(index, why)
            if isinstance(images, InputError):
                raise images
            yield images, targets, of_device(plan.draws(number, step))

    def _through_grain(self, steps: range, load: _Load) -> Iterable[Any]:
        try:
            import grain
        except ImportError:
            if not self._workers:
                return _through_threads(steps, load)
            raise missing_extra("decoding in processes", ["grain"], ["grain"]) from None

        if not steps:
            return ()
        threads = grain.ReadOptions(num_threads=available_cores(), prefetch_buffer_size=available_cores() + 1)
        data = grain.MapDataset.source(steps).map(load).to_iter_dataset(threads)
        if self._workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # Grain reads its flags when it starts processes
                flags.FLAGS.mark_as_parsed()
            data = data.mp_prefetch(grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2))
        return data


def _through_threads(steps: range, load: _Load) -> Iterable[Any]:
    return map_in_threads(load, steps, ahead=available_cores() + 1)


class _Load:
    """Makes a batch: the images, or the error if none can be read; the targets; the reasons of broken images."""

    def __init__(self, plan: BatchPlan, epoch: int) -> None:
        self._plan = plan
        self._epoch = epoch

    def __call__(self, step: int) -> tuple[Any, Any, dict[int, str]]:
        plan, broken = self._plan, BrokenImages(self._plan.samples, quiet=True)
        draws = plan.draws(self._epoch, step)
        images = np.empty((plan.sampler.batch_size, *plan.shape), np.uint8)
        indices = plan.sampler.indices(self._epoch, step)
        try:
            for row in range(len(images)):
                draws_of_row = row_of(draws, row)
                if isinstance(plan.samples, ArraySamples):
                    images[row] = _crop_of_array(plan.samples.pixels[indices[row]], draws_of_row, plan)
                else:

                    def read(index: int, draws_of_row: dict[str, np.ndarray] = draws_of_row) -> np.ndarray:
                        return crop(plan.samples.encoded(index), draws_of_row, plan.augment, plan.shape)

                    indices[row], images[row] = first_readable(plan, self._epoch, step, row, read, broken)
        except InputError as error:  # returned, because it may have to cross to another process
            return error, None, broken.reasons
        return images, plan.targets(indices), broken.reasons


def _crop_of_array(pixels: np.ndarray, draws: dict[str, np.ndarray], plan: BatchPlan) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    return crop_of_image(image, draws, plan.augment, plan.shape)
