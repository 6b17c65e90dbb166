"""Running cases of hostile files in a process that is reused, with limits of time and memory."""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_cv.parallel.processes import process_pool

SECONDS = 120  # the first case starts the process
MEMORY_BYTES = 3_000_000_000


class IsolatedCases:
    """A process that runs one case after the other; a new one follows one that ended."""

    def __init__(self) -> None:
        self._pool: Any = None

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """The result of `work(*arguments)`.

        Raises:
            AssertionError: it took too long or too much memory, or ended the process.
        """
        from loky.process_executor import BrokenProcessPool

        if self._pool is None:
            self._pool = process_pool(1)
        try:
            result, peak = self._pool.submit(_measured, work, arguments).result(timeout=SECONDS)
        except BrokenProcessPool as error:
            self.close()
            raise AssertionError("the process ended") from error
        except concurrent.futures.TimeoutError as error:
            self.close()
            raise AssertionError(f"it took over {SECONDS} s") from error
        if peak > MEMORY_BYTES:
            self.close()
            raise AssertionError(f"it took {peak:,} bytes")
        return result

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None


def _measured(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """The result, and the largest resident memory of this process so far.

    Not `ru_maxrss`: a process inherits that from the one that started it.
    """
    result = work(*arguments)
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return result, int(kilobytes) * 1024
