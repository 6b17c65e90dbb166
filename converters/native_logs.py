"""Keeping the libraries' chatter off the terminal, and only that.

TensorFlow's and LiteRT's native code writes remarks to file descriptor 2 that no log level switches off: that a GPU is
not there, that a delegate was made. What is said while `suppress_native_logs` is active is passed on at its end,
without the lines of those known kinds. What Python writes to `sys.stderr` (progress bars) does not take this detour.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

REMARKS = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I0000 .*"
    rb"|E0000 .* failed call to cuInit: .*"
    rb"|W0000 .* Ignored (output_format|drop_control_dependency)\."
    rb"|INFO: (Created TensorFlow Lite XNNPACK delegate for CPU|Initialized TensorFlow Lite runtime)\."
)
_lock = threading.RLock()
_active = 0


@contextlib.contextmanager
def suppress_native_logs() -> Iterator[None]:
    """Drop the lines that match `REMARKS` of what goes to file descriptor 2; nested and parallel uses share it."""
    global _active
    with _lock:
        if not _active:
            _stack.enter_context(_filtering())
        _active += 1
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if not _active:
                _stack.close()


_stack = contextlib.ExitStack()


@contextlib.contextmanager
def _filtering() -> Iterator[None]:
    try:
        terminal = os.dup(2)
    except OSError:  # a daemon without a standard error: nothing to keep clean
        yield
        return
    own = mine = sys.stderr
    # Not a pipe: code that writes much to it while it holds Python's global lock would wait for ever for its reader.
    with tempfile.TemporaryFile() as said, os.fdopen(terminal, "wb", buffering=0) as raw:
        if _writes_to_descriptor_2(own):
            own.flush()
            mine = io.TextIOWrapper(_Unclosable(raw), own.encoding, "backslashreplace", write_through=True)
            sys.stderr = mine
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            if sys.stderr is mine:
                sys.stderr = own
            said.seek(0)
            for line in said:
                if not REMARKS.fullmatch(line.rstrip(b"\n")):
                    raw.write(line)


class _Unclosable(io.RawIOBase):
    """Passes on what is written, also its being a terminal, and stays usable for who keeps it for too long."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._raw.write(data) if not self._raw.closed else os.write(2, data)

    def fileno(self) -> int:
        return 2 if self._raw.closed else self._raw.fileno()

    def isatty(self) -> bool:
        return os.isatty(self.fileno())


def _writes_to_descriptor_2(stream: Any) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):  # none, or a stand-in
        return False


@contextlib.contextmanager
def log_level(name: str, level: int = logging.ERROR) -> Iterator[None]:
    """Raise a Python logger to `level` for a while; one that is higher already stays."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(max(before, level))
    try:
        yield
    finally:
        logger.setLevel(before)


def import_tensorflow() -> None:
    """Import TensorFlow, if it is not there yet, without its remarks on what hardware it does not find."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors stay
    with suppress_native_logs():
        import tensorflow as tf

        tf.config.list_physical_devices()  # the driver is looked for now, not at the first operation
