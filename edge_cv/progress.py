"""Telling what a long command does, on stderr: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Update(Protocol):
    """Says how far a step is; `note` is what there is to tell of it meanwhile, and in the end."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


# A step of known or unknown length: `with progress("measuring int8") as update: update(done, total)`.
Progress = Callable[[str], AbstractContextManager[Update]]

MIN_LINE_SECONDS = 10.0  # where there is no terminal, how often a long step says how far it is


@contextlib.contextmanager
def silent(title: str) -> Iterator[Update]:
    """Progress that nobody sees: the default of the Python API."""
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

    told = ""

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal told
        told = note
        bars.update(task, completed=done, total=total, note=note)

    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        TextColumn("{task.fields[note]}", markup=False),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, note="")
        yield update
    _end(title, told, start)


@contextlib.contextmanager
def _lines(title: str) -> Iterator[Update]:
    start = last = time.monotonic()
    told = ""

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal last, told
        told = note
        if time.monotonic() - last >= MIN_LINE_SECONDS:
            last = time.monotonic()
            print(f"{title}: {done} of {total}{f', {note}' if note else ''}", file=sys.stderr, flush=True)

    yield update
    _end(title, told, start)


def _end(title: str, told: str, start: float) -> None:
    seconds = time.monotonic() - start
    print(f"{title}{f': {told}' if told else ''} ({seconds:.1f} s)", file=sys.stderr, flush=True)
