"""Records of strangers: sidecars and metadata inside files, changed at random, are used or refused in one line."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_files
from mutations import SEEDS, document, refused_or_done

from converters import InputError, read_record
from converters.declared import declared_record
from edge_cv.data import Samples
from edge_cv.deploy.web.export import checked
from edge_cv.evaluation import inference
from edge_cv.evaluation.chunk_results import result_of
from edge_cv.evaluation.open_model import OpenModel
from edge_cv.pipeline.evaluate import named_files
from edge_cv.pipeline.file_model import labels_of

CASES = 60  # of each subject in the quick tests


def embedded(path: Path, content: bytes) -> Path:
    return tiny_files.write(path, record=content)


def beside(path: Path, content: bytes) -> Path:
    return tiny_files.write(path, beside=content)


SUBJECTS: dict[str, tuple[str, Callable[[Path, bytes], Path]]] = {
    "sidecar of tflite": ("tiny.tflite", beside),
    "record in tflite": ("tiny.tflite", embedded),
    "sidecar of onnx": ("tiny.onnx", beside),
    "record in onnx": ("tiny.onnx", embedded),
}


@pytest.fixture(scope="module")
def samples(photos):
    files = sorted(photos.rglob("*.png"))[:2]
    return Samples.from_files("two", files, [0, 1], ("cat", "dog", "other"))


def use(path: Path, samples: Samples) -> None:
    """All that reads a record: the record itself, the names in a report, an evaluation, a page."""
    with refused_or_done():
        record = read_record(path)
        json.dumps(record and record.to_json(), allow_nan=False).encode()
    with refused_or_done():
        json.dumps(checked(declared_record(path), path).to_json(), allow_nan=False)
    with refused_or_done():
        named_files([path])
    for name in labels_of(path) or ():
        assert isinstance(name, str)
    with refused_or_done():
        classifiers = {"tiny": OpenModel(str(path))}
        task = inference.task_of(classifiers, samples, None, None)
        pixels, reasons = inference.worker.decode(task, samples.chunk(0, 2))
        outputs = inference.worker.classify(task, pixels, samples.chunk(0, 2), lambda _: classifiers["tiny"])
        result = result_of(task, samples.chunk(0, 2), reasons, *outputs)
        assert np.isfinite(result.probabilities).all()


def fuzz(subject: str, samples: Samples, folder: Path, cases: int, seed: int) -> int:
    """The number of cases that were still a record."""
    name, make = SUBJECTS[subject]
    original = tiny_files.sidecar(name) if make is beside else tiny_files.RECORD
    rng, records = random.Random(f"{subject} {seed}"), 0
    for case in range(cases):
        content = document(original, rng)
        path = make(folder / name, content)
        try:
            use(path, samples)
            with contextlib.suppress(InputError):
                records += declared_record(path).labels is not None
        except BaseException as error:
            raise AssertionError(f"{subject}, seed {seed}, case {case}: {content[:3000]!r}") from error
    return records


@pytest.mark.parametrize("subject", SUBJECTS)
def test_changed_records_are_used_or_refused(subject, samples, tmp_path):
    assert fuzz(subject, samples, tmp_path, CASES, 0) > CASES / 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_many_changed_records_are_used_or_refused(subject, seed, samples, tmp_path):
    fuzz(subject, samples, tmp_path, 400, seed)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_unchanged_record_is_read(subject, samples, tmp_path):
    name, make = SUBJECTS[subject]
    original = tiny_files.sidecar(name) if make is beside else tiny_files.RECORD
    path = make(tmp_path / name, json.dumps(original).encode())
    record = read_record(path) or declared_record(path)
    assert record.labels == ("cat", "dog", "other")
    use(path, samples)
