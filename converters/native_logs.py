"""Suppressing the log lines of native libraries that no log level turns off.

TensorFlow and LiteRT write such lines to file descriptor 2: that no GPU was found, that a delegate was created. While
`suppress_native_logs` is active the descriptor is redirected; at its end everything is passed on but these lines. What
Python writes to `sys.stderr`, such as progress bars, is not redirected.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

LINES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I0000 .*"
    rb"|E0000 .* failed call to cuInit: .*"
    rb"|W0000 .* Ignored (output_format|drop_control_dependency)\."
    rb"|INFO: (Created TensorFlow Lite XNNPACK delegate for CPU|Initialized TensorFlow Lite runtime)\."
)
_lock = threading.RLock()
_active = 0
_captured: IO[bytes] | None = None  # what was written while the redirection is active


@contextlib.contextmanager
def suppress_native_logs() -> Iterator[None]:
    """Drop the lines that match `LINES` from file descriptor 2; nested and parallel uses share one redirection."""
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


@contextlib.contextmanager
def suppress_dump_of_failure() -> Iterator[None]:
    """As `suppress_native_logs`; when the block raises, everything that was written to the descriptor is dropped.

    For a native compiler that dumps its intermediate code beside the exception that it raises.
    """
    with suppress_native_logs():
        try:
            yield
        except BaseException:
            with _lock:
                if _captured is not None:
                    _captured.seek(0)
                    _captured.truncate()
            raise


_stack = contextlib.ExitStack()


@contextlib.contextmanager
def _filtering() -> Iterator[None]:
    global _captured
    try:
        terminal = os.dup(2)
    except OSError:  # a daemon without a standard error
        yield
        return
    original = replaced = sys.stderr
    # Not a pipe: native code that fills it while it holds Python's global lock would block its reader.
    with tempfile.TemporaryFile() as captured, os.fdopen(terminal, "wb", buffering=0) as raw:
        if _writes_to_descriptor_2(original):
            original.flush()
            replaced = io.TextIOWrapper(_Unclosable(raw), original.encoding, "backslashreplace", write_through=True)
            sys.stderr = replaced
        os.dup2(captured.fileno(), 2)
        _captured = captured
        try:
            yield
        finally:
            _captured = None
            os.dup2(terminal, 2)
            if sys.stderr is replaced:
                sys.stderr = original
            captured.seek(0)
            for line in captured:
                if not LINES.fullmatch(line.rstrip(b"\n")):
                    raw.write(line)


class _Unclosable(io.RawIOBase):
    """Writes to the terminal while the redirection lasts, and to file descriptor 2 for code that keeps it longer."""

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
    except (AttributeError, OSError, ValueError):  # there is none, or a replacement
        return False


@contextlib.contextmanager
def log_level(name: str, level: int = logging.ERROR) -> Iterator[None]:
    """Raise a Python logger to `level` within the block; a higher level stays."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(max(before, level))
    try:
        yield
    finally:
        logger.setLevel(before)


def import_tensorflow() -> None:
    """Import TensorFlow, if it is not imported yet, without its log lines about missing hardware."""
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors stay
    collecting = gc.isenabled()
    gc.collect()  # what is garbage by now must not be frozen below
    gc.disable()  # scanning the 500,000 objects that it imports again and again would take over a second
    try:
        with suppress_native_logs():
            import tensorflow as tf

            tf.config.list_physical_devices()  # searches the driver now, not at the first operation
            gc.freeze()  # else each later collection would scan them again, 0.3 s; an int8 conversion makes several
    finally:
        if collecting:
            gc.enable()
