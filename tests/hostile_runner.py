"""A runner on a board that misbehaves: `python hostile_runner.py WAY ...` in the place of `runner.py`.

The well-behaved events are those of `tiny_files`: three outputs for each of eight golden inputs.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

MODEL = {
    **{"event": "model", "runtime": "hostile 1.0", "cpu": "a board", "cores": 4, "machine": "aarch64"},
    **{"system": "Debian", "python": "3.11.2", "inputs": [], "outputs": []},
}
MEMORY, SENSORS = {"event": "memory", "peak_memory_bytes": 1000}, {"event": "sensors", "temperature_c": 40.0}
GOLDEN = {"event": "golden", "outputs": [[1.0, 2.0, 3.0]] * 8}
PROGRESS = {"event": "progress", "samples_ms": [1.0, 2.0, 3.0]}
LATENCY = {"event": "latency", "cpu_ms": 6.0}
ONE, TWO = [PROGRESS, LATENCY], [PROGRESS, LATENCY] * 2
START = [MODEL, MEMORY, GOLDEN, SENSORS]


def golden(outputs: Any) -> list[dict]:
    return [MODEL, MEMORY, {"event": "golden", "outputs": outputs}, SENSORS, *TWO]


def silent(events: list[dict]) -> Iterator[Any]:
    yield from events
    time.sleep(600)


def trickle() -> Iterator[bytes]:
    yield from map(_line, START)
    while True:
        yield b" "
        time.sleep(0.1)


def noisy() -> Iterator[Any]:
    for _ in range(200):
        os.write(2, b"a line of noise \x1b[31m" * 1000 + b"\n")
    yield from [*START, *TWO, SENSORS]


WAYS: dict[str, Any] = {
    "whole": lambda: [*START, *TWO, SENSORS],
    "noise on stderr": noisy,
    "one of two": lambda: [*START, *ONE],
    "half of the runs": lambda: [*START, *ONE, {"event": "progress", "samples_ms": [1.0]}],
    "fewer runs": lambda: [*START, {"event": "progress", "samples_ms": [1.0]}, LATENCY],
    "more runs": lambda: [*START, *ONE, PROGRESS, PROGRESS],
    "no golden outputs": lambda: [MODEL, MEMORY, SENSORS, *TWO],
    "golden null": lambda: golden(None),
    "golden of fewer images": lambda: golden([[1.0, 2.0, 3.0]] * 7),
    "golden of fewer classes": lambda: golden([[1.0, 2.0]] * 8),
    "golden ragged": lambda: golden([[1.0, 2.0, 3.0]] * 7 + [[1.0]]),
    "golden text": lambda: golden("none"),
    "golden nan": lambda: golden([[1.0, float("nan"), 3.0]] * 8),
    "golden huge": lambda: golden([[1.0, 10**400, 3.0]] * 8),
    "nothing": list,
    "only a model": lambda: [MODEL],
    "latency first": lambda: [PROGRESS, LATENCY],
    "model without names": lambda: [{"event": "model"}, *START, *TWO],
    "negative samples": lambda: [*START, *ONE, {"event": "progress", "samples_ms": [-1.0, 1.0, 1.0]}],
    "nan samples": lambda: [*START, {"event": "progress", "samples_ms": [float("nan")] * 3}, LATENCY],
    "no events": lambda: [{"kind": "model"}],
    "a list": lambda: [[1, 2]],
    "garbage": lambda: [bytes(range(256)) * 40 + b"\n"],
    "nested": lambda: [b"[" * 50_000 + b"\n"],
    "error with escape codes": lambda: [*START, {"event": "error", "message": "\x1b[2Jboom\n" * 5000}],
    "error without message": lambda: [MODEL, {"event": "error", "message": {"a": 1}}],
    "exit code of text": lambda: [*START, *ONE, {"event": "exit", "code": "none"}],
    "silent": lambda: silent([]),
    "silent after one": lambda: silent([*START, *ONE]),
    "a byte now and then": trickle,
    "a line without end": lambda: itertools.chain(map(_line, START), itertools.repeat(b"x" * 4096)),
    "events without end": lambda: itertools.chain(START, itertools.repeat(MEMORY)),
    "unknown events without end": lambda: itertools.chain(START, ONE, itertools.repeat({"event": "tick"})),
    "empty progress without end": lambda: itertools.chain(START, itertools.repeat({**PROGRESS, "samples_ms": []})),
}

# with --serve: the events and bytes after the first request
SERVED: dict[str, Any] = {
    "fewer bytes": lambda: [{"event": "outputs", "images": 2, "bytes": 4, "seconds": 0.1}, bytes(4)],
    "other images": lambda: [{"event": "outputs", "images": 9, "bytes": 24, "seconds": 0.1}, bytes(24)],
    "nan": lambda: [{"event": "outputs", "images": 2, "bytes": 24, "seconds": 0.1}, b"\xff" * 24],
    "seconds of text": lambda: [{"event": "outputs", "images": 2, "bytes": 24, "seconds": "long"}, bytes(24)],
    "no bytes": lambda: silent([{"event": "outputs", "images": 2, "bytes": 24, "seconds": 0.1}]),
    "no answer": lambda: silent([]),
    "the end": list,
}


def _line(event: Any) -> bytes:
    return event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"


def _write(events: Iterable[Any]) -> None:
    for event in events:
        content = _line(event)
        while content:
            content = content[os.write(1, content) :]


if __name__ == "__main__":
    if "--serve" in sys.argv:
        _write([MODEL])
        os.read(0, 1 << 16)
        _write(SERVED[sys.argv[1]]())
    else:
        _write(WAYS[sys.argv[1]]())
