"""The memory of this process: what an untrusted model may take of it, by its file's size, and what it gives back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from converters.errors import InputError

Step = tuple[Iterable[Any], Mapping[Any, int]]  # the tensors that are read, and the values of those written
MAX_TENSOR_VALUES = 2**27  # of one tensor, 0.5 GB in float32; an image of 4096 pixels a side has 0.4 * 2^27
MAX_LIVE_VALUES = 2**28  # of all tensors that are in use at one time
BUDGET_BYTES = 2_400_000_000  # of activations, beside the weights
MIN_BUDGET_BYTES = 1_000_000_000  # of each of many processes
RUN_BYTES, THREAD_BYTES = 1_600_000_000, 150_000_000
WEIGHT_COPIES = 8  # as they are in the file, as a runtime packs them, and as it unpacks integers


def memory_for(file_bytes: int, processes: int = 1) -> int:
    """The memory, in bytes, that each of several processes may take to run models of a total file size."""
    return max(MIN_BUDGET_BYTES, BUDGET_BYTES // processes) + WEIGHT_COPIES * file_bytes


def limit_memory(more_bytes: int) -> int | None:
    """Let this process take at most so much more memory than now; what needs more raises MemoryError, or ends it.

    Returns:
        The limit before, for `resource.setrlimit`; None, and no limit, where the system cannot limit a process.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        before, hard = resource.getrlimit(resource.RLIMIT_AS)
        limits = [limit for limit in (size + more_bytes, before, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
        return before
    return None


@contextlib.contextmanager
def limited_memory(file_bytes: int) -> Iterator[None]:
    """Limit the memory of this process while a model of this size runs once in TensorFlow, which reports its end.

    Each core has threads, which reserve memory that they do not take.
    """
    cores = os.cpu_count() or 1
    before = limit_memory(RUN_BYTES + WEIGHT_COPIES * file_bytes + 2 * THREAD_BYTES * cores)
    try:
        yield
    finally:
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (before, resource.getrlimit(resource.RLIMIT_AS)[1]))


def return_freed_tensors() -> None:
    """Let TensorFlow return the memory of freed tensors to the system; without effect once it is imported.

    oneDNN's allocator otherwise keeps the most that was ever used: 0.5 GB of an int8 conversion of high effort.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def return_freed_memory() -> None:
    """Return to the system what Python, numpy and TensorFlow have freed, often 0.5 GB, which glibc would keep."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)


def check_activations(steps: Sequence[Step], what: str) -> int:
    """The values of a model's tensors that are in use at one time, at their most.

    Args:
        steps: its operations in the order in which they run.
        what: the model, for the message.

    Raises:
        InputError: the tensors are too large, alone or together.
    """
    last: dict[Any, int] = {}
    for at, (inputs, outputs) in enumerate(steps):
        last |= dict.fromkeys((*outputs, *inputs), at)
    live, most, sizes = 0, 0, dict[Any, int]()
    for at, (inputs, outputs) in enumerate(steps):
        sizes |= outputs
        live += sum(outputs.values())
        most = max(most, live)
        largest = max(outputs.values(), default=0)
        if largest > MAX_TENSOR_VALUES or live > MAX_LIVE_VALUES:
            raise InputError(
                f"{what} must compute at most {MAX_TENSOR_VALUES:,} values in a tensor, and {MAX_LIVE_VALUES:,} at a "
                f"time. Received: {largest:,} and {live:,}"
            )
        live -= sum(sizes.pop(tensor, 0) for tensor in (*inputs, *outputs) if last[tensor] == at)
    return most


def values_of(shape: Iterable[int | None]) -> int:
    """The number of values of a tensor; a free length counts as 1."""
    return math.prod(1 if size is None or size < 0 else int(size) for size in shape)
