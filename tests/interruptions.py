"""Interrupts a command at chosen moments by signals, as a user, a terminal or the system does, and starts it again.

A command runs in a session of its own. Its stderr is read line by line, so that a moment can be named by what the
command has printed. Every process that it starts inherits a mark in its environment, by which it is found again.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
MARK = "EDGE_CV_TEST_MARK"
END_SECONDS = 60.0  # from a signal to the end of the process; a native call cannot be interrupted
WORKERS_SECONDS = 10.0  # from the end of the process to the end of its workers
LAST_SECONDS = 1.0  # a command that succeeds so soon after a signal had done its work
RUN_SECONDS = 600.0  # of a start
# What differs between two runs that compute the same. A model file holds a date, on which its hash and its size after
# gzip depend; the files themselves are compared without it.
TIMED = frozenset(
    {
        *("date", "sha256", "gzip_bytes", "gzip_mb", "seconds", "images_per_second", "latency", "peak_memory_bytes"),
        *("fronts", "p50_ms", "memory_mb"),
    }
)
DATE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
BUSY = "The machine was busy during the measurement of latency"


@dataclass
class Command:
    """A started command.

    Attributes:
        process: its process.
        mark: the mark of all processes that it starts.
        lines: what it printed on stderr so far, each with the seconds since its start.
    """

    process: subprocess.Popen
    mark: str
    started: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)
    reader: threading.Thread | None = None
    terminal: int | None = None  # the other end of its terminal
    ending_seconds: float = 0.0  # from a signal to its end

    def read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append((time.monotonic() - self.started, line.rstrip("\n")))

    def close_terminal(self) -> None:
        """Close its terminal, as closing a window does."""
        if self.terminal is not None:
            os.close(self.terminal)

    def wait(self, seconds: float) -> int:
        """The exit code; an AssertionError if it has not ended by then."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end within {seconds} s: {self.text()}") from None
        if self.reader is not None:
            self.reader.join(WORKERS_SECONDS)
        return code

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def handles_signals(self) -> bool:
        """Whether its handlers are installed: Python itself takes a moment to start."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        caught = re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

    def others(self) -> dict[int, str]:
        """The processes that it started and that still run: their command lines."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        found.pop(self.process.pid, None)
        return found


def start(
    arguments: Sequence[object],
    stdout: Path | None = None,
    *,
    wrapper: Sequence[str] = (),
    terminal: bool = False,
    **environment: str,
) -> Command:
    """Start `edge-cv` with these arguments.

    Args:
        arguments: of the command.
        stdout: the file that its output is written to.
        wrapper: a program that starts it, such as nohup.
        terminal: whether it gets a terminal, on which it prints.
        environment: further variables.
    """
    mark = uuid.uuid4().hex
    variables = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), **environment}
    variables |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    ours, theirs = pty.openpty() if terminal else (None, None)

    def prepare() -> None:
        for number in SIGNALS[1:]:  # the process that runs the tests may ignore some
            signal.signal(number, signal.SIG_DFL)
        if theirs is not None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with contextlib.ExitStack() as stack:
        output = subprocess.DEVNULL if stdout is None else stack.enter_context(stdout.open("wb"))
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "edge_cv.cli", *map(str, arguments)],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL if theirs is None else theirs,
            stdout=output if theirs is None else theirs,
            stderr=subprocess.PIPE if theirs is None else theirs,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=prepare,
        )
    command = Command(process, mark, terminal=ours)
    if theirs is not None:
        os.close(theirs)
    else:
        command.reader = threading.Thread(target=command.read, daemon=True)
        command.reader.start()
    return command


def interrupt(
    command: Command, reached: Callable[[], bool], delay: float, number: signal.Signals, *, group: bool = False
) -> bool:
    """Send a signal some seconds after a moment, and check how the command ends.

    Args:
        command: that was started.
        reached: whether the moment has come.
        delay: seconds from then on.
        number: the signal.
        group: to all processes of the command's group, as a terminal does.

    Returns:
        Whether the command was interrupted; False if it ended before.
    """
    deadline = time.monotonic() + RUN_SECONDS
    while not (command.handles_signals() and reached()) and command.process.poll() is None:
        assert time.monotonic() < deadline, f"the moment never came: {command.text()}"
        time.sleep(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.process.wait(delay)
    if command.process.poll() is not None:
        return False
    sent = time.monotonic()
    (os.killpg if group else os.kill)(command.process.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if command.process.wait(LAST_SECONDS) == 0:
            return False
    check_end(command, number)
    command.ending_seconds = time.monotonic() - sent
    return True


def check_end(command: Command, number: signal.Signals) -> None:
    """Check the end of a command that a signal was sent to: the exit code, its last line, no process left."""
    code = command.wait(END_SECONDS)
    if code == -number != -signal.SIGKILL:  # a signal while Python ends: a shell reports the same code
        code = CODES[number]
    text = command.text()
    assert code == CODES[number], f"{number.name} ended it with {code}: {text}"
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    assert "resource_tracker" not in text, text
    if number != signal.SIGKILL:
        assert text.splitlines()[-1].startswith("edge-cv: interrupted"), f"{number.name}: {text}"
    deadline = time.monotonic() + WORKERS_SECONDS
    while others := command.others():
        assert time.monotonic() < deadline, f"{number.name} left processes: {others}"
        time.sleep(0.05)


def timeline(command: Command) -> list[tuple[float, str]]:
    """The lines of a command that has ended, without figures of time."""
    return [(seconds, plain(line)) for seconds, line in command.lines]


def plain(line: str) -> str:
    """A line of progress without durations and speeds."""
    return re.sub(r" ?\(?[\d.,]+ (s\b|images/s|min \d+ s)\)?", "", line)


def interrupted_run(
    arguments: Sequence[object],
    whole: Sequence[tuple[float, str]],
    places: Sequence[int],
    seed: int,
    check: Callable[[], None],
    stdout: Path | None = None,
) -> list[str]:
    """Run a command that is interrupted again and again, each time later, until it ends by itself.

    Args:
        arguments: of the command.
        whole: the timeline of an undisturbed run.
        places: for each interruption the line of the timeline at whose work it comes, in ascending order.
        seed: of the order of the signals and of the moments.
        check: called after each interruption.
        stdout: the file that its output is written to.

    Returns:
        What the command was doing at each interruption: the next line of the undisturbed run, and the signal.
    """
    draw = random.Random(seed)
    signals: list[signal.Signals] = []
    order = {line: place for place, (_, line) in enumerate(whole)}
    ends = [0.0, *(seconds for seconds, _ in whole)]
    hits = []
    for place in places:
        if not signals:
            signals = draw.sample(SIGNALS, len(SIGNALS))
        number = signals.pop()
        delay = draw.uniform(0.0, 0.9) * (ends[place + 1] - ends[place])
        command = start(arguments, stdout)

        def reached(command: Command = command, place: int = place) -> bool:
            return place == 0 or any(order.get(plain(line), -1) >= place - 1 for _, line in command.lines)

        if interrupt(command, reached, delay, number, group=draw.random() < 0.3):
            hits.append(f"{number.name} in {whole[place][1]} ({command.ending_seconds:.1f} s)")
            check()
        else:
            assert command.process.returncode == 0, command.text()
    command = start(arguments, stdout)
    assert command.wait(RUN_SECONDS) == 0, command.text()
    assert "Traceback" not in command.text()
    return hits


# ------------------------------------------------------------------------------------------------ what a folder holds


def check_whole(folder: Path) -> None:
    """Every file of a final name is complete: JSON is parsed, models and arrays are opened."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            _OPENED.get(path.suffix, lambda content: None)(path.read_bytes())


def _open_tflite(content: bytes) -> None:
    from ai_edge_litert.interpreter import Interpreter

    Interpreter(model_content=content).allocate_tensors()


def _open_onnx(content: bytes) -> None:
    import onnx

    onnx.checker.check_model(onnx.load_from_string(content))


def _open_zip(content: bytes) -> None:
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


def _open_hdf5(content: bytes) -> None:
    import h5py

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(lambda name, item: item[()] if isinstance(item, h5py.Dataset) else None)


_OPENED: dict[str, Callable[[bytes], Any]] = {
    ".json": json.loads,
    ".tflite": _open_tflite,
    ".onnx": _open_onnx,
    ".keras": _open_zip,
    ".npz": _open_zip,
    ".h5": _open_hdf5,
    ".html": lambda content: content.index(b"</html>"),
}


def content_of(folder: Path) -> dict[str, Any]:
    """What two runs that compute the same have in common: the content of each file, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tensorboard" not in path.parts
    }


def _content(path: Path) -> Any:
    # latencies, hashes of dated files, and the random token of a sweep
    if path.suffix in (".html", ".csv") or path.parent.name == "stages" or path.name == ".sweep":
        return None
    if path.suffix == ".json":
        return without_time(json.loads(path.read_bytes()))
    if path.suffix == ".keras":  # its metadata holds a date, its configuration addresses of objects
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if name != "metadata.json"}
        return members | {"config.json": re.sub(rb'"shared_object_id": \d+', b"", members["config.json"])}
    if path.name == "checkpoint.npz":
        with np.load(path) as arrays:
            state = without_time(json.loads(arrays["state"].tobytes()))
            return state, {name: arrays[name].tobytes() for name in arrays.files if name != "state"}
    return DATE.sub(b"", path.read_bytes())


def without_time(value: Any) -> Any:
    """A JSON value without dates, durations and latencies."""
    if isinstance(value, dict):
        return {key: without_time(entry) for key, entry in value.items() if key not in TIMED}
    if isinstance(value, list):
        return [without_time(entry) for entry in value if not (isinstance(entry, str) and entry.startswith(BUSY))]
    return value
