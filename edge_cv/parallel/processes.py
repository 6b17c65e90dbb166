"""Process pools whose workers end with the process that started them, and an ordered map over them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from converters.errors import InputError
from converters.memory import limit_memory

Task = TypeVar("Task")
Result = TypeVar("Result")

_WATCH_SECONDS = 0.5
_WARNING = "ignore:resource_tracker:UserWarning"


def map_in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
    small: bool = False,
) -> Generator[Result, None, None]:
    """Apply a function to each task on all cores, with a bounded number of results waiting.

    Args:
        function: a function that can be pickled.
        tasks: its arguments, which should be small.
        initializer: called once in each process with `initargs`, which may be large.
        initargs: what all tasks share.
        small: whether the work takes less time than starting processes; this process then does it.

    Yields:
        The results, in the order of the tasks.

    Raises:
        InputError: a process died. What `function` raises is raised here.
    """
    if small or len(tasks) < 2:
        if initializer is not None:
            initializer(*initargs)
        yield from map(function, tasks)
        return

    import loky
    from loky.process_executor import BrokenProcessPool

    workers = min(loky.cpu_count(), len(tasks))
    executor = process_pool(workers, initializer, initargs)
    try:
        remaining = iter(tasks)
        waiting: deque[Any] = deque(executor.submit(function, task) for task in islice(remaining, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(executor.submit(function, task) for task in islice(remaining, 1))
            yield result
    except BrokenProcessPool as error:
        raise InputError(f"a worker process died: memory ran out, or it was killed ({workers} workers)") from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def process_pool(
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
    *,
    threads: bool = False,
    memory_bytes: int | None = None,
) -> Any:
    """A loky executor. Shut it down with `kill_workers`.

    Args:
        workers: the number of processes.
        initializer: called once in each process with `initargs`.
        initargs: its arguments.
        threads: whether numpy may use several threads in each process.
        memory_bytes: the memory that each process may take beside its own; None for all of the machine's.
    """
    import loky

    class Pool(loky.ProcessPoolExecutor):
        """Its processes start with Ctrl-C blocked: it reaches them too, and would print a traceback from each."""

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            with _blocked(signal.SIGINT):
                return super().submit(*args, **kwargs)

    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    _start_trackers()  # before `submit`, because their start would unblock Ctrl-C
    return Pool(
        workers,
        initializer=_initialize,
        initargs=(os.getpid(), memory_bytes, initializer, initargs),
        env=None if threads else single,
    )


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """Context in which a signal is blocked. A process that starts in it inherits that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_trackers() -> None:
    """Start the processes that remove semaphores when this one is killed, without the warning that they print then.

    The warning stays off in the environment, because worker processes start further ones.
    """
    import multiprocessing.resource_tracker

    from loky.backend import resource_tracker

    filters = os.environ.get("PYTHONWARNINGS", "")
    if _WARNING not in filters:
        os.environ["PYTHONWARNINGS"] = f"{filters},{_WARNING}" if filters else _WARNING
    with _blocked(signal.SIGHUP):  # of a closed terminal
        for tracker in (resource_tracker, multiprocessing.resource_tracker):
            tracker.ensure_running()


def _initialize(
    parent: int, memory_bytes: int | None, initializer: Callable[..., None] | None, initargs: tuple
) -> None:
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    if initializer is not None:
        initializer(*initargs)


def _watch(parent: int) -> None:
    """End this process when its parent is gone, for a killed parent cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
