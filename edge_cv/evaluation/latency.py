"""How long one inference takes on this machine, and what memory the model costs: measured in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError

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
    if not threads or min(threads) < 1:
        raise InputError(f"threads must be one or more counts of 1 or more. Received: {threads}")
    if runs < 1:
        raise InputError(f"runs must be 1 or more. Received: {runs}")
    if warmup < 0:
        raise InputError(f"warmup must be 0 or more. Received: {warmup}")
    if not path.is_file():
        raise InputError(f"{path} must be a .tflite or .onnx file. Received: no such file")

    model: dict[str, Any] = {}
    peak_memory_bytes, latency = None, []
    for event in _events(path, threads, runs, warmup):
        kind = event["event"]
        if kind == "model":
            model = event
        elif kind == "memory":
            peak_memory_bytes = event["peak_memory_bytes"]
        elif kind == "progress" and on_progress is not None:
            on_progress(len(latency) * runs + event["done"], len(threads) * runs)
        elif kind == "latency":
            latency.append(_latency(model, event["threads"], event["samples_ms"], event["cpu_ms"]))
    return Performance(tuple(latency), peak_memory_bytes)


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


def _latency(model: dict[str, Any], threads: int, samples_ms: Sequence[float], cpu_ms: float) -> Latency:
    cores = model["cores"]
    host = f"{model['cpu']} ({cores} core{'s' if cores > 1 else ''})"
    share = min(1.0, cpu_ms / (sum(samples_ms) * threads))
    return _summary(host, model["runtime"], threads, samples_ms, share)


def _summary(host: str, runtime: str, threads: int, samples_ms: Sequence[float], cpu_share: float) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, (50, 90, 99)))
    return Latency(host, runtime, threads, p50, p90, p99, len(samples_ms), tuple(samples_ms), round(cpu_share, 3))


def _events(path: Path, threads: tuple[int, ...], runs: int, warmup: int):
    """The runner's events; raises InputError when it reports an error or dies."""
    # -P: the runner's folder stays off its import path, as it will on a device
    command = [sys.executable, "-P", str(RUNNER), str(path.resolve()), "--threads", ",".join(map(str, threads))]
    command += ["--runs", str(runs), "--warmup", str(warmup)]
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
