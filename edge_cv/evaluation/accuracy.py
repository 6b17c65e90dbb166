"""What artifacts answer on labelled photos: top-1, top-5, agreement with a reference and what is left of its logits.

The photos are dealt out in chunks to worker processes, one a core. A worker decodes a chunk once, then runs one
artifact after the other over the whole chunk, so that an interpreter finds its weights and its code in the caches. A
worker keeps its interpreters between chunks and never imports TensorFlow. Each photo's figures are computed for itself
and summed in the source's order: the result is the same for any number of workers.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError, unknown
from converters.preprocessing import Preprocessing
from edge_cv.evaluation import runner
from edge_cv.evaluation.scores import Score, sqnr_db, wilson_interval

if TYPE_CHECKING:
    from edge_cv.data import ImageSource, Photo

_CHUNK = 16  # photos; enough for hot caches, few enough that a chunk's float pixels stay under 100 MB at 600 x 600


@dataclass(frozen=True)
class Prediction:
    """What every artifact said about one photo.

    Attributes:
        file: the photo.
        label: its true class, an index into the model's outputs; None when nobody said.
        top5: for each artifact's name the five likeliest classes, best first, as (index, probability 0..1).
    """

    file: Path
    label: int | None
    top5: dict[str, tuple[tuple[int, float], ...]]


class Predictions(Sequence[Prediction]):
    """The predictions in the source's order: a tuple to its users, 40 bytes an artifact and photo in memory."""

    def __init__(
        self, photos: Sequence[Photo], names: Sequence[str], indices: np.ndarray, probabilities: np.ndarray
    ) -> None:
        """
        Args:
            photos: those that could be read.
            names: of the artifacts.
            indices: classes `(photos, artifacts, 5)`, int32, likeliest first.
            probabilities: theirs, of the same shape, float32.
        """
        self._photos = tuple(photos)
        self._names = tuple(names)
        self._indices = indices
        self._probabilities = probabilities

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        photo = self._photos[position]
        pairs = zip(self._indices[position].tolist(), self._probabilities[position].tolist(), strict=True)
        top5 = [tuple(zip(indices, probabilities, strict=True)) for indices, probabilities in pairs]
        return Prediction(Path(photo.file), photo.label, dict(zip(self._names, top5, strict=True)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None


@dataclass(frozen=True)
class Evaluation:
    """How several artifacts did on the same photos.

    Attributes:
        images: photos that were classified.
        skipped: (file, why) of each photo that could not be read.
        scores: one for each artifact, by its name, in the order they were given.
        predictions: one for each classified photo, in the source's order.
        runtimes: what ran each artifact, e.g. "ai-edge-litert 2.3.0 XNNPACK".
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    scores: dict[str, Score]
    predictions: Sequence[Prediction] = field(repr=False)
    runtimes: dict[str, str]


def evaluate(
    artifacts: Mapping[str, str | os.PathLike],
    source: ImageSource,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    limit: int | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classifies the source's photos with every artifact, on all cores, decoding each photo once.

    An artifact is a .tflite or .onnx file with one input `(1, height, width, 3)`, RGB, and one output of logits. The
    range of its input is what its metadata says; without metadata it is `preprocessing.to_input`'s. Among equal logits
    (frequent in int8) the lower class comes first. Probabilities are the softmax of the dequantized logits.

    Args:
        artifacts: files by the names that the results will have.
        source: the photos. Labels are indices into the artifacts' outputs; photos without one do not count for
            `top1` and `top5`.
        preprocessing: how a photo is resized and cropped. Default: as the artifacts' metadata say.
        reference: the name of the artifact that the others are compared with.
        limit: take only so many of the photos, spread evenly over the source.
        workers: processes. Default: one for each processor that this process may use.
        on_progress: called with the numbers of photos done and of all photos, in this process.

    Raises:
        InputError: an artifact cannot be read or run or takes no RGB image, the artifacts do not fit one another, a
            label is outside the outputs, no photo can be read.
    """
    files = {name: Path(file) for name, file in artifacts.items()}
    photos = _photos(source, limit)
    _check(files, reference, workers)

    import loky
    from loky.process_executor import BrokenProcessPool

    workers = min(workers or loky.cpu_count(), len(photos))
    executor = _executor(workers)
    try:
        opening = {name: executor.submit(_describe, str(file)) for name, file in files.items()}
        metadata = {name: _metadata(file) for name, file in files.items()}  # while the workers start
        try:
            described = {name: future.result() for name, future in opening.items()}
        except BrokenProcessPool as error:
            raise _killer(files) from error
        preprocessing = preprocessing or _agreed_preprocessing(files, metadata)
        classes = _check_fit(files, described, preprocessing)
        _check_labels(photos, classes)

        task = _Task(
            tuple((str(file), metadata[name]) for name, file in files.items()), _index(files, reference), preprocessing
        )
        results, done = [], 0
        try:
            for chunk, result in _in_order(executor, task, photos, workers):
                results.append(result)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, len(photos))
        except BrokenProcessPool as error:
            raise InputError(
                f"a worker process died while it ran {', '.join(map(str, files.values()))}: "
                f"a file must be corrupt, or memory ran out ({workers} workers)"
            ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    runtimes = {name: description.runtime for name, description in described.items()}
    return _summary(photos, tuple(files), reference, results, runtimes)


# ---------------------------------------------------------------------------------------------- in the calling process


def _photos(source: ImageSource, limit: int | None) -> Sequence[Photo]:
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more. Received: {limit}")
    return source.take(limit).photos


def _check(files: Mapping[str, Path], reference: str | None, workers: int | None) -> None:
    if not files:
        raise InputError("artifacts must name at least one .tflite or .onnx file. Received: none")
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file} must be a .tflite or .onnx file. Received: no such file")
    if reference is not None and reference not in files:
        raise unknown("reference", reference, files)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more. Received: {workers}")


def _executor(workers: int):
    import loky

    # Every worker would otherwise start a thread pool as large as the machine when numpy is imported.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return loky.ProcessPoolExecutor(workers, initializer=_ignore_interrupts, env=single)


def _killer(files: Mapping[str, Path]) -> InputError:
    """The error that names the file whose opening ends a process, found by opening each in a process of its own."""
    from loky.process_executor import BrokenProcessPool

    for file in files.values():
        executor = _executor(1)
        try:
            executor.submit(_describe, str(file)).result()
        except BrokenProcessPool:
            return InputError(f"{file} killed the process that opened it: the file must be corrupt, or memory ran out")
        except InputError as error:
            return error
        finally:
            executor.shutdown(wait=True, kill_workers=True)
    return InputError(f"a worker process died while it opened {', '.join(map(str, files.values()))}: memory ran out")


def _metadata(file: Path) -> _Metadata:
    from converters import metadata

    record = metadata.read(file) or {}
    try:
        fields, offset = record.get("preprocessing"), (record.get("input") or {}).get("pixel_offset")
        if offset is not None and not isinstance(offset, int):
            raise InputError(f"pixel_offset must be a whole number or null. Received: {offset!r}")
        probabilities = (record.get("output") or {}).get("values") == "probabilities"
        return _Metadata(Preprocessing.from_dict(fields) if fields else None, offset, probabilities)
    except (InputError, AttributeError) as error:
        raise InputError(f"{file} has metadata that cannot be used: {error}") from error


def _index(files: Mapping[str, Path], reference: str | None) -> int | None:
    return None if reference is None else list(files).index(reference)


def _agreed_preprocessing(files: Mapping[str, Path], metadata: Mapping[str, _Metadata]) -> Preprocessing:
    known = {name: value.preprocessing for name, value in metadata.items() if value.preprocessing is not None}
    if not known:
        without = ", ".join(map(str, files.values()))
        raise InputError(f"preprocessing must be given for artifacts that have no metadata. Received: {without}")
    first = next(iter(known))
    for name, preprocessing in known.items():
        if _geometry(preprocessing) != _geometry(known[first]):
            raise InputError(
                f"the artifacts must resize and crop alike to be measured on the same pixels. Received: {files[first]} "
                f"with {_geometry(known[first])} and {files[name]} with {_geometry(preprocessing)}"
            )
    return known[first]


def _geometry(preprocessing: Preprocessing) -> tuple:
    p = preprocessing
    return p.image_size, p.resize_to or p.image_size, p.rule, p.interpolation


def _check_fit(files: Mapping[str, Path], described: Mapping[str, _Description], preprocessing: Preprocessing) -> int:
    """The number of classes, which every artifact must share."""
    size, first = preprocessing.image_size, next(iter(files))
    for name, description in described.items():
        if description.shape != (1, size, size, 3):
            raise InputError(
                f"{files[name]} must take the preprocessing's (1, {size}, {size}, 3). Received: {description.shape}"
            )
        if description.classes != described[first].classes:
            raise InputError(
                f"the artifacts must have the same classes. Received: {described[first].classes} in {files[first]}, "
                f"{description.classes} in {files[name]}"
            )
    return described[first].classes


def _check_labels(photos: Sequence[Photo], classes: int) -> None:
    for photo in photos:
        if photo.label is not None and not 0 <= photo.label < classes:
            raise InputError(
                f"labels must be in 0..{classes - 1}, the model's outputs. Received: {photo.label} for {photo.file}"
            )


def _in_order(
    executor, task: _Task, photos: Sequence[Photo], workers: int
) -> Iterator[tuple[Sequence[Photo], _ChunkResult]]:
    """Chunks and their results in the source's order, with only some of them under way, so that memory stays flat."""
    under_way: deque = deque()
    start = 0
    while start < len(photos) or under_way:
        while start < len(photos) and len(under_way) < 4 * workers:
            # smaller ones at the end, so that the workers finish together
            count = max(1, min(_CHUNK, (len(photos) - start) // (2 * workers)))
            chunk = photos[start : start + count]
            under_way.append((chunk, executor.submit(_classify, task, chunk)))
            start += count
        chunk, future = under_way.popleft()
        yield chunk, future.result()


def _summary(
    photos: Sequence[Photo],
    names: tuple[str, ...],
    reference: str | None,
    results: Sequence[_ChunkResult],
    runtimes: dict[str, str],
) -> Evaluation:
    reasons = [reason for result in results for reason in result.reasons]  # None for a photo that was read
    skipped = tuple((str(p.file), why) for p, why in zip(photos, reasons, strict=True) if why is not None)
    kept = [photo for photo, why in zip(photos, reasons, strict=True) if why is None]
    if not kept:
        raise InputError(f"no photo can be read: {skipped[0][1]} (and {len(skipped) - 1} more)")
    indices = np.concatenate([result.indices for result in results])
    probabilities = np.concatenate([result.probabilities for result in results])
    signal_sum = _ordered_sum([result.signal for result in results])
    noise_sum = _ordered_sum([result.noise for result in results])
    seconds = np.sum([result.seconds for result in results], axis=0)

    labels = np.array([-1 if photo.label is None else photo.label for photo in kept])
    labelled = labels >= 0
    trials = int(labelled.sum())
    scores = {}
    for column, name in enumerate(names):
        hits = indices[labelled, column] == labels[labelled, None]
        top1_hits, top5_hits = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
        agreed = None
        if reference is not None:
            agreed = int((indices[:, column, 0] == indices[:, names.index(reference), 0]).sum())
        scores[name] = Score(
            images=len(kept),
            top1=top1_hits / trials if trials else None,
            top5=top5_hits / trials if trials else None,
            top1_ci95=wilson_interval(top1_hits, trials),
            agreement=None if agreed is None else agreed / len(kept),
            agreement_ci95=None if agreed is None else wilson_interval(agreed, len(kept)),
            sqnr_db=None if reference is None else sqnr_db(float(signal_sum), float(noise_sum[column])),
            seconds_per_image=float(seconds[column]) / len(kept),
        )
    return Evaluation(len(kept), skipped, scores, Predictions(kept, names, indices, probabilities), runtimes)


def _ordered_sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum over photos; numpy adds in an order that depends on the length only, never on the chunks."""
    return np.concatenate(parts).sum(axis=0)


# ------------------------------------------------------------------------------------------------ in a worker process


@dataclass(frozen=True)
class _Task:
    artifacts: tuple[tuple[str, _Metadata], ...]  # each with its file
    reference: int | None  # its place among them
    preprocessing: Preprocessing


@dataclass(frozen=True)
class _Metadata:
    """What an artifact says of its input: None where it does not."""

    preprocessing: Preprocessing | None
    pixel_offset: int | None
    probabilities: bool  # whether the outputs are those, and no logits


@dataclass(frozen=True)
class _Description:
    shape: tuple[int, ...]
    classes: int
    runtime: str


@dataclass(frozen=True)
class _ChunkResult:
    """For the n photos of a chunk that could be read, and a artifacts.

    Attributes:
        reasons: for every photo of the chunk why it could not be read, or None.
        indices, probabilities: the five likeliest classes, `(n, a, 5)`.
        signal: sum of the squared reference logits, `(n,)`; zeros without a reference.
        noise: sum of the squared differences from them, `(n, a)`.
        seconds: time in inferences, `(a,)`.
    """

    reasons: tuple[str | None, ...]
    indices: np.ndarray
    probabilities: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    seconds: np.ndarray


@dataclass(frozen=True)
class _Feed:
    """How pixels become one artifact's input: by adding `pixel_offset`, or in the range of `preprocessing`."""

    dtype: str
    scale: float | None
    zero_point: int | None
    pixel_offset: int | None
    preprocessing: Preprocessing

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The inputs `(n, height, width, 3)` in the artifact's type for uint8 pixels of that shape."""
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu" and self.pixel_offset is not None:
            return _clipped(pixels.astype(np.int32) + self.pixel_offset, dtype)
        values = self.preprocessing.to_input(pixels)
        if dtype.kind == "f":
            return values.astype(dtype, copy=False)
        if self.scale is not None:
            values = np.rint(values / np.float32(self.scale)) + self.zero_point
        return _clipped(values, dtype)


class _Artifact:
    """An open model with its one input and output."""

    def __init__(self, file: str) -> None:
        try:
            self.model = runner.open_model(file, threads=1)
        except runner.ModelError as error:
            raise InputError(f"{file} cannot be opened: {error}") from error
        for what, tensors in (("input", self.model.inputs), ("output", self.model.outputs)):
            if len(tensors) != 1:
                raise InputError(f"{file} must have one {what}. Received: {len(tensors)}")
        self.file = file
        self.input, self.output = self.model.inputs[0], self.model.outputs[0]
        shape = self.input.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise InputError(f"{file} must take one RGB image, (1, height, width, 3). Received: {shape}")
        self.classes = int(np.prod(self.output.shape))

    def feed(self, metadata: _Metadata, preprocessing: Preprocessing) -> _Feed:
        """The artifact's own range goes before the caller's: the caller decides only what part of a photo is seen."""
        tensor, own = self.input, metadata.preprocessing or preprocessing
        return _Feed(tensor.dtype.name, tensor.scale, tensor.zero_point, metadata.pixel_offset, own)

    def logits(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        """Dequantized logits `(n, classes)`, float32, of inputs `(n, height, width, 3)`, and the seconds it took."""
        stored = np.empty((len(inputs), self.classes), self.output.dtype)
        seconds = 0.0
        for i in range(len(inputs)):
            self.model.set_input(inputs[i : i + 1])
            start = time.perf_counter()
            self.model.invoke()
            seconds += time.perf_counter() - start
            stored[i] = self.model.output().ravel()
        if self.output.scale is None:
            return stored.astype(np.float32), seconds
        return (stored.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale), seconds


_opened: dict[str, _Artifact] = {}  # a worker lives for one evaluation and keeps its interpreters through it


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the one that was called ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _artifact(file: str) -> _Artifact:
    if file not in _opened:
        _opened[file] = _Artifact(file)
    return _opened[file]


def _describe(file: str) -> _Description:
    """Opens an artifact and runs it once: a corrupt file shows itself here, by an error or by this process's death."""
    artifact = _artifact(file)
    try:
        artifact.logits(np.zeros(artifact.input.shape, artifact.input.dtype))
    except Exception as error:  # onnxruntime's derive from Exception directly
        raise InputError(f"{file} cannot be run: {' '.join(str(error).split())}") from error
    return _Description(artifact.input.shape, artifact.classes, artifact.model.runtime)


def _classify(task: _Task, photos: Sequence[Photo]) -> _ChunkResult:
    from edge_cv.data import load_pixels

    size = task.preprocessing.image_size
    pixels = np.empty((len(photos), size, size, 3), np.uint8)
    reasons: list[str | None] = []
    count = 0
    for photo in photos:
        try:
            pixels[count] = load_pixels(photo, task.preprocessing)
            count += 1
            reasons.append(None)
        except InputError as error:
            reasons.append(str(error))
    pixels = pixels[:count]
    read = [photo for photo, reason in zip(photos, reasons, strict=True) if reason is None]

    logits, seconds, inputs = [], [], {}
    for file, metadata in task.artifacts:
        artifact = _artifact(file)
        feed = artifact.feed(metadata, task.preprocessing)
        if feed not in inputs:
            inputs[feed] = feed(pixels)
        values, spent = artifact.logits(inputs[feed])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            photo = read[int(np.argmin(finite))]
            raise InputError(f"{file} must give finite logits. Received: NaN or infinity for {photo.file}")
        logits.append(values)
        seconds.append(spent)

    best = [_top5(v, metadata.probabilities) for v, (_, metadata) in zip(logits, task.artifacts, strict=True)]
    signal_sums, noise_sums = np.zeros(count), np.zeros((count, len(logits)))
    if task.reference is not None:
        expected = logits[task.reference].astype(np.float64)
        signal_sums = np.square(expected).sum(axis=1)
        noise_sums = np.stack([np.square(expected - values).sum(axis=1) for values in logits], axis=1)
    return _ChunkResult(
        tuple(reasons),
        np.stack([indices for indices, _ in best], axis=1),
        np.stack([probabilities for _, probabilities in best], axis=1),
        signal_sums,
        noise_sums,
        np.array(seconds),
    )


def _top5(outputs: np.ndarray, are_probabilities: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices and probabilities `(n, 5)` of the five largest of outputs `(n, classes)`; ties by the index."""
    indices = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    if are_probabilities:
        return indices.astype(np.int32), np.take_along_axis(outputs, indices, axis=1).clip(0, 1).astype(np.float32)
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return indices.astype(np.int32), np.take_along_axis(probabilities, indices, axis=1).astype(np.float32)


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(values, limits.min, limits.max).astype(dtype)
