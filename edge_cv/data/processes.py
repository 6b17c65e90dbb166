"""Work on all cores, in processes that die with the one that started them."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from converters.errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    start: Callable[..., None] | None = None,
    given: tuple = (),
) -> Iterator[Result]:
    """`work(task)` for each task, in order, on all cores, with a bounded number of results waiting.

    Args:
        work: a function that can be pickled.
        tasks: its arguments, small ones.
        start: called once in each process with `given`, which may be large.

    Raises:
        InputError: a process died, or what `work` raises.
    """
    import loky
    from loky.process_executor import BrokenProcessPool

    workers = loky.cpu_count()
    # Every process would otherwise start a thread pool as large as the machine when numpy is imported.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    executor = loky.ProcessPoolExecutor(workers, initializer=_start, initargs=(start, given), env=single)
    try:
        tasks = iter(tasks)
        waiting: deque[Any] = deque(executor.submit(work, task) for task in islice(tasks, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(executor.submit(work, task) for task in islice(tasks, 1))
            yield result
    except BrokenProcessPool as error:
        raise InputError(f"a worker process died: memory ran out, or it was killed ({workers} workers)") from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _start(start: Callable[..., None] | None, given: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first one ends the others
    if start is not None:
        start(*given)
