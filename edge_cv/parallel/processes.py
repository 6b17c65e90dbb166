"""Work on all cores, in processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from typing import Any, TypeVar

from converters.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

_WATCH_SECONDS = 0.5


def in_processes(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    start: Callable[..., None] | None = None,
    given: tuple = (),
    small: bool = False,
) -> Generator[Result, None, None]:
    """`work(task)` for each task, in order, on all cores, with a bounded number of results waiting.

    Args:
        work: a function that can be pickled.
        tasks: its arguments, small ones.
        start: called once in each process with `given`, which may be large.
        given: what all tasks share.
        small: whether the work takes less time than starting processes; then this one does it.

    Raises:
        InputError: a process died, or what `work` raises.
    """
    if small or len(tasks) < 2:
        if start is not None:
            start(*given)
        yield from map(work, tasks)
        return

    import loky
    from loky.process_executor import BrokenProcessPool

    workers = min(loky.cpu_count(), len(tasks))
    executor = process_pool(workers, start, given)
    try:
        following = iter(tasks)
        waiting: deque[Any] = deque(executor.submit(work, task) for task in islice(following, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(executor.submit(work, task) for task in islice(following, 1))
            yield result
    except BrokenProcessPool as error:
        raise InputError(f"a worker process died: memory ran out, or it was killed ({workers} workers)") from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def process_pool(
    workers: int, start: Callable[..., None] | None = None, given: tuple = (), *, threads: bool = False
) -> Any:
    """Loky's executor of so many processes, which calls `start(*given)` in each; to be shut down with kill_workers.

    Without `threads` numpy has one in each, and not a pool as large as the machine.
    """
    import loky

    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    initargs = (os.getpid(), start, given)
    return loky.ProcessPoolExecutor(workers, initializer=_start, initargs=initargs, env=None if threads else single)


def _start(parent: int, start: Callable[..., None] | None, given: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if start is not None:
        start(*given)


def _watch(parent: int) -> None:
    """End this process when the one that started it was killed, which could not say so."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
