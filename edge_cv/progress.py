"""Progress of long steps on stderr: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Update(Protocol):
    """Reports how far a step is. `note` is shown beside it; the last one also at the end."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


# Reports one step: `with progress("measuring int8") as update: update(done, total)`. `update` need not be called.
Progress = Callable[[str], AbstractContextManager[Update]]

MIN_LINE_SECONDS = 10.0  # between two lines of a step, without a terminal


@contextlib.contextmanager
def silent(title: str) -> Iterator[Update]:
    """Progress without output: the default of the Python API."""
    yield lambda done, total, note="": None


@contextlib.contextmanager
def shown(title: str) -> Iterator[Update]:
    """Progress on stderr."""
    with (_bar if sys.stderr.isatty() else _lines)(title) as update:
        yield update


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    last_note = ""

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last_note
        last_note = note
        bars.update(task, completed=done, total=total, note=note)

    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        TextColumn("{task.fields[note]}", markup=False),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, note="")
        yield update
    _end(title, last_note, start)


@contextlib.contextmanager
def _lines(title: str) -> Iterator[Update]:
    start = last_time = time.monotonic()
    last_note = ""

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last_time, last_note
        last_note = note
        if time.monotonic() - last_time >= MIN_LINE_SECONDS:
            last_time = time.monotonic()
            print(f"{title}: {done} of {total}{f', {note}' if note else ''}", file=sys.stderr, flush=True)

    yield update
    _end(title, last_note, start)


def duration(seconds: float) -> str:
    """A duration as text: `40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _end(title: str, note: str, start: float) -> None:
    seconds = time.monotonic() - start
    print(f"{title}{f': {note}' if note else ''} ({seconds:.1f} s)", file=sys.stderr, flush=True)
