"""Two processes in one folder of results: the second is refused and told which the first is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converters.errors import InputError
from converters.files import temporary_beside
from edge_cv.folder_lock import NAME, hold, holds

ROOT = Path(__file__).parents[1]
OTHER = """
import sys
from edge_cv.folder_lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder `run`."""
    command = [sys.executable, "-c", OTHER, str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_and_told_which_the_first_is(other, tmp_path):
    with pytest.raises(InputError, match=rf"one process at a time. Received: process {other.pid} works there"):
        hold(tmp_path / "run").__enter__()
    other.communicate(b"")
    assert not (tmp_path / "run").exists()  # nothing was written there
    with hold(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("kept")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_killed_process_holds_nothing_and_leaves_no_temporary_file(other, tmp_path):
    other.kill()
    other.wait()
    assert (tmp_path / "run" / NAME).exists()
    handle, temporary = temporary_beside(tmp_path / "run" / "report.json")
    os.close(handle)
    with hold(tmp_path / "run"):
        assert not os.path.exists(temporary)


def test_folders_in_which_nothing_was_written_are_removed(tmp_path):
    with hold(tmp_path / "runs" / "trial"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_function_holds_the_folder_that_its_parameter_names(tmp_path):
    @holds("out")
    def work(value: int, out: Path) -> tuple[int, bool]:
        with hold(out):  # this process holds it already
            pass
        return value, (out / NAME).exists()

    assert work(3, out=tmp_path) == (3, True)
    assert not (tmp_path / NAME).exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place, message in ((tmp_path / "file", "must be a folder"), (tmp_path / "a\0b", "cannot be written")):
        with pytest.raises(InputError, match=message):
            hold(place).__enter__()
