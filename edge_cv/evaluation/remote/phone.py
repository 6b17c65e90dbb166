"""An Android phone that adb reaches: the demo app measures there, in its benchmark mode.

The app works in a folder of its own external files, into which adb may write and out of which it may read:

    FILES/benchmark/<id>/model.tflite, golden.bin -> measurement.json, written whether the app could measure or not
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv import strict_json
from edge_cv.evaluation.inference import Classifier
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.remote.address import Adb
from edge_cv.evaluation.remote.device import RemoteDevice
from edge_cv.evaluation.remote.golden import DescribedModel

PACKAGE = "dev.edgecv.demo"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
FOLDER = f"/sdcard/Android/data/{PACKAGE}/files/benchmark"
MEASUREMENT = "measurement.json"
TIMEOUT_SECONDS = 900.0  # for the app to measure
POLL_SECONDS = 1.0
_COMMAND_SECONDS, _TRANSFER_SECONDS = 60, 600
# what `adb devices` says of a phone that cannot be used, and what to do
_STATES = {
    "unauthorized": "has not allowed this computer: unlock it, and accept the question about USB debugging",
    "authorizing": "is still asking whether this computer is allowed: unlock it, and accept",
    "offline": "does not answer: plug it in anew, or `adb reconnect`",
    "no permissions": "may not be opened by this user: see https://developer.android.com/tools/device.html",
}

_VANISHED = re.compile(r"(adb: )?error: .*(device offline|device .* not found|no devices|closed)")


class Phone(RemoteDevice):
    """A phone with the demo app on it. `adb` itself finds its server and its keys as it always does."""

    images_at_once = 64  # an inference is short against the start of the app

    def __init__(self, address: Adb) -> None:
        self.address = address

    def measure(
        self,
        artifact: DescribedModel,
        golden: tuple[str, bytes] | None,
        *,
        threads: Sequence[int],
        runs: int,
        warmup: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> Measurement:
        with _folder(self.address, artifact) as folder:
            if golden is not None:
                folder.push(golden[1], "golden.bin")
            return folder.run(artifact, golden and golden[0], threads, runs, warmup)

    @contextlib.contextmanager
    def classifiers(self, artifacts: Sequence[DescribedModel]) -> Iterator[list[Classifier]]:
        with contextlib.ExitStack() as stack:
            yield [_Pushed(a, stack.enter_context(_folder(self.address, a))) for a in artifacts]


class _Pushed(Classifier):
    """An artifact in the app's folder, which answers golden inputs there."""

    def __init__(self, artifact: DescribedModel, folder: _Folder) -> None:
        super().__init__(str(artifact.path), artifact.inputs, artifact.outputs, f"{PACKAGE} on {folder.adb.name}")
        self._artifact, self._folder = artifact, folder

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        if not len(inputs):
            return np.empty((0, self.classes), self.output.dtype), 0.0
        content = np.ascontiguousarray(inputs, self.input.dtype.newbyteorder("<")).tobytes()
        self._folder.push(content, "golden.bin")
        measured = self._folder.run(self._artifact, hashlib.sha256(content).hexdigest(), (1,), 1, 0)
        outputs, dtype = measured.golden.outputs, self.output.dtype
        if outputs.shape != (len(inputs), self.classes):
            raise InputError(f"{self._folder.adb.name} must give {self.classes} outputs. Received: {outputs.shape}")
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if outputs.dtype.kind != "i" or outputs.min() < limits.min or outputs.max() > limits.max:
                raise InputError(f"{self._folder.adb.name} must give outputs of {dtype}. Received: other numbers")
        return outputs.astype(dtype), sum(measured.latency[0].samples_ms) / 1e3 * len(inputs)


class _Client:
    """adb's client, and the one phone that it is to speak to."""

    def __init__(self, address: Adb) -> None:
        program = shutil.which("adb")
        if program is None:
            raise InputError("adb must be installed (apt-get install adb). Received: no such program")
        self._command, self.name = [program], str(address)
        self._command = [program, "-s", self._serial(address)]

    def shell(self, *words: str) -> str:
        """What a command on the phone says; its words are ours, and none needs quoting."""
        return self._run("shell", *words, seconds=_COMMAND_SECONDS).stdout

    def transfer(self, *words: str) -> None:
        """`push` or `pull`; raises InputError when it fails."""
        done = self._run(*words, seconds=_TRANSFER_SECONDS)
        if done.returncode:
            raise InputError(f"{self.name} cannot {words[0]} {Path(words[-1]).name}: {_said(done)}")

    def _serial(self, address: Adb) -> str:
        listed = self._run("devices", seconds=_COMMAND_SECONDS)
        if listed.returncode:
            raise InputError(f"adb does not start: {_said(listed)}")
        lines = [line.split("\t", 1) for line in listed.stdout.splitlines() if "\t" in line]
        phones = dict(lines)
        known = ", ".join(phones) or "none"
        if address.serial is None:
            if not phones:
                raise InputError("a phone must be connected, with USB debugging on. Received: adb sees none")
            if len(phones) > 1:
                raise InputError(f"--device must name one of several phones, adb:SERIAL. Received: adb sees {known}")
        serial = address.serial or next(iter(phones))
        if serial not in phones:
            raise InputError(f"adb:{serial} must be connected. Received: adb sees {known}")
        self.name, state = f"adb:{serial}", phones[serial]
        if state != "device":
            remedy = next((words for name, words in _STATES.items() if state.startswith(name)), f"is in state {state}")
            raise InputError(f"{self.name} {remedy}")
        return serial

    def _run(self, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{self.name} does not answer: adb {words[0]} took more than {seconds:.0f} s") from None
        if done.returncode and _VANISHED.match(_said(done)):
            raise InputError(f"{self.name} vanished before it was done: {_said(done)}")
        return done


class _Folder:
    """A fresh folder of the app, with the artifact in it."""

    def __init__(self, adb: _Client, path: str, delegate: str) -> None:
        self.adb, self.path, self.delegate = adb, path, delegate

    def push(self, content: bytes, name: str) -> None:
        with tempfile.NamedTemporaryFile(prefix="edge-cv-") as file:
            file.write(content)
            file.flush()
            self.adb.transfer("push", file.name, f"{self.path}/{name}")

    def run(
        self, artifact: DescribedModel, golden: str | None, threads: Sequence[int], runs: int, warmup: int
    ) -> Measurement:
        """Starts the app and waits for its measurement; InputError where there is none, or one of other files."""
        adb, identifier = self.adb, self.path.rsplit("/", 1)[1]
        words = ["--es", "folder", identifier, "--ei", "runs", str(runs), "--ei", "warmup", str(warmup)]
        words += ["--es", "threads", ",".join(map(str, threads)), "--es", "delegate", self.delegate]
        adb.shell("rm", "-f", f"{self.path}/{MEASUREMENT}")
        said = adb.shell("am", "start", "-W", "-n", ACTIVITY, *words)
        if "Error" in said:
            raise InputError(f"{adb.name} does not start the app: {_text(said.strip().splitlines()[-1])}")
        self._wait()
        with tempfile.TemporaryDirectory(prefix="edge-cv-") as here:
            adb.transfer("pull", f"{self.path}/{MEASUREMENT}", f"{here}/{MEASUREMENT}")
            try:
                measured = Measurement.load(f"{here}/{MEASUREMENT}")
            except InputError as error:
                raise InputError(f"{adb.name}: {str(error).removeprefix(here + '/')}") from error
        for what, ours, theirs in (
            (artifact.path.name, artifact.sha256, measured.sha256),
            ("golden.bin", golden, measured.golden and measured.golden.sha256),
        ):
            if ours is not None and ours != theirs:
                raise InputError(f"{what} must arrive whole on {adb.name}. Received there: other bytes; try again")
        return dataclasses.replace(measured, file=artifact.path.name)

    def _wait(self) -> None:
        end, gone = time.monotonic() + TIMEOUT_SECONDS, 0
        while True:
            running = self.adb.shell("pidof", PACKAGE).strip()
            if MEASUREMENT in self.adb.shell("ls", self.path).split():
                return
            gone = 0 if running else gone + 1
            if gone > 2:
                raise InputError(f"{self.adb.name} ended the app before it measured: the file is broken, or too large")
            if time.monotonic() > end:
                raise InputError(f"{self.adb.name} must measure within {TIMEOUT_SECONDS:.0f} s. Received: nothing yet")
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _folder(address: Adb, artifact: DescribedModel) -> Iterator[_Folder]:
    if artifact.path.suffix.lower() != ".tflite":
        raise InputError(f"a phone takes .tflite files. Received: {artifact.path.name}")
    adb = _Client(address)
    if "package:" not in adb.shell("pm", "path", PACKAGE):
        raise InputError(f"{adb.name} must have the demo app: adb install android_demo's APK. Received: no {PACKAGE}")
    folder = _Folder(adb, f"{FOLDER}/{secrets.token_hex(8)}", address.delegate)
    try:
        adb.shell("mkdir", "-p", folder.path)
        folder.push(artifact.path.read_bytes(), "model.tflite")
        yield folder
    except BaseException:
        with contextlib.suppress(InputError):
            adb.shell("am", "force-stop", PACKAGE)
        raise
    finally:
        with contextlib.suppress(InputError):
            adb.shell("rm", "-rf", folder.path)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """adb's own error, which it tells on either stream, or else the last line of all."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "adb: error:"))]
    return _text((errors or lines or [f"exit code {done.returncode}"])[-1])


def _text(line: str) -> str:
    return strict_json.message(line)
