from __future__ import annotations

import pytest

from edge_cv.stages import Steps


@pytest.fixture
def stage(tmp_path):
    """Runs a stage that writes one file, and counts how often it ran."""
    runs = []

    def once(inputs):
        def work():
            runs.append(inputs)
            (tmp_path / "made.bin").write_bytes(repr(inputs).encode())
            return {"inputs": inputs}, [tmp_path / "made.bin"]

        result, files = Steps(tmp_path).cached("make", inputs, work)
        return result, files, len(runs)

    return once


def test_a_stage_runs_once_for_the_same_inputs(stage):
    first = stage([1, 2])
    assert stage([1, 2]) == first
    assert first[0] == {"inputs": [1, 2]}


def test_a_stage_runs_again_for_other_inputs(stage):
    stage([1])
    result, _, runs = stage([2])
    assert (result, runs) == ({"inputs": [2]}, 2)


def test_a_stage_runs_again_when_its_file_is_gone_or_changed(stage, tmp_path):
    stage([1])
    (tmp_path / "made.bin").unlink()
    assert stage([1])[2] == 2
    (tmp_path / "made.bin").write_bytes(b"damaged")
    assert stage([1])[2] == 3


@pytest.mark.parametrize("record", ["", "{", "[]", '{"key": 1}', '{"key": "x", "files": 3, "result": 1}'])
def test_a_damaged_record_only_means_that_the_stage_runs(stage, tmp_path, record):
    stage([1])
    (tmp_path / "stages" / "make.json").write_text(record)
    assert stage([1])[2] == 2


def test_a_stage_that_fails_leaves_no_record(tmp_path):
    def fail():
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        Steps(tmp_path).cached("make", [1], fail)
    assert not (tmp_path / "stages").exists()
