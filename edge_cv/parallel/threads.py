"""Thread pools: the processors that are available, and an ordered map with a bounded number of results waiting."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREAD_NAME = "edge-cv"


@functools.cache
def available_cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int | None = None
) -> Iterator[Result]:
    """Apply a function to each item on all cores.

    Args:
        function: the function; an exception that it raises ends the iteration.
        items: its arguments, which are read as they are needed.
        ahead: the number of items that are in progress or wait for the caller. Default: four a core.

    Yields:
        The results, in the order of the items.
    """
    items = iter(items)
    pool = ThreadPoolExecutor(available_cores(), thread_name_prefix=THREAD_NAME)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(items, ahead or 4 * available_cores()))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
