"""Measuring latency and peak memory on this machine, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError
from edge_cv.evaluation.latency import Latency
from edge_cv.evaluation.runner_events import Repetitions, RunnerEvents, runner_events


@dataclass(frozen=True)
class Performance:
    """Latency and memory of one model.

    Attributes:
        latency: one value for each thread count, in the requested order.
        peak_memory_bytes: growth of the process's resident memory from before the model was opened to its peak while it
            ran with one thread; None where the operating system does not report it.
    """

    latency: tuple[Latency, ...]
    peak_memory_bytes: int | None


def measure(
    path: str | os.PathLike,
    *,
    threads: Sequence[int] = (1,),
    runs: int = 50,
    warmup: int = 10,
    on_progress: Callable[[int, int], None] | None = None,
) -> Performance:
    """Measure a model in a new process: for each thread count `warmup` inferences, then `runs` timed ones.

    Args:
        path: a .tflite or .onnx file.
        threads: thread counts, each 1 or more.
        runs: timed inferences for each thread count, 1 or more.
        warmup: inferences before them that are not timed, 0 or more.
        on_progress: called with the numbers of finished and of all timed inferences.

    Returns:
        Latency for each thread count, and peak memory.

    Raises:
        InputError: a count is out of range, the file is missing, or it cannot be run.
    """
    path, repetitions = Path(path), Repetitions(tuple(threads), runs, warmup)
    if not path.is_file():
        raise InputError(f"{path} must be a .tflite or .onnx file. Received: no such file")
    events = RunnerEvents(repetitions.threads, runs, on_progress)
    for event in runner_events(path, *repetitions.options()):
        events.add(event)
    return Performance(events.latency, events.peak_memory_bytes)


def measure_in_turns(
    artifacts: Mapping[str, str | os.PathLike],
    *,
    threads: Sequence[int] = (1,),
    runs: int = 50,
    warmup: int = 10,
    rounds: int = 3,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Performance]:
    """Measure several models in turns, for several rounds, so that their latencies can be compared.

    The machine warms up and other programs start and stop; in turns, this affects all models alike.

    Args:
        artifacts: .tflite or .onnx files, by the names that the results will have.
        threads, runs, warmup: as in `measure`; `runs` is divided over the rounds.
        rounds: number of rounds, 1 or more; at most `runs`.
        on_progress: called with the numbers of finished and of all timed inferences.

    Returns:
        Latency and memory of each model, by its name.

    Raises:
        InputError: as `measure`.
    """
    rounds = max(1, min(rounds, runs))
    runs_of_round = [runs // rounds + (index < runs % rounds) for index in range(rounds)]
    done, total = 0, runs * len(threads) * len(artifacts)
    parts: dict[str, list[Performance]] = {name: [] for name in artifacts}
    for count in runs_of_round:
        for name, path in artifacts.items():
            progress = None if on_progress is None else _offset(on_progress, done, total)
            parts[name].append(measure(path, threads=threads, runs=count, warmup=warmup, on_progress=progress))
            done += count * len(threads)
    return {name: _joined(performances) for name, performances in parts.items()}


def _offset(on_progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: on_progress(before + done, total)


def _joined(parts: Sequence[Performance]) -> Performance:
    latency = []
    for rounds in zip(*(part.latency for part in parts), strict=True):
        samples = [sample for entry in rounds for sample in entry.samples_ms]
        share = sum(entry.cpu_share * len(entry.samples_ms) for entry in rounds) / len(samples)
        latency.append(Latency.from_samples(rounds[0].host, rounds[0].runtime, rounds[0].threads, samples, share))
    return Performance(tuple(latency), parts[0].peak_memory_bytes)
