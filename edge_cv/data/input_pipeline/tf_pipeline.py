"""Training batches by tf.data, where Keras runs on TensorFlow.

Python is called once a batch: it reads the JPEGs' headers and draws the crops. TensorFlow reads the files and decodes
only the crop of each JPEG, on all cores. Pillow decodes the other images in the same call: other formats, CMYK, 16
bits, EXIF rotation, truncated files, and photos so large that they are reduced while they are decoded.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.errors import InputError
from edge_cv.data.input_pipeline.augmentation import change, mix
from edge_cv.data.input_pipeline.draws import Draws, windows
from edge_cv.data.input_pipeline.jpeg import read_header, read_header_of_file
from edge_cv.data.input_pipeline.loading import (
    BatchPlan,
    BrokenImages,
    first_readable,
    reduction,
    row_of,
    square,
)
from edge_cv.data.places import FilePart
from edge_cv.parallel.threads import available_cores

_PER_IMAGE = ("operations", "signs", "jitter", "lighting", "erased", "colour")  # the random numbers of `change`
_PER_BATCH = ("kept", "box")  # and of `mix`

# The kinds of a row's content: a finished square, the path of a JPEG, a JPEG. Every further branch of the graph would
# cost each image some hundredths of a millisecond.
_SQUARE, _PATH, _JPEG = range(3)

# Unfinished epochs. TensorFlow's threads call Python, so an epoch that is open at Python's shutdown would block it.
_open: weakref.WeakSet[Any] = weakref.WeakSet()


@atexit.register
def _close() -> None:
    for batches in list(_open):
        with contextlib.suppress(ValueError):  # it runs in another thread
            batches.close()


class TfPipeline:
    """The batches of a plan, as tensors."""

    def __init__(self, plan: BatchPlan, broken: BrokenImages) -> None:
        self._plan = plan
        self._broken = broken
        self._refused: set[int] = set()  # JPEGs with a valid header that TensorFlow cannot decode
        self._failure: InputError | None = None
        self._names: list[str] = []  # of the random numbers that the graph takes
        self._graph: Any = None

    def epoch(self, number: int, first_step: int) -> Iterator[tuple[Any, Any]]:
        batches = self._batches(number, first_step)
        _open.add(batches)
        return batches

    def _batches(self, number: int, first_step: int) -> Iterator[tuple[Any, Any]]:
        import tensorflow as tf

        if self._graph is None:
            self._graph = self._build()
        make, spec = self._graph
        step = first_step
        while step < self._plan.sampler.steps:
            variant = make(tf.constant(number, tf.int64), tf.constant(step, tf.int64))
            try:
                for batch in tf.data.experimental.from_variant(variant, spec):
                    yield batch
                    step += 1
            except tf.errors.OpError:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure from None
                if not self._find_refused(number, step):
                    raise

    def _build(self) -> tuple[Any, Any]:
        """A function from epoch and first step to a dataset of batches, and the element spec of that dataset."""
        import tensorflow as tf

        plan, size = self._plan, self._plan.image_size
        batch, classes = plan.sampler.batch_size, len(plan.samples.classes)
        draws = plan.draws(0, 0)
        self._names = [name for name in (*_PER_IMAGE, *_PER_BATCH) if name in draws]
        per_image = [name for name in _PER_IMAGE if name in draws]
        per_batch = [name for name in _PER_BATCH if name in draws]
        kinds = [tf.string, tf.int32, tf.int32, tf.bool, tf.float32, *(draws[n].dtype for n in self._names)]
        shapes = [(batch,), (batch,), (batch, 4), (batch,), (batch, classes), *(draws[n].shape for n in self._names)]

        def read(epoch: Any, step: Any) -> tuple[Any, ...]:
            values = tf.numpy_function(self._read, [epoch, step], kinds, stateful=False)
            for value, shape in zip(values, shapes, strict=True):
                value.set_shape(shape)
            return (*values[:5], dict(zip(self._names, values[5:], strict=True)))

        def image_of(content: Any, kind: Any, window: Any, flip: Any, target: Any, draws: dict) -> tuple[Any, ...]:
            pixels = _decoded(content, kind, window, flip, size)
            if per_image:
                pixels = change(pixels, {name: draws[name] for name in per_image}, plan.augment)
            return (pixels, target, {name: draws[name] for name in per_batch}) if per_batch else (pixels, target)

        options = tf.data.Options()
        options.deterministic = True
        options.experimental_optimization.map_and_batch_fusion = True
        options.threading.private_threadpool_size = available_cores()
        options.threading.max_intra_op_parallelism = 1
        specs: list[Any] = []

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2)
        def make(epoch: Any, first_step: Any) -> Any:
            steps = tf.data.Dataset.range(first_step, plan.sampler.steps)
            data = steps.map(lambda step: read(epoch, step), num_parallel_calls=available_cores()).prefetch(1).unbatch()
            data = data.map(image_of, num_parallel_calls=available_cores()).batch(batch, drop_remainder=True)
            data = data.map(mix, num_parallel_calls=2) if per_batch else data
            data = data.prefetch(2).with_options(options)
            specs.append(data.element_spec)
            return tf.data.experimental.to_variant(data)

        make.get_concrete_function()
        return make, specs[-1]

    def _read(self, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        try:
            return self._batch(int(epoch), int(step))
        except InputError as error:
            self._failure = error
            raise

    def _batch(self, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        """Content, kind, window and flip of each image of a batch, the targets, and the random numbers."""
        plan, draws = self._plan, self._plan.draws(epoch, step)
        indices, contents, kinds, crops = self._rows(epoch, step, draws)
        flips = draws.get("flip", np.zeros(len(indices), bool))
        extra = (draws[name] for name in self._names)
        return contents, kinds, crops, flips, plan.targets(indices), *extra

    def _rows(self, epoch: int, step: int, draws: Draws) -> tuple[np.ndarray, ...]:
        """Index, content, kind and window of each image of a batch."""
        plan, size = self._plan, self._plan.image_size
        indices = plan.sampler.indices(epoch, step)
        contents, kinds = np.empty(len(indices), object), np.full(len(indices), _SQUARE, np.int32)
        jpegs = [self._plain_jpeg(int(index)) for index in indices]
        sizes = np.array([(1, 1) if jpeg is None else jpeg[2:] for jpeg in jpegs])
        crops = windows(plan.augment, draws, sizes[:, 0], sizes[:, 1])
        for row, jpeg in enumerate(jpegs):
            if jpeg is not None and reduction(crops[row], size) == 1:
                contents[row], kinds[row] = jpeg[:2]
                continue

            def read(index: int, draws_of_row: Draws = row_of(draws, row)) -> bytes:  # noqa: B008
                return square(plan.samples.encoded(index), draws_of_row, plan.augment, size).tobytes()

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
            if kind != _SQUARE:
                try:
                    tf.io.decode_jpeg(tf.io.read_file(content) if kind == _PATH else content, channels=3)
                except tf.errors.OpError:
                    self._refused.add(int(index))
        return len(self._refused) > before


def _decoded(content: Any, kind: Any, window: Any, flip: Any, size: int) -> Any:
    """The window of one image, resized and flipped: uint8 `(size, size, 3)`."""
    import tensorflow as tf

    def finished() -> Any:
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), (size, size, 3))

    def jpeg(path: bool) -> Any:
        file = tf.io.read_file(content) if path else content
        pixels = tf.image.decode_and_crop_jpeg(file, window, channels=3)[None]
        # Bilinear uses four pixels, enough while the window has at most twice as many pixels as the result.
        resized = tf.cond(
            window[2] * window[3] > 2 * size * size,
            lambda: tf.raw_ops.ResizeArea(images=pixels, size=(size, size)),
            lambda: tf.raw_ops.ResizeBilinear(images=pixels, size=(size, size), half_pixel_centers=True),
        )
        return tf.raw_ops.Reverse(tensor=tf.cast(resized[0] + 0.5, tf.uint8), dims=tf.stack([False, flip, False]))

    return tf.switch_case(kind, [finished, lambda: jpeg(True), lambda: jpeg(False)])


def _whole_file(samples: Any, index: int) -> str | None:
    """The path of an image that is a whole file; else None."""
    place = samples.place(index) if hasattr(samples, "place") else None
    return place.path if isinstance(place, FilePart) and place.offset == 0 and place.length is None else None
