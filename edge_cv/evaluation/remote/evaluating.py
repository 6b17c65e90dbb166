"""Artifacts on a device run over photos of this machine: decoded here on all cores, classified there, judged here.

What was judged is kept chunk by chunk in a journal, so that the same evaluation goes on where the device went away.
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

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from edge_cv.evaluation import inference
from edge_cv.evaluation.remote import Adb, Ssh, connect
from edge_cv.evaluation.remote.golden import describe
from edge_cv.parallel.processes import in_processes

if TYPE_CHECKING:
    from edge_cv.data import Sample, Samples
    from edge_cv.evaluation.accuracy import ChunkResult


def run(
    address: Ssh | Adb,
    judge: Callable[..., ChunkResult],
    artifacts: Mapping[str, str | os.PathLike],
    photos: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    journal: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ChunkResult], dict[str, str], str | None]:
    """What `inference.run` does, on a device; when that fails in the middle, the part that was done.

    Args:
        address: the device.
        judge: makes a chunk's result of the task, its photos, why each could not be read, logits and seconds.
        artifacts, photos, preprocessing, reference, on_progress: as `inference.run` takes them.
        journal: the folder where results are kept until all are there. Default: nowhere.

    Returns:
        The results in the photos' order, what ran each artifact, and why there are no more, or None.

    Raises:
        InputError: as `inference.run`, or the device failed before anything was done.
    """
    device = connect(address)
    known = {name: describe(Path(file)) for name, file in artifacts.items()}
    results: list[ChunkResult] = []
    with device.classifiers(list(known.values())) as opened:
        classifiers = dict(zip(known, opened, strict=True))
        runtimes = {name: classifier.runtime for name, classifier in classifiers.items()}
        task = inference.task_of(classifiers, photos, preprocessing, reference)
        by_file = {classifier.file: classifier for classifier in opened}
        size = device.images_at_once
        hashes = {name: artifact.sha256 for name, artifact in known.items()}
        kept = _Journal(journal, [address, runtimes, hashes, reference, asdict(task.preprocessing), size], photos)
        starts = range(0, len(photos), size)
        chunks = [photos.chunk(start, start + size) for start in starts]
        missing = [chunk for start, chunk in zip(starts, chunks, strict=True) if not kept.has(start)]
        decoded = in_processes(_decode, missing, start=_remember, given=(task,))
        done = 0
        try:
            for start, chunk in zip(starts, chunks, strict=True):
                result = kept.load(start)
                if result is None:
                    pixels, reasons = next(decoded)
                    read = [photo for photo, reason in zip(chunk, reasons, strict=True) if reason is None]
                    answers = inference.classify(task, pixels, read, by_file.__getitem__)
                    result = judge(task, chunk, reasons, *answers)
                    kept.save(start, result)
                results.append(result)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, len(photos))
        except InputError as error:
            if not results:
                raise
            return results, runtimes, f"{error} (after {done} of {len(photos)} photos)"
        finally:
            decoded.close()
    return results, runtimes, None


def forget(journal: Path) -> None:
    """Removes what was kept, when the whole result is safe."""
    shutil.rmtree(journal, ignore_errors=True)


class _Journal:
    """Results on the disk, in a folder whose name tells what they are results of."""

    def __init__(self, folder: Path | None, inputs: list[Any], photos: Samples) -> None:
        self._folder = None
        if folder is not None:
            digest = hashlib.sha256(json.dumps(inputs, default=str).encode())
            for photo in photos.chunk(0, len(photos)):
                digest.update(f"{photo.path}\0{photo.label}\0{photo.label_set}\n".encode())
            self._folder = folder / digest.hexdigest()[:16]

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:08d}.npz"

    def has(self, start: int) -> bool:
        return self._folder is not None and self._path(start).is_file()

    def load(self, start: int) -> ChunkResult | None:
        from edge_cv.evaluation.accuracy import ChunkResult

        return ChunkResult.load(self._path(start)) if self.has(start) else None

    def save(self, start: int, result: ChunkResult) -> None:
        if self._folder is not None:
            result.save(self._path(start))


_task: inference.Task | None = None  # in a worker process


def _remember(task: inference.Task) -> None:
    global _task
    _task = task


def _decode(photos: tuple[Sample, ...]) -> tuple[Any, tuple[str | None, ...]]:
    return inference.decode(_task, photos)
