"""Cached steps: what makes a step run again, and what does not."""

from __future__ import annotations

import json
import random

import pytest
from mutations import document

from edge_cv.stages import Steps


@pytest.fixture
def step(tmp_path):
    """Runs a step that writes one file, and counts how often it ran."""
    runs = []

    def run(inputs):
        def work():
            runs.append(inputs)
            (tmp_path / "made.bin").write_bytes(repr(inputs).encode())
            return {"inputs": inputs}, [tmp_path / "made.bin"]

        result, files = Steps(tmp_path).cached("make", inputs, work)
        return result, files, len(runs)

    return run


def test_a_step_runs_once_for_the_same_inputs(step):
    first = step([1, 2])
    assert step([1, 2]) == first
    assert first[0] == {"inputs": [1, 2]}


def test_a_step_runs_again_for_other_inputs(step):
    step([1])
    result, _, runs = step([2])
    assert (result, runs) == ({"inputs": [2]}, 2)


def test_a_step_runs_again_if_its_file_is_missing_or_changed(step, tmp_path):
    step([1])
    (tmp_path / "made.bin").unlink()
    assert step([1])[2] == 2
    (tmp_path / "made.bin").write_bytes(b"damaged")
    assert step([1])[2] == 3


@pytest.mark.parametrize("record", ["", "{", "[]", '{"key": 1}', '{"key": "x", "files": 3, "result": 1}'])
def test_a_step_with_a_damaged_record_runs_again(step, tmp_path, record):
    step([1])
    (tmp_path / "stages" / "make.json").write_text(record)
    assert step([1])[2] == 2


def test_a_step_with_a_changed_record_runs_again(step, tmp_path):
    rng, record = random.Random(0), tmp_path / "stages" / "make.json"
    step([1])
    whole = record.read_bytes()
    runs = 1
    for _ in range(60):
        content = document(json.loads(whole), rng)
        record.write_bytes(content)
        runs += _fields(content) != json.loads(whole)
        assert step([1])[2] == runs, content


def _fields(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def test_a_step_that_fails_leaves_no_record(tmp_path):
    def fail():
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        Steps(tmp_path).cached("make", [1], fail)
    assert not (tmp_path / "stages").exists()
