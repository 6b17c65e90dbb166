"""The streams and environment variables that a command finds: closed, of another encoding, or of another program."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

from converters.errors import unknown
from converters.printable import printable

KERAS_BACKENDS = ("tensorflow", "jax")


def open_streams() -> None:
    """Let every text be printed: closed streams swallow it, and what a stream cannot encode is escaped.

    A closed descriptor is opened on the null device first, because the next file would get its number, and what
    libraries print would end up in that file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # worker processes need it too
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Formatter(logging.Formatter):
    """Messages without what a terminal would obey, as names of files may hold it."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).splitlines()))


def log_to_stderr() -> None:
    """Print warnings of all modules on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def close_streams() -> None:
    """Write out what was printed; a reader that is gone is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # or the interpreter's own flush would fail and print it
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def check_backend() -> None:
    """Raise InputError if KERAS_BACKEND names no backend that this package uses."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend and backend not in KERAS_BACKENDS:
        raise unknown("KERAS_BACKEND", backend, KERAS_BACKENDS)
