"""Telling what a long command does, on stderr: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

# A step of known or unknown length: `with progress("measuring int8") as update: update(done, total)`.
Update = Callable[[int, int], None]
Progress = Callable[[str], AbstractContextManager[Update]]

MIN_LINE_SECONDS = 10.0  # where there is no terminal, how often a long step says how far it is


@contextlib.contextmanager
def silent(title: str) -> Iterator[Update]:
    """Progress that nobody sees: the default of the Python API."""
    yield lambda done, total: None


@contextlib.contextmanager
def shown(title: str) -> Iterator[Update]:
    """Progress on stderr."""
    with (_bar if sys.stderr.isatty() else _lines)(title) as update:
        yield update


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
    print(f"{title} ({time.monotonic() - start:.1f} s)", file=sys.stderr)


@contextlib.contextmanager
def _lines(title: str) -> Iterator[Update]:
    start = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= MIN_LINE_SECONDS:
            last = time.monotonic()
            print(f"{title}: {done} of {total}", file=sys.stderr, flush=True)

    yield update
    print(f"{title} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)
