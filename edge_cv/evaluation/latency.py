"""How long one inference takes on this machine, and what memory the model costs: measured in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from edge_cv import strict_json

RUNNER = Path(__file__).with_name("runner.py")


@dataclass(frozen=True)
class Latency:
    """Single inferences, one after the other, on one machine at one thread count.

    Attributes:
        host: the machine that ran them: its CPU's name and its cores.
        runtime: what ran the file, e.g. "ai-edge-litert 2.3.0 XNNPACK".
        threads: how many the runtime was given.
        p50_ms, p90_ms, p99_ms: percentiles of the samples, in milliseconds, interpolated linearly.
        runs: number of samples.
        samples_ms: every inference, in the order they ran.
        cpu_share: processor time against wall time and threads, 0..1. At one thread, clearly under 1 means that other
            programs had the processor in between: the latencies are then too high.
    """

    host: str
    runtime: str
    threads: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    samples_ms: tuple[float, ...]
    cpu_share: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "samples_ms": list(self.samples_ms)}


@dataclass(frozen=True)
class Performance:
    """What was measured of one artifact.

    Attributes:
        latency: one value for each thread count, in the order they were asked for.
        peak_memory_bytes: how much resident memory grew, at its highest, from before the model was opened until it had
            run at one thread; None where the system does not tell.
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
    """Runs the artifact alone in a fresh process, `warmup` times unmeasured, then `runs` times, at each thread count.

    Args:
        path: a .tflite or .onnx file.
        threads: thread counts, each 1 or more.
        runs: measured inferences at each thread count, 1 or more.
        warmup: inferences before them, 0 or more.
        on_progress: called with the numbers of measured inferences done and of all of them.

    Raises:
        InputError: a count is out of range, the file is missing, or it cannot be run.
    """
    path = Path(path)
    threads = tuple(threads)
    check_counts(threads, runs, warmup)
    if not path.is_file():
        raise InputError(f"{path} must be a .tflite or .onnx file. Received: no such file")

    gathered = RunnerEvents(threads, runs, on_progress)
    for event in runner_events(path, *measuring_options(threads, runs, warmup)):
        gathered.take(event)
    return Performance(gathered.latency, gathered.peak_memory_bytes)


def check_counts(threads: Sequence[int], runs: int, warmup: int) -> None:
    """Raises InputError for counts that cannot be measured with."""
    if not threads or min(threads) < 1:
        raise InputError(f"threads must be one or more counts of 1 or more. Received: {tuple(threads)}")
    if runs < 1:
        raise InputError(f"runs must be 1 or more. Received: {runs}")
    if warmup < 0:
        raise InputError(f"warmup must be 0 or more. Received: {warmup}")


def measure_in_turns(
    artifacts: Mapping[str, str | os.PathLike],
    *,
    threads: Sequence[int] = (1,),
    runs: int = 50,
    warmup: int = 10,
    rounds: int = 3,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Performance]:
    """`measure` for several artifacts, one after the other, several times round, so that they can be compared.

    A machine grows warm, and other programs come and go; taken in turns, all artifacts get their share of that.

    Args:
        artifacts: files by the names that the results will have.
        threads, runs, warmup: as `measure` takes them; the runs are dealt out over the rounds.
        rounds: how many times round, 1 or more; not more than there are runs.
        on_progress: called with the numbers of measured inferences done and of all of them.
    """
    rounds = max(1, min(rounds, runs))
    shares = [runs // rounds + (turn < runs % rounds) for turn in range(rounds)]
    done, total = 0, runs * len(threads) * len(artifacts)
    parts: dict[str, list[Performance]] = {name: [] for name in artifacts}
    for share in shares:
        for name, path in artifacts.items():
            progress = None if on_progress is None else lambda part, _, before=done: on_progress(before + part, total)
            parts[name].append(measure(path, threads=threads, runs=share, warmup=warmup, on_progress=progress))
            done += share * len(threads)
    return {name: _joined(measured) for name, measured in parts.items()}


def _joined(parts: Sequence[Performance]) -> Performance:
    latency = []
    for same in zip(*(part.latency for part in parts), strict=True):
        samples = tuple(sample for entry in same for sample in entry.samples_ms)
        share = sum(entry.cpu_share * entry.runs for entry in same) / len(samples)
        latency.append(_summary(same[0].host, same[0].runtime, same[0].threads, samples, share))
    return Performance(tuple(latency), parts[0].peak_memory_bytes)


class RunnerEvents:
    """What a runner has told so far, here or on a device; each value is checked, since the device may be a stranger's.

    Attributes:
        model: the event "model"; its `runtime`, `host` (the machine's name in reports), `system`, `machine` and
            `python` are text, its `inputs` and `outputs` as the runner gave them.
        peak_memory_bytes: None while it is not known.
        sensors: the two readings, before and after; fewer while there are not more.
        golden: the event's outputs, unchecked, or None.
    """

    def __init__(
        self, threads: Sequence[int], runs: int, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.model: dict[str, Any] = {}
        self.peak_memory_bytes: int | None = None
        self.sensors: list[dict[str, float | None]] = []
        self.golden: Any = None
        self._threads, self._runs, self._on_progress = tuple(threads), runs, on_progress
        self._samples_ms: list[float] = []
        self._latency: list[Latency] = []

    def take(self, event: Mapping[str, Any]) -> None:
        """Adds an event; raises InputError for one that cannot be."""
        kind = event["event"]
        if kind in ("progress", "latency") and not (self.model and len(self._latency) < len(self._threads)):
            raise InputError("the runner must tell of the model first, and of no more threads than it was asked for")
        if kind == "model":
            cores = strict_json.integer(event.get("cores"), "the runner's cores", 1, 1 << 16)
            told = {name: strict_json.text(event.get(name), f"the runner's {name}") for name in _TOLD}
            host = f"{told.pop('cpu')} ({cores} core{'s' if cores > 1 else ''})"
            self.model = {**told, "host": host, "inputs": event.get("inputs"), "outputs": event.get("outputs")}
        elif kind == "memory" and event.get("peak_memory_bytes") is not None:
            self.peak_memory_bytes = strict_json.integer(event["peak_memory_bytes"], "peak_memory_bytes", 0, 1 << 50)
        elif kind == "golden":
            self.golden = event.get("outputs")
        elif kind == "sensors" and len(self.sensors) < 2:
            self.sensors.append({name: _optional(event.get(name), name) for name in _SENSORS})
        elif kind == "progress":
            self._samples_ms += strict_json.samples(event.get("samples_ms"), "samples_ms")
            if len(self._samples_ms) > self._runs:
                raise InputError("the runner must tell no more inferences than it was asked for. Received: more")
            if self._on_progress is not None:
                done = len(self._latency) * self._runs + len(self._samples_ms)
                self._on_progress(done, len(self._threads) * self._runs)
        elif kind == "latency":
            if len(self._samples_ms) != self._runs or not self._runs:
                raise InputError(f"the runner must tell {self._runs} inferences. Received: {len(self._samples_ms)}")
            threads = self._threads[len(self._latency)]
            cpu_ms = strict_json.number(event.get("cpu_ms"), "cpu_ms", 0)
            share = min(1.0, cpu_ms / max(1e-9, sum(self._samples_ms) * threads))
            self._latency.append(self._summary(threads, share))
            self._samples_ms = []

    @property
    def latency(self) -> tuple[Latency, ...]:
        """At each thread count; of one that was broken off, what there is."""
        if not self._samples_ms:
            return tuple(self._latency)
        return (*self._latency, self._summary(self._threads[len(self._latency)], 1.0))

    def _summary(self, threads: int, cpu_share: float) -> Latency:
        return _summary(self.model["host"], self.model["runtime"], threads, self._samples_ms, cpu_share)


_TOLD = ("cpu", "runtime", "machine", "system", "python")
_SENSORS = {"temperature_c": (-100, 300), "clock_mhz": (0, 1e6), "throttled": (0, 1 << 32)}


def _optional(value: Any, name: str) -> float | None:
    return None if value is None else strict_json.number(value, name, *_SENSORS[name])


def percentiles(samples_ms: Sequence[float]) -> tuple[float, float, float]:
    """p50, p90 and p99, interpolated linearly."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, (50, 90, 99)))
    return p50, p90, p99


def _summary(host: str, runtime: str, threads: int, samples_ms: Sequence[float], cpu_share: float) -> Latency:
    share = round(cpu_share, 3)
    return Latency(host, runtime, threads, *percentiles(samples_ms), len(samples_ms), tuple(samples_ms), share)


def measuring_options(threads: Sequence[int], runs: int, warmup: int) -> list[str]:
    """The runner's options for these counts."""
    return ["--threads", ",".join(map(str, threads)), "--runs", str(runs), "--warmup", str(warmup)]


def runner_events(path: Path, *options: Any) -> Iterator[dict[str, Any]]:
    """What the runner tells in a process of its own here; raises InputError when it reports an error or dies."""
    # -P: the runner's folder stays off its import path, as it will on a device
    command = [sys.executable, "-P", str(RUNNER), str(path.resolve()), *map(str, options)]
    with tempfile.TemporaryFile() as errors:
        # A session of its own: Ctrl-C reaches this process, which then ends the runner.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    raise InputError(f"{path} cannot be run: {event['message']}")
                yield event
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            why = f": {said[-1]}" if said and status > 0 else ": it must be corrupt, or memory ran out"
            raise InputError(f"{path} cannot be run: the runtime ended with {how}{why}")
