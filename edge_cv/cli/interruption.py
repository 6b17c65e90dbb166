"""The signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a closed terminal.

The first one raises KeyboardInterrupt, so that worker processes are ended and temporary files removed. A later one ends
the process at once; finished work is kept even then, because files are renamed into place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from edge_cv.cli.exits import INTERRUPTED, fail

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEAT_SECONDS = 1.0  # a terminal and a parent process may both pass on one Ctrl-C
_AGAIN_SECONDS = 0.01


class Interruption:
    """What interrupted the command.

    Attributes:
        number: the signal; None if there was none.
        at_once: whether the first signal ends the process at once too.
    """

    def __init__(self, at_once: bool) -> None:
        self.number: int | None = None
        self.at_once = at_once
        self._since = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Raises KeyboardInterrupt at the first one."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()
            if not self.at_once:
                sys.unraisablehook = self._ignored
                raise KeyboardInterrupt
        if self.at_once or time.monotonic() - self._since > _REPEAT_SECONDS:
            self.end()

    def _ignored(self, error: sys.UnraisableHookArgs) -> None:
        """Handle an exception that Python ignores. Nothing is printed.

        An object whose construction was interrupted may fail in `__del__`. A KeyboardInterrupt raised while `__del__`
        or a callback runs is lost there: the signal is sent again, as a first one.
        """
        if issubclass(error.exc_type, KeyboardInterrupt) and self.number is not None:
            number, self.number = self.number, None
            threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()

    def end(self) -> None:
        """Report the interruption and end the process with 128 plus the signal's number, as a shell reports it.

        The interpreter's own exit may wait for threads, or end by the signal with another code.
        """
        number = self.number or signal.SIGINT
        cause = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        with contextlib.suppress(OSError, ValueError):  # the terminal may be closed
            fail(f"interrupted{cause}; finished work is kept, and the same command resumes from it", INTERRUPTED)
        os._exit(128 + number)


@contextlib.contextmanager
def interruption(at_once: bool = False) -> Iterator[Interruption]:
    """Context in which the signals interrupt the command. An ignored one stays ignored, as `nohup` asks for it.

    Args:
        at_once: whether the first signal ends the process at once, where there is nothing to clean up.
    """
    received = Interruption(at_once)
    before, hook = {number: signal.signal(number, received.receive) for number in _handled()}, sys.unraisablehook
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def end_at_a_signal(end: Callable[[], None]) -> None:
    """From now on, when the command has done its work, a signal ends the process by this function."""
    for number in _handled():
        signal.signal(number, lambda *_: end())


def _handled() -> list[signal.Signals]:
    main = threading.current_thread() is threading.main_thread()
    return [number for number in _SIGNALS if main and signal.getsignal(number) != signal.SIG_IGN]
