"""Reading and checking the events of the runner (`runner.py`), from a process here or from a device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from converters import strict_json
from converters.errors import InputError, unknown
from edge_cv.evaluation.latency import Latency
from edge_cv.evaluation.runner import RUNTIMES

RUNNER = Path(__file__).with_name("runner.py")
MAX_THREADS, MAX_RUNS = 1024, 1_000_000  # as a recipe has them
MAX_EVENTS = 100  # beside progress and latencies, which are counted
_MACHINE = ("cpu", "runtime", "machine", "system", "python")
_SENSORS = {"temperature_c": (-100, 300), "clock_mhz": (0, 1e6), "throttled": (0, 1 << 32)}


@dataclass(frozen=True)
class Repetitions:
    """How often a model is run.

    Attributes:
        threads: thread counts, each 1 to 1024; the inferences are repeated for each.
        runs: timed inferences, 1 or more.
        warmup: inferences before them that are not timed, 0 or more.
        runtime: LiteRT's way to run a .tflite file, a key of the runner's `RUNTIMES`.
    """

    threads: tuple[int, ...]
    runs: int
    warmup: int
    runtime: str = "interpreter"

    def __post_init__(self) -> None:
        if not self.threads or not all(1 <= count <= MAX_THREADS for count in self.threads):
            raise InputError(f"threads must be one or more counts of 1 to {MAX_THREADS}. Received: {self.threads}")
        if not 1 <= self.runs <= MAX_RUNS:
            raise InputError(f"runs must be 1 or more, and at most {MAX_RUNS:,}. Received: {self.runs}")
        if not 0 <= self.warmup <= MAX_RUNS:
            raise InputError(f"warmup must be 0 or more, and at most {MAX_RUNS:,}. Received: {self.warmup}")

    def options(self) -> list[str]:
        """The runner's command-line options."""
        threads = ",".join(map(str, self.threads))
        counts = ["--threads", threads, "--runs", str(self.runs), "--warmup", str(self.warmup)]
        # devices may have a runner of an earlier version
        return counts if self.runtime == "interpreter" else [*counts, "--runtime", self.runtime]


def check_runtime(runtime: str, files: Iterable[Path], *, here: bool) -> None:
    """Raise InputError for a runtime that is not known, or that cannot run the files.

    Args:
        runtime: a key of the runner's `RUNTIMES`.
        files: the model files.
        here: whether they run on this machine.
    """
    if runtime not in RUNTIMES:
        raise unknown("runtime", runtime, RUNTIMES)
    if runtime == "interpreter":
        return
    if not here:
        raise InputError(f"the runtime {runtime} is for this machine only. Received: a device")
    for file in files:
        if file.suffix == ".onnx":
            raise InputError(f"the runtime {runtime} is for .tflite files. Received: {file}")


class RunnerEvents:
    """Collects a runner's events. Every value is checked, because the device may be untrusted.

    Attributes:
        model: the event "model". Its `runtime`, `host` (the machine's name in reports), `system`, `machine` and
            `python` are text; its `inputs` and `outputs` are unchecked.
        peak_memory_bytes: None until it is known.
        sensors: the readings before and after the timed inferences, at most two.
        golden: the outputs of the event "golden", unchecked; None until they are known.
    """

    def __init__(
        self, threads: Sequence[int], runs: int, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """
        Args:
            threads: the thread counts that the runner was given.
            runs: timed inferences for each thread count.
            on_progress: called with the numbers of finished and of all timed inferences.
        """
        self.model: dict[str, Any] = {}
        self.peak_memory_bytes: int | None = None
        self.sensors: list[dict[str, float | None]] = []
        self.golden: Any = None
        self._threads, self._runs, self._on_progress = tuple(threads), runs, on_progress
        self._samples_ms: list[float] = []
        self._latency: list[Latency] = []
        self._others = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Add one event. Raises InputError for a wrong value or an event out of order."""
        kind = event["event"]
        self._others += kind != "progress"
        if self._others > MAX_EVENTS + len(self._threads):
            raise InputError(f"the runner must report at most {MAX_EVENTS} events beside its progress. Received: more")
        if kind in ("progress", "latency") and not (self.model and len(self._latency) < len(self._threads)):
            raise InputError(
                "the runner must report the model first, then one latency for each requested thread count. "
                f"Received: {kind} after {len(self._latency)} latencies"
            )
        if kind == "model":
            self._add_model(event)
        elif kind == "memory" and event.get("peak_memory_bytes") is not None:
            self.peak_memory_bytes = strict_json.integer(event["peak_memory_bytes"], "peak_memory_bytes", 0, 1 << 50)
        elif kind == "golden":
            self.golden = event.get("outputs")
        elif kind == "sensors" and len(self.sensors) < 2:
            self.sensors.append({name: _reading(event.get(name), name) for name in _SENSORS})
        elif kind == "progress":
            self._add_samples(event)
        elif kind == "latency":
            self._add_latency(event)

    def check_complete(self) -> None:
        """Raise InputError unless a latency of all runs was reported for each thread count."""
        if len(self._latency) < len(self._threads):
            raise InputError(
                f"the device must report a latency for each of the thread counts {self._threads}. "
                f"Received: {len(self._latency)}"
            )

    @property
    def latency(self) -> tuple[Latency, ...]:
        """One latency for each thread count; an interrupted one has the samples that arrived."""
        if not self._samples_ms:
            return tuple(self._latency)
        return (*self._latency, self._summary(self._threads[len(self._latency)], 1.0))

    def _add_model(self, event: Mapping[str, Any]) -> None:
        cores = strict_json.integer(event.get("cores"), "the runner's cores", 1, 1 << 16)
        machine = {name: strict_json.text(event.get(name), f"the runner's {name}") for name in _MACHINE}
        host = f"{machine.pop('cpu')} ({cores} core{'s' if cores > 1 else ''})"
        self.model = {**machine, "host": host, "inputs": event.get("inputs"), "outputs": event.get("outputs")}

    def _add_samples(self, event: Mapping[str, Any]) -> None:
        samples = strict_json.milliseconds(event.get("samples_ms"), "samples_ms")
        if not samples:
            raise InputError("the runner must report inferences as its progress. Received: none")
        self._samples_ms += samples
        if len(self._samples_ms) > self._runs:
            raise InputError(
                f"the runner must report the {self._runs} requested inferences. Received: {len(self._samples_ms)}"
            )
        if self._on_progress is not None:
            done = len(self._latency) * self._runs + len(self._samples_ms)
            self._on_progress(done, len(self._threads) * self._runs)

    def _add_latency(self, event: Mapping[str, Any]) -> None:
        if len(self._samples_ms) != self._runs or not self._runs:
            raise InputError(
                f"the runner must report the {self._runs} requested inferences. Received: {len(self._samples_ms)}"
            )
        threads = self._threads[len(self._latency)]
        cpu_ms = strict_json.number(event.get("cpu_ms"), "cpu_ms", 0)
        share = min(1.0, cpu_ms / max(1e-9, sum(self._samples_ms) * threads))
        self._latency.append(self._summary(threads, share))
        self._samples_ms = []

    def _summary(self, threads: int, cpu_share: float) -> Latency:
        return Latency.from_samples(self.model["host"], self.model["runtime"], threads, self._samples_ms, cpu_share)


def _reading(value: Any, name: str) -> float | None:
    return None if value is None else strict_json.number(value, name, *_SENSORS[name])


def runner_events(path: Path, *options: Any) -> Iterator[dict[str, Any]]:
    """Run the runner in a process of its own on this machine and yield its events.

    Raises:
        InputError: the runner reports an error, or its process dies.
    """
    # -P: the runner's folder is not on its import path, as on a device
    command = [sys.executable, "-P", str(RUNNER), str(path.resolve()), *map(str, options)]
    with tempfile.TemporaryFile() as errors:
        # In a session of its own, so that Ctrl-C interrupts this process, which then ends the runner.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        output = cast("IO[bytes]", process.stdout)  # a pipe, as the line above asks
        try:
            for line in output:
                event = json.loads(line)
                if event["event"] == "error":
                    raise InputError(f"{path} cannot be run: {event['message']}")
                yield event
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            output.close()
        if status:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            end = signal.Signals(-status).name if status < 0 else f"exit code {status}"
            cause = f": {lines[-1]}" if lines and status > 0 else ": the file is corrupt, or memory ran out"
            raise InputError(f"{path} cannot be run: the runtime ended with {end}{cause}")
