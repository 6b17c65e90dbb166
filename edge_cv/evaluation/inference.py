"""Running models over images in worker processes, one for each core.

The images are divided into chunks. A worker decodes a chunk once and runs one model after the other over the whole
chunk, so that a model's weights and code stay in the processor's caches.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from converters.decisions import class_count
from converters.declared import BACKGROUND_OUTPUTS, NOTHING, Declaration, undeclared
from converters.errors import InputError, unknown
from converters.images.preprocessing import Preprocessing
from converters.memory import memory_for
from edge_cv.evaluation import worker
from edge_cv.evaluation.open_model import Classifier, IOMetadata, io_metadata
from edge_cv.evaluation.runner_events import check_runtime
from edge_cv.evaluation.worker import Description, Task
from edge_cv.parallel.processes import process_pool

if TYPE_CHECKING:
    from edge_cv.data import Sample, Samples
    from edge_cv.parallel.ray_cluster import RayCluster

CHUNK = 16  # images: enough for warm caches, few enough for a chunk's float pixels to stay under 100 MB at 600 x 600
Result = TypeVar("Result")


def run(
    work: Callable[[Task, Sequence[Sample]], Result],
    artifacts: Mapping[str, str | os.PathLike],
    samples: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    declaration: Declaration = NOTHING,
    chunk: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    runtime: str = "interpreter",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Result], dict[str, str]]:
    """Run `work(task, chunk of samples)` in worker processes.

    Args:
        work: a function of a module that a worker can import; its result is sent back.
        artifacts: model files, by name.
        samples: all images.
        preprocessing: crop and size of the images. Default: those in the models' metadata.
        reference: name of the model that the others are compared with.
        declaration: what the caller says about files that do not declare it.
        chunk: largest number of images in a chunk. Default: 16.
        workers: number of processes. Default: one for each available processor, here or on the cluster.
        cluster: where the processes run. Default: this machine.
        runtime: of .tflite files on this machine: `interpreter`, or `compiled` for LiteRT's CompiledModel.
        on_progress: called in this process with the numbers of finished and of all images.

    Returns:
        The result of each chunk, in the order of the samples, and the runtime of each model, by name.

    Raises:
        InputError: a model cannot be read or run or takes no image, the models do not match one another, or a
            label is not an index into the outputs.
    """
    files = {name: Path(file) for name, file in artifacts.items()}
    _check_files(files, reference, workers)
    check_runtime(runtime, files.values(), here=cluster is None)

    import loky
    from loky.process_executor import BrokenProcessPool

    workers = min(workers or (loky.cpu_count() if cluster is None else cluster.cpus), len(samples))
    executor = _limited_pool(workers, files.values(), runtime) if cluster is None else _cluster_pool(cluster, files)
    chunk_of = _chunk if cluster is None else _chunk_with_content
    try:
        models = _described(executor, files, declaration, preprocessing, runtime)
        task = _checked_task(models, samples, preprocessing, reference)
        results, done = [], 0
        try:
            for count, result in _in_order(executor, work, task, samples, chunk_of, workers, chunk or CHUNK):
                results.append(result)
                done += count
                if on_progress is not None:
                    on_progress(done, len(samples))
        except BrokenProcessPool as error:
            raise InputError(
                f"a worker process died while it ran {', '.join(map(str, files.values()))}: "
                f"a file is corrupt, or memory ran out ({workers} workers)"
            ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    return results, {name: description.runtime for name, description in models.described.items()}


def task_of(
    classifiers: Mapping[str, Classifier],
    samples: Samples,
    preprocessing: Preprocessing | None,
    reference: str | None,
    declaration: Declaration = NOTHING,
) -> Task:
    """The task for models that are already open, on any machine. Raises InputError as `run` does."""
    files = {name: Path(classifier.file) for name, classifier in classifiers.items()}
    _check_files(files, reference, None)
    metadata = {name: io_metadata(file, declaration, preprocessing) for name, file in files.items()}
    described = {name: Description(c.input.shape, c.classes, c.runtime) for name, c in classifiers.items()}
    return _checked_task(_Models(files, metadata, described), samples, preprocessing, reference)


# --------------------------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True)
class _Models:
    """The models' files, metadata and descriptions, each by name."""

    files: Mapping[str, Path]
    metadata: Mapping[str, IOMetadata]
    described: Mapping[str, Description]


def _described(
    executor: Any,
    files: Mapping[str, Path],
    declaration: Declaration,
    preprocessing: Preprocessing | None,
    runtime: str,
) -> _Models:
    """The models, each opened and run once in a worker process."""
    from loky.process_executor import BrokenProcessPool

    futures = {name: executor.submit(worker.describe, str(file)) for name, file in files.items()}
    try:
        described = {name: future.result() for name, future in futures.items()}
        metadata = {name: io_metadata(file, declaration, preprocessing) for name, file in files.items()}
        return _Models(files, metadata, described)
    except BrokenProcessPool as error:
        raise _killer(files, runtime) from error


def _limited_pool(workers: int, files: Iterable[Path], runtime: str) -> Any:
    """Processes that take memory in proportion to the files, whatever these declare."""
    memory_bytes = memory_for(sum(file.stat().st_size for file in files), workers)
    return process_pool(workers, worker.use_runtime, (runtime,), memory_bytes=memory_bytes)


def _check_files(files: Mapping[str, Path], reference: str | None, workers: int | None) -> None:
    if not files:
        raise InputError("artifacts must name at least one .tflite or .onnx file. Received: none")
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file} must be a .tflite or .onnx file. Received: no such file")
    if reference is not None and reference not in files:
        raise unknown("reference", reference, files)
    if workers is not None and workers < 1:
        raise InputError(f"workers must be 1 or more. Received: {workers}")


def _killer(files: Mapping[str, Path], runtime: str) -> InputError:
    """The error that names the file whose opening kills a process; each is opened again, in a process of its own."""
    from loky.process_executor import BrokenProcessPool

    for file in files.values():
        executor = _limited_pool(1, [file], runtime)
        try:
            executor.submit(worker.describe, str(file)).result()
        except BrokenProcessPool:
            return InputError(f"{file} killed the process that opened it: the file is corrupt, or memory ran out")
        except InputError as error:
            return error
        finally:
            executor.shutdown(wait=True, kill_workers=True)
    return InputError(f"a worker process died while it opened {', '.join(map(str, files.values()))}: memory ran out")


def _checked_task(
    models: _Models, samples: Samples, preprocessing: Preprocessing | None, reference: str | None
) -> Task:
    preprocessing = preprocessing or _common_preprocessing(models)
    models = _without_background(models, samples)
    outputs = _common_classes(models, preprocessing)
    _check_labels(samples, outputs if samples.multi_label else class_count(outputs))
    index = None if reference is None else list(models.files).index(reference)
    return Task(tuple((str(file), models.metadata[name]) for name, file in models.files.items()), index, preprocessing)


def _without_background(models: _Models, samples: Samples) -> _Models:
    """The models without the output of a background class, where the images have one class less than the outputs."""
    metadata, described = dict(models.metadata), dict(models.described)
    for name, description in models.described.items():
        if description.classes == BACKGROUND_OUTPUTS and len(samples.classes) in (0, BACKGROUND_OUTPUTS - 1):
            metadata[name] = replace(metadata[name], background=True)
            described[name] = replace(description, classes=BACKGROUND_OUTPUTS - 1)
    return _Models(models.files, metadata, described)


def _common_preprocessing(models: _Models) -> Preprocessing:
    declared = {name: value.preprocessing for name, value in models.metadata.items() if value.preprocessing is not None}
    if not declared:
        raise undeclared(", ".join(map(str, models.files.values())))
    first, expected = next(iter(declared.items()))
    for name, preprocessing in declared.items():
        if _geometry(preprocessing) != _geometry(expected):
            raise InputError(
                "all models must have the same crop and size to be evaluated on the same pixels. "
                f"Received: {models.files[first]} with {_geometry(expected)} and {models.files[name]} with "
                f"{_geometry(preprocessing)}"
            )
    return expected


def _geometry(preprocessing: Preprocessing) -> tuple:
    p = preprocessing
    return *p.shape, p.resize_to or min(p.height, p.width), p.rule, p.interpolation


def _common_classes(models: _Models, preprocessing: Preprocessing) -> int:
    """The number of classes, which every model must share."""
    shape, first = (1, *preprocessing.shape), next(iter(models.files))
    classes = models.described[first].classes
    for name, description in models.described.items():
        if description.shape != shape:
            raise InputError(
                f"{models.files[name]} must take the preprocessing's {shape}. Received: {description.shape}"
            )
        if description.classes != classes:
            raise InputError(
                f"all models must have the same number of classes. Received: {classes} in {models.files[first]}, "
                f"{description.classes} in {models.files[name]}"
            )
    return classes


def _check_labels(samples: Samples, classes: int) -> None:
    labels = samples.labels
    outside = np.argwhere(labels[:, classes:] if samples.multi_label else labels >= classes)
    if len(outside):
        index = int(outside[0, 0])
        label = classes + outside[0, 1] if samples.multi_label else labels[index]
        raise InputError(
            f"labels must be in 0..{classes - 1}, the model's outputs. Received: {label} for {samples.path(index)}"
        )


# --------------------------------------------------------------------------------------------------------------- chunks


def _cluster_pool(cluster: RayCluster, files: Mapping[str, Path]) -> Any:
    """Workers on the cluster that open the models from their content."""
    return cluster.pool(worker.provide, ({str(path): path.read_bytes() for path in files.values()},))


def _chunk(samples: Samples, start: int, stop: int) -> tuple[Sample, ...]:
    return samples.chunk(start, stop)


def _chunk_with_content(samples: Samples, start: int, stop: int) -> tuple[Sample, ...]:
    from edge_cv.data import with_content

    return with_content(samples.chunk(start, stop))


def _in_order(
    executor: Any,
    work: Callable[[Task, Sequence[Sample]], Result],
    task: Task,
    samples: Samples,
    chunk_of: Callable[[Samples, int, int], tuple[Sample, ...]],
    workers: int,
    most: int,
) -> Iterator[tuple[int, Result]]:
    """The number of samples and the result of each chunk, in order; only some are in memory at a time."""
    pending: deque = deque()
    start = 0
    while start < len(samples) or pending:
        while start < len(samples) and len(pending) < 4 * workers:
            # smaller ones at the end, so that the workers finish together
            count = max(1, min(most, (len(samples) - start) // (2 * workers)))
            pending.append((count, executor.submit(work, task, chunk_of(samples, start, start + count))))
            start += count
        count, future = pending.popleft()
        yield count, future.result()
