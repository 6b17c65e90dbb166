"""Progress of long steps on stderr: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from converters.printable import printable


class Update(Protocol):
    """Reports how far a step is. `note` is shown beside it; the last one also at the end."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


# Reports one step: `with progress("measuring int8") as update: update(done, total)`. `update` need not be called.
Progress = Callable[[str], AbstractContextManager[Update]]

MIN_LINE_SECONDS = 10.0  # between two lines of a step, without a terminal


def duration(seconds: float) -> str:
    """A duration in its two largest units: `40 s`, `3 min 5 s`, `2 h 5 min`, `2 d 23 h`."""
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        whole = round(seconds / smaller)  # in smaller units
        if whole * smaller >= size:
            return f"{whole * smaller // size} {unit} {whole * smaller % size // smaller} {part}"
    return f"{round(seconds)} s"


@contextlib.contextmanager
def silent(title: str) -> Iterator[Update]:
    """Progress without output: the default of the Python API."""
    yield lambda done, total, note="": None


@contextlib.contextmanager
def shown(title: str) -> Iterator[Update]:
    """Progress on stderr. A step within another one is a further bar of its display."""
    with (_bar if sys.stderr.isatty() else _lines)(printable(title)) as update:
        yield lambda done, total, note="": update(done, total, printable(note))


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Update]:
    last_note = ""

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last_note
        last_note = note
        bars.update(task, completed=done, total=total, note=note)

    start = time.monotonic()
    with _display() as bars:
        task = bars.add_task(title, total=None, note="")
        try:
            yield update
        finally:
            bars.remove_task(task)
    _end(title, last_note, start)


_displays: list[Any] = []  # of the step that runs: at most one


@contextlib.contextmanager
def _display() -> Iterator[Any]:
    """The display of bars: a terminal has one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if _displays:
        yield _displays[0]
        return
    columns = (
        *(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        ),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        _displays.append(bars)
        try:
            yield bars
        finally:
            _displays.clear()


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


def _end(title: str, note: str, start: float) -> None:
    seconds = time.monotonic() - start
    took = "" if note and seconds < 0.05 else f" ({seconds:.1f} s)"  # such a step only shows its note
    print(f"{title}{f': {note}' if note else ''}{took}", file=sys.stderr, flush=True)
