from __future__ import annotations

import operator
import os
import signal
import time

import pytest

from converters.errors import InputError
from edge_cv.parallel.processes import map_in_processes, process_pool


def die(task: int) -> int:
    if task == 3:
        os._exit(1)
    return task


def slowly_with_process(task: int) -> tuple[int, int]:
    time.sleep(0.02 * (task % 3))
    return task, os.getpid()


def refuse(task: int) -> int:
    raise InputError(f"task {task} is invalid")


def process(task: int) -> int:
    return os.getpid()


def test_results_come_in_order_from_other_processes():
    results = list(map_in_processes(slowly_with_process, range(30)))
    assert [task for task, _ in results] == list(range(30))
    assert os.getpid() not in {process for _, process in results}


def test_small_work_is_done_in_this_process():
    assert set(map_in_processes(process, range(3), small=True)) == {os.getpid()}
    assert list(map_in_processes(operator.neg, [])) == []


def test_a_process_that_dies_is_an_input_error():
    with pytest.raises(InputError, match="a worker process died"):
        list(map_in_processes(die, range(8)))


def test_an_error_of_the_function_is_raised():
    with pytest.raises(InputError, match="task 0 is invalid"):
        list(map_in_processes(refuse, range(8)))


def blocked_signals(task: int) -> set[int]:
    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_ctrl_c_does_not_reach_the_processes():
    executor = process_pool(2)
    try:
        masks = [executor.submit(blocked_signals, task).result() for task in range(2)]
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    assert all(signal.SIGINT in mask for mask in masks)
    assert signal.SIGINT not in blocked_signals(0)
