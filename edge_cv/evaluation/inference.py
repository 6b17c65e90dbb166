"""Running artifacts over photos in worker processes, one a core.

The photos are dealt out in chunks. A worker decodes a chunk once, then runs one artifact after the other over the whole
chunk, so that an interpreter finds its weights and its code in the caches. A worker keeps its interpreters between
chunks and never imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError, unknown
from converters.images.preprocessing import Preprocessing
from edge_cv.evaluation import runner
from edge_cv.parallel.processes import process_pool

if TYPE_CHECKING:
    from edge_cv.data import Sample, Samples
    from edge_cv.parallel.ray_cluster import RayCluster

CHUNK = 16  # photos; enough for hot caches, few enough that a chunk's float pixels stay under 100 MB at 600 x 600


@dataclass(frozen=True)
class Task:
    """What a worker needs to know of the artifacts.

    Attributes:
        artifacts: the file of each, and what it says of its input.
        reference: the place among them of the one that the others are compared with.
        preprocessing: what part of a photo the models see.
    """

    artifacts: tuple[tuple[str, Metadata], ...]
    reference: int | None
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Metadata:
    """What an artifact says of its input and output: None where it does not."""

    preprocessing: Preprocessing | None
    pixel_offset: int | None
    probabilities: bool  # whether the outputs are those, and no logits


def run(
    work: Callable[[Task, Sequence[Sample]], Any],
    artifacts: Mapping[str, str | os.PathLike],
    photos: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    chunk: int = CHUNK,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Any], dict[str, str]]:
    """Runs `work(task, some of the photos)` in worker processes.

    Args:
        work: a function of a module that a worker can import; its result is sent back.
        artifacts: files by name.
        photos: all of them.
        preprocessing: how a photo is resized and cropped. Default: as the artifacts' metadata say.
        reference: the name of the artifact that the others are compared with.
        chunk: at most so many photos at a time.
        workers: processes. Default: one for each processor that this process may use, or that the cluster has.
        cluster: where they run; None is this machine.
        on_progress: called with the numbers of photos done and of all photos, in this process.

    Returns:
        The result for each chunk, in the order of the photos, and what ran each artifact, by its name.

    Raises:
        InputError: an artifact cannot be read or run or takes no RGB image, the artifacts do not fit one another, or a
            label is outside the outputs.
    """
    files = {name: Path(file) for name, file in artifacts.items()}
    _check(files, reference, workers)

    import loky
    from loky.process_executor import BrokenProcessPool

    workers = min(workers or (loky.cpu_count() if cluster is None else cluster.cpus), len(photos))
    executor = process_pool(workers) if cluster is None else cluster.pool(files)
    try:
        opening = {name: executor.submit(_describe, str(file)) for name, file in files.items()}
        metadata = {name: metadata_of(file) for name, file in files.items()}  # while the workers start
        try:
            described = {name: future.result() for name, future in opening.items()}
        except BrokenProcessPool as error:
            raise _killer(files) from error
        task = _task(files, metadata, described, photos, preprocessing, reference)
        results, done = [], 0
        try:
            send = _send if cluster is None else _send_content
            for count, result in _in_order(executor, work, task, photos, send, workers, chunk):
                results.append(result)
                done += count
                if on_progress is not None:
                    on_progress(done, len(photos))
        except BrokenProcessPool as error:
            raise InputError(
                f"a worker process died while it ran {', '.join(map(str, files.values()))}: "
                f"a file must be corrupt, or memory ran out ({workers} workers)"
            ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    return results, {name: description.runtime for name, description in described.items()}


# ---------------------------------------------------------------------------------------------- in the calling process


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


def _killer(files: Mapping[str, Path]) -> InputError:
    """The error that names the file whose opening ends a process, found by opening each in a process of its own."""
    from loky.process_executor import BrokenProcessPool

    for file in files.values():
        executor = process_pool(1)
        try:
            executor.submit(_describe, str(file)).result()
        except BrokenProcessPool:
            return InputError(f"{file} killed the process that opened it: the file must be corrupt, or memory ran out")
        except InputError as error:
            return error
        finally:
            executor.shutdown(wait=True, kill_workers=True)
    return InputError(f"a worker process died while it opened {', '.join(map(str, files.values()))}: memory ran out")


def metadata_of(file: Path) -> Metadata:
    """What the file says; InputError where that cannot be used."""
    from converters.record import read_metadata

    record = read_metadata(file) or {}
    try:
        fields, offset = record.get("preprocessing"), (record.get("input") or {}).get("pixel_offset")
        if offset is not None and not isinstance(offset, int):
            raise InputError(f"pixel_offset must be a whole number or null. Received: {offset!r}")
        probabilities = (record.get("output") or {}).get("values") == "probabilities"
        return Metadata(Preprocessing.from_dict(fields) if fields else None, offset, probabilities)
    except (InputError, AttributeError) as error:
        raise InputError(f"{file} has metadata that cannot be used: {error}") from error


def task_of(
    classifiers: Mapping[str, Classifier],
    photos: Samples,
    preprocessing: Preprocessing | None,
    reference: str | None,
) -> Task:
    """The task of models that are open already, wherever they run; raises InputError as `run` does."""
    files = {name: Path(classifier.file) for name, classifier in classifiers.items()}
    _check(files, reference, None)
    metadata = {name: metadata_of(file) for name, file in files.items()}
    described = {name: _Description(c.input.shape, c.classes, c.runtime) for name, c in classifiers.items()}
    return _task(files, metadata, described, photos, preprocessing, reference)


def _task(
    files: Mapping[str, Path],
    metadata: Mapping[str, Metadata],
    described: Mapping[str, _Description],
    photos: Samples,
    preprocessing: Preprocessing | None,
    reference: str | None,
) -> Task:
    preprocessing = preprocessing or _agreed_preprocessing(files, metadata)
    _check_labels(photos, _check_fit(files, described, preprocessing))
    place = None if reference is None else list(files).index(reference)
    return Task(tuple((str(file), metadata[name]) for name, file in files.items()), place, preprocessing)


def _agreed_preprocessing(files: Mapping[str, Path], metadata: Mapping[str, Metadata]) -> Preprocessing:
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


def _check_labels(photos: Samples, classes: int) -> None:
    outside = np.argwhere(photos.labels[:, classes:]) if photos.multi_label else np.argwhere(photos.labels >= classes)
    if len(outside):
        index = int(outside[0, 0])
        label = classes + outside[0, 1] if photos.multi_label else photos.labels[index]
        raise InputError(
            f"labels must be in 0..{classes - 1}, the model's outputs. Received: {label} for {photos.path(index)}"
        )


def _send(photos: Samples, start: int, stop: int) -> tuple[Sample, ...]:
    return photos.chunk(start, stop)


def _send_content(photos: Samples, start: int, stop: int) -> tuple[Sample, ...]:
    from edge_cv.data import with_content

    return with_content(photos.chunk(start, stop))


def _in_order(
    executor: Any,
    work: Callable,
    task: Task,
    photos: Samples,
    send: Callable[[Samples, int, int], tuple[Sample, ...]],
    workers: int,
    most: int,
) -> Iterator[tuple[int, Any]]:
    """How many photos a chunk has and its result, in order, with only some under way, so that memory stays flat."""
    under_way: deque = deque()
    start = 0
    while start < len(photos) or under_way:
        while start < len(photos) and len(under_way) < 4 * workers:
            # smaller ones at the end, so that the workers finish together
            count = max(1, min(most, (len(photos) - start) // (2 * workers)))
            under_way.append((count, executor.submit(work, task, send(photos, start, start + count))))
            start += count
        count, future = under_way.popleft()
        yield count, future.result()


# ------------------------------------------------------------------------------------------------ in a worker process


@dataclass(frozen=True)
class _Description:
    shape: tuple[int, ...]
    classes: int
    runtime: str


@dataclass(frozen=True)
class Feed:
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


class Classifier(ABC):
    """An open model with its one input and output, wherever it runs.

    Attributes:
        file: the artifact.
        input, output: what it says of them.
        classes: numbers that one image's output has.
        runtime: what runs it.
    """

    def __init__(
        self, file: str, inputs: Sequence[runner.Tensor], outputs: Sequence[runner.Tensor], runtime: str
    ) -> None:
        for what, tensors in (("input", inputs), ("output", outputs)):
            if len(tensors) != 1:
                raise InputError(f"{file} must have one {what}. Received: {len(tensors)}")
        self.file, self.runtime = file, runtime
        self.input, self.output = inputs[0], outputs[0]
        shape = self.input.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise InputError(f"{file} must take one RGB image, (1, height, width, 3). Received: {shape}")
        self.classes = int(np.prod(self.output.shape))

    def feed(self, metadata: Metadata, preprocessing: Preprocessing) -> Feed:
        """The artifact's own range goes before the caller's: the caller decides only what part of a photo is seen."""
        tensor, own = self.input, metadata.preprocessing or preprocessing
        return Feed(tensor.dtype.name, tensor.scale, tensor.zero_point, metadata.pixel_offset, own)

    @abstractmethod
    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        """The outputs `(n, classes)` of inputs `(n, height, width, 3)` in the file's own types, and the seconds."""

    def logits(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        """Dequantized logits `(n, classes)`, float32, of inputs `(n, height, width, 3)`, and the seconds it took."""
        stored, seconds = self.stored(inputs)
        if self.output.scale is None:
            return stored.astype(np.float32), seconds
        return (stored.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale), seconds


class OpenModel(Classifier):
    """A model in this process."""

    def __init__(self, file: str, path: str | None = None) -> None:
        """`file` is what it is called, `path` where it lies, when that is elsewhere."""
        try:
            self.model = runner.open_model(path or file, threads=1)
        except runner.ModelError as error:
            raise InputError(f"{file} cannot be opened: {error}") from error
        super().__init__(file, self.model.inputs, self.model.outputs, self.model.runtime)

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        stored = np.empty((len(inputs), self.classes), self.output.dtype)
        seconds = 0.0
        for i in range(len(inputs)):
            self.model.set_input(inputs[i : i + 1])
            start = time.perf_counter()
            self.model.invoke()
            seconds += time.perf_counter() - start
            stored[i] = self.model.output().ravel()
        return stored, seconds


_opened: dict[str, OpenModel] = {}  # a worker lives for one evaluation and keeps its interpreters through it
_provided: dict[str, bytes] = {}  # SHA-256 of what was opened for an artifact that came from elsewhere


def _artifact(file: str) -> OpenModel:
    if file not in _opened:
        _opened[file] = OpenModel(file)
    return _opened[file]


def provide(contents: Mapping[str, bytes]) -> None:
    """Open artifacts from their content, under the names of the files that they are on another machine."""
    for file, content in contents.items():
        digest = hashlib.sha256(content).digest()
        if _provided.get(file) == digest:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(file).name)
            path.write_bytes(content)
            _opened[file], _provided[file] = OpenModel(file, str(path)), digest


def _describe(file: str) -> _Description:
    """Opens an artifact and runs it once: a corrupt file shows itself here, by an error or by this process's death."""
    artifact = _artifact(file)
    try:
        artifact.logits(np.zeros(artifact.input.shape, artifact.input.dtype))
    except Exception as error:  # onnxruntime's derive from Exception directly
        raise InputError(f"{file} cannot be run: {' '.join(str(error).split())}") from error
    return _Description(artifact.input.shape, artifact.classes, artifact.runtime)


def decode(task: Task, photos: Sequence[Sample]) -> tuple[np.ndarray, tuple[str | None, ...]]:
    """Pixels uint8 `(n, height, width, 3)` of the photos that can be read, and for each photo None or why not."""
    from edge_cv.data import load_pixels

    size = task.preprocessing.image_size
    pixels = np.empty((len(photos), size, size, 3), np.uint8)
    reasons: list[str | None] = []
    count = 0
    for photo in photos:
        try:
            pixels[count] = load_pixels(photo.place, task.preprocessing)
            count += 1
            reasons.append(None)
        except InputError as error:
            reasons.append(str(error))
    return pixels[:count], tuple(reasons)


def classify(
    task: Task, pixels: np.ndarray, photos: Sequence[Sample], opened: Callable[[str], Classifier] = _artifact
) -> tuple[list[np.ndarray], np.ndarray]:
    """What each artifact answers.

    Args:
        task: the artifacts.
        pixels: uint8 `(n, height, width, 3)`.
        photos: the n that they come from, to be named in an error.
        opened: gives the open model of an artifact's file. Default: one in this process.

    Returns:
        Outputs `(n, classes)`, float32, of each artifact, and the seconds that each spent in inferences.

    Raises:
        InputError: an output is NaN or infinite.
    """
    outputs, seconds, inputs = [], [], {}
    for file, metadata in task.artifacts:
        artifact = opened(file)
        feed = artifact.feed(metadata, task.preprocessing)
        if feed not in inputs:
            inputs[feed] = feed(pixels)
        values, spent = artifact.logits(inputs[feed])
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            photo = photos[int(np.argmin(finite))]
            raise InputError(f"{file} must give finite logits. Received: NaN or infinity for {photo.path}")
        outputs.append(values)
        seconds.append(spent)
    return outputs, np.array(seconds)


def _clipped(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.clip(values, limits.min, limits.max).astype(dtype)
