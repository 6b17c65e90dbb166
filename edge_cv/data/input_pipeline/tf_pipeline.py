"""Training batches by tf.data, where Keras runs on TensorFlow.

Python is called once a batch: it reads the JPEGs' headers and draws the crops. TensorFlow reads the files and decodes
only the crop of each JPEG, on all cores. Pillow decodes the other images in the same call: other formats, CMYK, 16
bits, EXIF rotation, truncated files, and photos so large that they are reduced while they are decoded. The other steps
of augmentation follow on the device.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.errors import InputError
from edge_cv.data.input_pipeline.augmentation import PIXELS, of_device
from edge_cv.data.input_pipeline.draws import Draws, windows
from edge_cv.data.input_pipeline.image_operations import GREY_WEIGHTS
from edge_cv.data.input_pipeline.jpeg import read_header, read_header_of_file
from edge_cv.data.input_pipeline.loading import (
    BatchPlan,
    BrokenImages,
    crop,
    first_readable,
    reduction,
    row_of,
)
from edge_cv.data.places import FilePart
from edge_cv.parallel.threads import available_cores

# The kinds of a row's content: a finished crop, the path of a JPEG, a JPEG. Every further branch of the graph would
# cost each image some hundredths of a millisecond.
_CROP, _PATH, _JPEG = range(3)

# TensorFlow's threads call Python to read. One that did so after Python's shutdown would block it for ever: at exit the
# reads of unfinished epochs fail at once, and the shutdown waits until none is left.
_exiting = False
_reading = 0
_count = threading.Lock()
_QUIET_SECONDS, _WAITING_SECONDS = 0.1, 5.0


@atexit.register
def _close() -> None:
    global _exiting
    _exiting = True
    start = quiet_since = time.monotonic()
    while _made and (now := time.monotonic()) - quiet_since < _QUIET_SECONDS and now - start < _WAITING_SECONDS:
        time.sleep(0.01)
        quiet_since = time.monotonic() if _reading else quiet_since


_made: weakref.WeakSet[Any] = weakref.WeakSet()  # the pipelines whose threads may read


class TfPipeline:
    """The cropped and flipped batches of a plan, as tensors."""

    def __init__(self, plan: BatchPlan, broken: BrokenImages) -> None:
        self._plan = plan
        self._broken = broken
        self._refused: set[int] = set()  # JPEGs with a valid header that TensorFlow cannot decode
        self._failure: InputError | None = None
        self._graph: Any = None

    def dataset(self, number: int, first_step: int) -> Any:
        """The epoch from `first_step` as a `tf.data.Dataset`; `SampleBatches.feed` describes its elements.

        It fails at a JPEG that TensorFlow cannot decode. `recover` then makes another dataset from that step possible.
        """
        import tensorflow as tf

        if self._graph is None:
            self._graph = self._build()
            _made.add(self)
        make, spec = self._graph
        variant = make(tf.constant(number, tf.int64), tf.constant(first_step, tf.int64))
        return tf.data.experimental.from_variant(variant, spec)

    def epoch(self, number: int, first_step: int) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
        """Yields images, targets, and the random numbers of the steps that follow on the device."""
        import tensorflow as tf

        step = first_step
        while step < self._plan.sampler.steps:
            try:
                for inputs, targets in self.dataset(number, step):
                    draws = dict(inputs) if isinstance(inputs, dict) else {PIXELS: inputs}
                    yield draws.pop(PIXELS), targets, draws
                    step += 1
            except tf.errors.OpError as error:
                if not self.recover(number, step, error):
                    raise

    def recover(self, number: int, step: int, error: Exception) -> bool:
        """Whether the epoch can go on from the step at which it failed, as Pillow decodes an image of it from now on.

        Raises:
            InputError: it failed because no image can be read.
        """
        import tensorflow as tf

        if not isinstance(error, tf.errors.OpError):
            return False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure from None
        return self._find_refused(number, step)

    def _build(self) -> tuple[Any, Any]:
        """A function from epoch and first step to a dataset of batches, and the element spec of that dataset."""
        import tensorflow as tf

        plan, cores = self._plan, available_cores()
        batch, classes = plan.sampler.batch_size, len(plan.samples.classes)
        draws = of_device(plan.draws(0, 0))
        kinds = [tf.string, tf.int32, tf.int32, tf.bool, tf.float32]
        shapes = [(batch,), (batch,), (batch, 4), (batch,), (batch, classes)]

        def read(epoch: Any, step: Any) -> tuple[Any, ...]:
            values = tf.numpy_function(self._read, [epoch, step], kinds, stateful=False)
            return tuple(tf.ensure_shape(value, shape) for value, shape in zip(values, shapes, strict=True))

        def drawn(epoch: Any, step: Any) -> dict[str, Any]:
            types = [values.dtype for values in draws.values()]
            values = tf.numpy_function(self._draws, [epoch, step], types, stateful=False)
            named = zip(draws, values, strict=True)
            return {name: tf.ensure_shape(value, draws[name].shape) for name, value in named}

        def image_of(content: Any, kind: Any, window: Any, flip: Any, target: Any) -> tuple[Any, Any]:
            return _decoded(content, kind, window, flip, plan.shape), target

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # every size is given; and an iterator would wait for its thread when it ends
        options.experimental_optimization.map_and_batch_fusion = True
        options.threading.private_threadpool_size = cores
        options.threading.max_intra_op_parallelism = 1
        specs: list[Any] = []

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2)
        def make(epoch: Any, first_step: Any) -> Any:
            steps = tf.data.Dataset.range(first_step, plan.sampler.steps)
            data = steps.map(lambda step: read(epoch, step), num_parallel_calls=cores).prefetch(1).unbatch()
            data = data.map(image_of, num_parallel_calls=cores).batch(batch, drop_remainder=True)
            if draws:
                numbers = steps.map(lambda step: drawn(epoch, step))
                data = tf.data.Dataset.zip(data, numbers)
                data = data.map(lambda one, given: ({PIXELS: one[0], **given}, one[1]))
            data = data.prefetch(2).with_options(options)
            specs.append(data.element_spec)
            return tf.data.experimental.to_variant(data)

        make.get_concrete_function()
        return make, specs[-1]

    def _draws(self, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        with _counted():
            return tuple(of_device(self._plan.draws(int(epoch), int(step))).values())

    def _read(self, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        with _counted():
            try:
                return self._batch(int(epoch), int(step))
            except InputError as error:
                self._failure = error
                raise

    def _batch(self, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        """Content, kind, window and flip of each image of a batch, and the targets."""
        plan, draws = self._plan, self._plan.draws(epoch, step)
        indices, contents, kinds, crops = self._rows(epoch, step, draws)
        flips = draws.get("flip", np.zeros(len(indices), bool))
        return contents, kinds, crops, flips, plan.targets(indices)

    def _rows(self, epoch: int, step: int, draws: Draws) -> tuple[np.ndarray, ...]:
        """Index, content, kind and window of each image of a batch."""
        plan = self._plan
        indices = plan.sampler.indices(epoch, step)
        contents, kinds = np.empty(len(indices), object), np.full(len(indices), _CROP, np.int32)
        jpegs = [self._plain_jpeg(int(index)) for index in indices]
        sizes = np.array([(1, 1) if jpeg is None else jpeg[2:] for jpeg in jpegs])
        crops = windows(plan.augment, draws, sizes[:, 0], sizes[:, 1], plan.shape)
        for row, jpeg in enumerate(jpegs):
            if jpeg is not None and reduction(crops[row], plan.shape) == 1:
                contents[row], kinds[row] = jpeg[:2]
                continue

            def read(index: int, draws_of_row: Draws = row_of(draws, row)) -> bytes:  # noqa: B008
                return crop(plan.samples.encoded(index), draws_of_row, plan.augment, plan.shape).tobytes()

            indices[row], contents[row] = first_readable(plan, epoch, step, row, read, self._broken)
        return indices, contents, kinds, crops

    def _plain_jpeg(self, index: int) -> tuple[bytes, int, int, int] | None:
        """Content, kind, height and width of an image that TensorFlow can decode; else None."""
        if index in self._refused or index in self._broken.reasons:
            return None
        path = _whole_file(self._plan.samples, index)
        if path is not None and (header := read_header_of_file(path)) is not None:
            content, kind = os.fsencode(path), _PATH
        else:
            try:
                content, kind = self._plan.samples.encoded(index), _JPEG
            except (InputError, OSError):
                return None  # `first_readable` reads it again, reports it and replaces it
            header = read_header(content)
        return (content, kind, header.height, header.width) if header and header.orientation == 1 else None

    def _find_refused(self, epoch: int, step: int) -> bool:
        """Whether the batch has JPEGs that TensorFlow cannot decode. Pillow decodes or reports them from now on."""
        import tensorflow as tf

        before = len(self._refused)
        for index, content, kind, _ in zip(*self._rows(epoch, step, self._plan.draws(epoch, step)), strict=True):
            if kind != _CROP:
                try:
                    tf.io.decode_jpeg(tf.io.read_file(content) if kind == _PATH else content, channels=3)
                except tf.errors.OpError:
                    self._refused.add(int(index))
        return len(self._refused) > before


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Context in which Python's shutdown waits for the reading thread; raises once the shutdown has begun."""
    global _reading
    if _exiting:
        raise RuntimeError("Python is shutting down")
    with _count:
        _reading += 1
    try:
        yield
    finally:
        with _count:
            _reading -= 1


def _decoded(content: Any, kind: Any, window: Any, flip: Any, shape: tuple[int, int, int]) -> Any:
    """The window of one image, resized and flipped: uint8 of this shape."""
    import tensorflow as tf

    height, width, channels = shape

    def finished() -> Any:
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), shape)

    def jpeg(path: bool) -> Any:
        file = tf.io.read_file(content) if path else content
        pixels = tf.image.decode_and_crop_jpeg(file, window, channels=3)[None]
        # Bilinear uses four pixels, enough while the window has at most twice as many pixels as the result.
        resized = tf.cond(
            window[2] * window[3] > 2 * height * width,
            lambda: tf.raw_ops.ResizeArea(images=pixels, size=(height, width)),
            lambda: tf.raw_ops.ResizeBilinear(images=pixels, size=(height, width), half_pixel_centers=True),
        )
        if channels == 1:
            resized = tf.reduce_sum(resized * GREY_WEIGHTS, axis=-1, keepdims=True)
        return tf.raw_ops.Reverse(tensor=tf.cast(resized[0] + 0.5, tf.uint8), dims=tf.stack([False, flip, False]))

    return tf.switch_case(kind, [finished, lambda: jpeg(True), lambda: jpeg(False)])


def _whole_file(samples: Any, index: int) -> str | None:
    """The path of an image that is a whole file; else None."""
    place = samples.place(index) if hasattr(samples, "place") else None
    return place.path if isinstance(place, FilePart) and place.offset == 0 and place.length is None else None
