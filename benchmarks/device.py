"""The overhead of measuring by ssh: a file timed in this process, by the runner on this machine, and by ssh.

    python benchmarks/device.py FILE.tflite [--rounds 20] [--runs 200]

All three run on this machine, the last through an OpenSSH server on loopback, in turns, so that other load affects all
alike. The output is the median over the rounds of the ratio of two percentiles, with its 95 % interval from the order
statistics. The 10th percentile is shown beside the median because other programs affect it less.

First, a clock replaces the runtime: an inference that waits in a busy loop until 2 ms have passed. The measured time
above 2 ms is the overhead, exact to the microsecond.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ssh_server import Server


def in_process_ms(path: Path, runs: int, warmup: int) -> list[float]:
    """Durations of single inferences in this process, in milliseconds."""
    from edge_cv.evaluation import runner

    model = runner.open_model(str(path), 1)
    model.set_input(runner.random_input(model.inputs[0], 0))
    for _ in range(warmup):
        model.invoke()
    samples = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        model.invoke()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples


def interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median, from the order statistics."""
    from scipy.stats import binom

    ordered, skipped = sorted(values), int(binom.ppf(0.025, len(values), 0.5))
    return ordered[max(0, skipped - 1)], ordered[min(len(values) - 1, len(values) - skipped)]


CLOCK_MS = 2.0
CLOCK = f"""
import time
import numpy as np


class Interpreter:
    def __init__(self, model_path, num_threads):
        self._values = np.zeros((1, 8), np.float32)

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [dict(index=0, shape=(1, 8), dtype=np.float32, quantization=(0.0, 0))]

    get_output_details = get_input_details

    def set_tensor(self, index, value):
        self._values = value

    def get_tensor(self, index):
        return self._values

    def invoke(self):
        end = time.perf_counter_ns() + {round(CLOCK_MS * 1e6)}
        while time.perf_counter_ns() < end:
            pass
"""


def clock(server: Server, folder: Path, runs: int) -> None:
    """Print what the runner measures by ssh for an inference of exactly 2 ms."""
    from edge_cv.evaluation.remote.address import Ssh
    from edge_cv.evaluation.remote.ssh import Session
    from edge_cv.evaluation.runner_events import RUNNER, Repetitions

    (folder / "ai_edge_litert").mkdir()
    (folder / "ai_edge_litert" / "__init__.py").touch()
    (folder / "ai_edge_litert" / "interpreter.py").write_text(CLOCK)
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    samples: list[float] = []
    with Session(Ssh("127.0.0.1", port=server.port, python=str(python))) as session:
        session.send(RUNNER.name, RUNNER.read_bytes())
        session.send("model.tflite", b"\0\0\0\0TFL3")
        session.start(RUNNER.name, ["./model.tflite", *Repetitions((1,), runs, 20).options()])
        for event in session.events():
            samples += event.get("samples_ms", [])
    overhead = np.percentile(samples, (10, 50)) - CLOCK_MS
    text = ", ".join(
        f"p{p} {1e3 * ms:+.2f} us ({ms / CLOCK_MS:+.3%})" for p, ms in zip((10, 50), overhead, strict=True)
    )
    print(f"{len(samples)} inferences of {CLOCK_MS:g} ms by ssh: {text}")


def compare(path: Path, server: Server, rounds: int, runs: int) -> None:
    """Print the ratios of the three methods, measured in turns."""
    from edge_cv.evaluation import measure
    from edge_cv.evaluation.remote import measure_on

    device = f"ssh://127.0.0.1:{server.port}?python={quote(sys.executable)}"
    methods = {
        "this process": lambda: in_process_ms(path, runs, 20),
        "runner here": lambda: measure(path, runs=runs, warmup=20).latency[0].samples_ms,
        "runner by ssh": lambda: measure_on(device, path, runs=runs, warmup=20).latency[0].samples_ms,
    }
    measured: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for turn in range(rounds):
        names = list(methods)
        for name in names[turn % 3 :] + names[: turn % 3]:
            measured[name].append(np.percentile(methods[name](), (10, 50)))
    base = np.array(measured["this process"])
    for column, percentile in enumerate((10, 50)):
        median_ms = statistics.median(base[:, column])
        print(f"p{percentile} of {runs} inferences of {path.name}, {rounds} rounds: {median_ms:.3f} ms in this process")
        for name in list(methods)[1:]:
            ratios = (np.array(measured[name])[:, column] / base[:, column]).tolist()
            low, high = interval(ratios)
            print(f"  {name}: {statistics.median(ratios):.4f} times that (95 % interval {low:.4f} to {high:.4f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        os.environ["PATH"] = server.search_path
        try:
            clock(server, Path(folder), 10 * options.runs)
            compare(options.file, server, options.rounds, options.runs)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
