"""Evaluation on a device: images are decoded on all cores of this machine and classified on the device.

The result of each chunk is kept in a journal, so that the same evaluation resumes after the device disconnected.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.evaluation import inference, worker
from edge_cv.evaluation.chunk_results import ChunkResult, result_of
from edge_cv.evaluation.remote.address import Adb, Ssh
from edge_cv.evaluation.remote.connecting import connect
from edge_cv.evaluation.remote.golden import describe
from edge_cv.evaluation.worker import Task
from edge_cv.parallel.processes import map_in_processes

if TYPE_CHECKING:
    from edge_cv.data import Sample, Samples


def run(
    address: Ssh | Adb,
    artifacts: Mapping[str, str | os.PathLike],
    samples: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    declaration: Declaration = NOTHING,
    journal: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ChunkResult], dict[str, str], str | None]:
    """Classify images on a device.

    Args:
        address: the device.
        artifacts, samples, preprocessing, reference, declaration, on_progress: as in `inference.run`.
        journal: a folder that keeps the results until all are complete. Default: none.

    Returns:
        The results in the order of the samples, the runtime of each model, and why results are missing, or None.

    Raises:
        InputError: as `inference.run`, or the device failed before any image was finished.
    """
    device = connect(address)
    models = {name: describe(Path(file)) for name, file in artifacts.items()}
    results: list[ChunkResult] = []
    with device.classifiers(list(models.values())) as opened:
        classifiers = dict(zip(models, opened, strict=True))
        runtimes = {name: classifier.runtime for name, classifier in classifiers.items()}
        task = inference.task_of(classifiers, samples, preprocessing, reference, declaration)
        size = device.images_at_once
        hashes = {name: model.sha256 for name, model in models.items()}
        key = [address, runtimes, hashes, reference, asdict(task.preprocessing), repr(declaration), size]
        kept = _Journal(None if journal is None else journal / _digest(key, samples))
        by_file = {classifier.file: classifier for classifier in opened}
        starts = range(0, len(samples), size)
        missing = [samples.chunk(start, start + size) for start in starts if not kept.has(start)]
        decoded = map_in_processes(_decode, missing, initializer=_set_task, initargs=(task,))
        done = 0
        try:
            for start in starts:
                result = kept.load(start)
                if result is None:
                    chunk, (pixels, reasons) = samples.chunk(start, start + size), next(decoded)
                    outputs = worker.classify(task, pixels, worker.readable(chunk, reasons), by_file.__getitem__)
                    result = result_of(task, chunk, reasons, *outputs)
                    kept.save(start, result)
                results.append(result)
                done += len(result.reasons)
                if on_progress is not None:
                    on_progress(done, len(samples))
        except InputError as error:
            if not results:
                raise
            return results, runtimes, f"{error} (after {done} of {len(samples)} images)"
        finally:
            decoded.close()
    return results, runtimes, None


def forget(journal: Path) -> None:
    """Remove a journal when the whole result has been saved."""
    shutil.rmtree(journal, ignore_errors=True)


def _digest(key: list[Any], samples: Samples) -> str:
    digest = hashlib.sha256(json.dumps(key, default=str).encode())
    for sample in samples.chunk(0, len(samples)):
        digest.update(os.fsencode(f"{sample.path}\0{sample.label}\0{sample.label_set}\n"))
    return digest.hexdigest()[:16]


class _Journal:
    """Results on disk, in a folder that is named after what they are results of; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def has(self, start: int) -> bool:
        return self._folder is not None and _file(self._folder, start).is_file()

    def load(self, start: int) -> ChunkResult | None:
        return ChunkResult.load(_file(self._folder, start)) if self._folder is not None and self.has(start) else None

    def save(self, start: int, result: ChunkResult) -> None:
        if self._folder is not None:
            result.save(_file(self._folder, start))


def _file(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.npz"


_task: Task  # of this worker process


def _set_task(task: Task) -> None:
    global _task
    _task = task


def _decode(samples: tuple[Sample, ...]) -> tuple[np.ndarray, tuple[str | None, ...]]:
    return worker.decode(_task, samples)
