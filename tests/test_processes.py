from __future__ import annotations

import operator
import os
import time

import pytest

from converters.errors import InputError
from edge_cv.parallel.processes import map_in_processes


def die(task: int) -> int:
    if task == 3:
        os._exit(1)
    return task


def slowly(task: int) -> int:
    time.sleep(0.02 * (task % 3))
    return task


def refuse(task: int) -> int:
    raise InputError(f"task {task} must be another")


def test_results_come_in_order():
    assert list(map_in_processes(slowly, range(30))) == list(range(30))


def test_small_work_is_done_here():
    assert set(map_in_processes(process, range(3), small=True)) == {os.getpid()}
    assert os.getpid() not in set(map_in_processes(process, range(3)))
    assert list(map_in_processes(operator.neg, [])) == []


def process(task: int) -> int:
    return os.getpid()


def test_a_process_that_dies_is_an_error_and_no_traceback_of_ours():
    with pytest.raises(InputError, match="a worker process died"):
        list(map_in_processes(die, range(8)))


def test_what_the_work_refuses_is_refused():
    with pytest.raises(InputError, match="task 0 must be another"):
        list(map_in_processes(refuse, range(8)))
