"""Strangers' .onnx files, changed field by field and byte by byte: described and run, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import tiny_files
from isolated_cases import IsolatedCases
from model_mutations import changed_message
from mutations import SEEDS, damaged, refused_or_done

from converters.declared import declared_record
from edge_cv.evaluation.open_model import OpenModel

CASES = 100


def changed(content: bytes, rng: random.Random) -> bytes:
    import onnx

    if rng.random() < 0.2:
        return damaged(content, rng)
    model = onnx.load_from_string(content)
    changed_message(model, rng)
    return model.SerializeToString()


def described(path: Path) -> bool:
    """Whether the parent process of an evaluation can describe the file."""
    with refused_or_done():
        declared_record(path)
        return True
    return False


def run(path: Path) -> bool:
    """Whether a worker process of an evaluation can run the file."""
    from edge_cv.evaluation import worker

    with refused_or_done():
        worker.describe(str(path))
        return True
    return False


def fuzz(folder: Path, cases: int, seed: int, work) -> int:
    rng, done = random.Random(f"onnx {seed}"), 0
    for case in range(cases):
        path = folder / f"{case}.onnx"
        path.write_bytes(changed(tiny_files.onnx_content(tiny_files.record_bytes() if case % 2 else None), rng))
        try:
            done += work(path)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, case {case}") from error
    return done


def test_changed_files_are_described_or_refused(tmp_path):
    assert CASES / 10 < fuzz(tmp_path, CASES, 0, described) < CASES


@pytest.fixture(scope="module")
def isolated():
    cases = IsolatedCases()
    yield cases
    cases.close()


def test_changed_files_are_run_or_refused(isolated, tmp_path):
    assert fuzz(tmp_path, 40, 0, lambda path: isolated.run(run, path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_changed_files_are_described_and_run_or_refused(seed, isolated, tmp_path):
    fuzz(tmp_path, 400, seed, described)
    fuzz(tmp_path, 400, seed, lambda path: isolated.run(run, path))


def test_an_unchanged_file_is_described_and_run(tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny_files.onnx_content())
    assert described(path)
    assert OpenModel(str(path)).logits(np.zeros((1, 4, 4, 3), np.float32))[0].shape == (1, 3)
