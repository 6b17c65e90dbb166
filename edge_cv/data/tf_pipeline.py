"""Training batches by tf.data, where Keras runs on TensorFlow.

Python makes one call a batch: it reads the JPEGs' headers and decides on the windows. TensorFlow reads the files, and
decodes no more of a JPEG than its window, on all cores. What its decoder does not take as the evaluation does (other
formats, CMYK, 16 bits, files without their end) is decoded by Pillow in that same call.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.errors import InputError
from edge_cv.data import augmentation
from edge_cv.data.jpeg import START, read_header, read_header_of_file
from edge_cv.data.loading import Broken, Plan, cores, first_readable, reduction, row_of, square

# How the stored rows and columns become upright, by EXIF's orientation less one: exchange rows and columns (4), then
# reverse the rows (2), then the columns (1).
_TURNS = np.array([0, 1, 3, 2, 4, 5, 7, 6], np.int32)
_PER_IMAGE = ("operations", "signs", "jitter", "lighting", "erased", "colour")  # numbers that `change` reads
_PER_BATCH = ("own", "box")  # and `mix`

# What a row's content is and how it is decoded: a finished square, or a JPEG, or the path of one; how much it is
# reduced; whether it is resized by the mean of areas. Bilinear takes four pixels for one, which is enough while the
# window has at most twice as many pixels as the result.
_RAW = 0
_JPEGS = tuple(itertools.product((False, True), (1, 2, 4, 8), (False, True)))  # path, reduction, by area


class TfPipeline:
    """The batches of a plan; what `epoch` yields are tensors."""

    def __init__(self, plan: Plan, broken: Broken) -> None:
        self._plan = plan
        self._broken = broken
        self._refused: set[int] = set()  # JPEGs whose header is good and that TensorFlow cannot decode
        self._failure: InputError | None = None
        self._names: list[str] = []  # of the numbers that the graph takes
        self._graph: Any = None

    def epoch(self, number: int, first_step: int) -> Iterator[tuple[Any, Any]]:
        import tensorflow as tf

        if self._graph is None:
            self._graph = self._build()
        make, spec = self._graph
        step = first_step
        while step < self._plan.order.steps:
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
        """A function of epoch and first step that makes a data set of batches, and what its elements are."""
        import tensorflow as tf

        plan, size = self._plan, self._plan.image_size
        batch, classes = plan.order.batch_size, len(plan.samples.classes)
        numbers = plan.numbers(0, 0)
        self._names = [name for name in (*_PER_IMAGE, *_PER_BATCH) if name in numbers]
        per_image = [name for name in _PER_IMAGE if name in numbers]
        per_batch = [name for name in _PER_BATCH if name in numbers]
        kinds = [tf.string, tf.int32, tf.int32, tf.int32, tf.float32, *(numbers[n].dtype for n in self._names)]
        shapes = [(batch,), (batch,), (batch, 4), (batch,), (batch, classes), *(numbers[n].shape for n in self._names)]

        def read(epoch: Any, step: Any) -> tuple[Any, ...]:
            values = tf.numpy_function(self._read, [epoch, step], kinds, stateful=False)
            for value, shape in zip(values, shapes, strict=True):
                value.set_shape(shape)
            return (*values[:5], dict(zip(self._names, values[5:], strict=True)))

        def image_of(content: Any, kind: Any, window: Any, turn: Any, target: Any, numbers: dict) -> tuple[Any, ...]:
            pixels = _turned(_decoded(content, kind, window, size), turn)
            if per_image:
                pixels = augmentation.change(pixels, {name: numbers[name] for name in per_image}, plan.augment)
            return (pixels, target, {name: numbers[name] for name in per_batch}) if per_batch else (pixels, target)

        options = tf.data.Options()
        options.deterministic = True
        options.experimental_optimization.map_and_batch_fusion = True
        options.threading.private_threadpool_size = cores()
        options.threading.max_intra_op_parallelism = 1
        specs: list[Any] = []

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2)
        def make(epoch: Any, first_step: Any) -> Any:
            steps = tf.data.Dataset.range(first_step, plan.order.steps)
            data = steps.map(lambda step: read(epoch, step), num_parallel_calls=2).prefetch(2).unbatch()
            data = data.map(image_of, num_parallel_calls=cores()).batch(batch, drop_remainder=True)
            data = data.map(augmentation.mix, num_parallel_calls=2) if per_batch else data
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
        """Content, kind, window and turn of each of a batch's images, targets, and the random numbers."""
        numbers = self._plan.numbers(epoch, step)
        indices, contents, headers = self._files(epoch, step, numbers)
        targets = self._plan.targets(indices)
        return contents, *self._geometry(contents, headers, numbers), targets, *(numbers[name] for name in self._names)

    def _files(self, epoch: int, step: int, numbers: augmentation.Numbers) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        """Index, content (or path) and header of each of a batch's images; without a header content is the square."""
        plan = self._plan
        indices = plan.order.indices(epoch, step)
        contents = np.empty(len(indices), object)
        headers: list[Any] = [None] * len(indices)
        for row in range(len(indices)):

            def read(index: int, row: int = row) -> tuple[bytes, Any]:
                if index not in self._refused:
                    path = _whole_file(plan.samples, index)
                    if path is not None and (header := read_header_of_file(path)) is not None:
                        return os.fsencode(path), header
                content = plan.samples.encoded(index)
                header = None if index in self._refused else read_header(content)
                if header is None:
                    content = square(content, row_of(numbers, row), plan.augment, plan.image_size).tobytes()
                return content, header

            indices[row], (contents[row], headers[row]) = first_readable(plan, epoch, step, row, read, self._broken)
        return indices, contents, headers

    def _geometry(
        self, contents: np.ndarray, headers: list[Any], numbers: augmentation.Numbers
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kind, window in the pixels as they are stored, and turn of each image."""
        raw = np.array([header is None for header in headers])
        stored = np.array([(1, 1, 1) if h is None else (h.height, h.width, h.orientation) for h in headers])
        turns = _TURNS[stored[:, 2] - 1]
        exchanged, rows_reversed, columns_reversed = turns & 4 > 0, turns & 2 > 0, turns & 1 > 0
        heights = np.where(exchanged, stored[:, 1], stored[:, 0])
        widths = np.where(exchanged, stored[:, 0], stored[:, 1])
        top, left, height, width = augmentation.windows(self._plan.augment, numbers, heights, widths).T
        top = np.where(rows_reversed, heights - top - height, top)
        left = np.where(columns_reversed, widths - left - width, left)
        across = np.stack([left, top, width, height], 1)
        windows = np.where(exchanged[:, None], across, np.stack([top, left, height, width], 1))
        if "flip" in numbers:
            turns = turns ^ numbers["flip"]
        size = self._plan.image_size
        kinds = np.full(len(headers), _RAW, np.int32)
        for row in np.flatnonzero(~raw):
            reduce = reduction(windows[row], size)
            by_area = bool(windows[row, 2] * windows[row, 3] > 2 * (size * reduce) ** 2)
            kinds[row] = 1 + _JPEGS.index((not contents[row].startswith(START), reduce, by_area))
        return kinds, windows.astype(np.int32), np.where(raw, 0, turns).astype(np.int32)

    def _find_refused(self, epoch: int, step: int) -> bool:
        """Whether the batch has JPEGs that TensorFlow cannot decode; from now on Pillow does, or says why it cannot."""
        import tensorflow as tf

        numbers = self._plan.numbers(epoch, step)
        indices, contents, headers = self._files(epoch, step, numbers)
        before = len(self._refused)
        for index, content, header in zip(indices, contents, headers, strict=True):
            if header is not None:
                try:
                    tf.io.decode_jpeg(content if content.startswith(START) else tf.io.read_file(content), channels=3)
                except tf.errors.OpError:
                    self._refused.add(int(index))
        return len(self._refused) > before


def _decoded(content: Any, kind: Any, window: Any, size: int) -> Any:
    """The window of one image, resized to uint8 `(size, size, 3)`."""
    import tensorflow as tf

    def raw() -> Any:
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), (size, size, 3))

    def jpeg(path: bool, reduce: int, by_area: bool) -> Any:
        file = tf.io.read_file(content) if path else content
        pixels = tf.raw_ops.DecodeAndCropJpeg(contents=file, crop_window=window // reduce, channels=3, ratio=reduce)
        if by_area:
            resized = tf.raw_ops.ResizeArea(images=pixels[None], size=(size, size))
        else:
            resized = tf.raw_ops.ResizeBilinear(images=pixels[None], size=(size, size), half_pixel_centers=True)
        return tf.cast(resized[0] + 0.5, tf.uint8)

    return tf.switch_case(kind, [raw, *(lambda how=how: jpeg(*how) for how in _JPEGS)])


def _whole_file(samples: Any, index: int) -> str | None:
    """The file that an image is, where it is one and its source says so."""
    place = samples.place(index) if hasattr(samples, "place") else None
    whole = getattr(place, "path", None) is not None and place.offset == 0 and place.length is None
    return place.path if whole else None


def _turned(pixels: Any, turn: Any) -> Any:
    import tensorflow as tf

    def one(turn: int) -> Any:
        turned = tf.transpose(pixels, (1, 0, 2)) if turn & 4 else pixels
        axes = [axis for axis, bit in ((0, 2), (1, 1)) if turn & bit]
        return tf.reverse(turned, axes) if axes else turned

    return tf.switch_case(turn, [lambda t=t: one(t) for t in range(8)])
