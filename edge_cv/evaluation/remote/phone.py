"""An Android phone reached by adb: the demo app measures there, in its benchmark mode.

The app works in a folder of its own files, which adb's shell can access by `run-as`, because the app is debuggable.
Files come there by way of `/data/local/tmp`:

    FILES/benchmark/<id>/model.tflite, golden.bin -> measurement.json, which the app always writes, also when it failed
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from converters import strict_json
from converters.errors import InputError
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.open_model import Classifier
from edge_cv.evaluation.remote.adb import AdbClient
from edge_cv.evaluation.remote.address import Adb
from edge_cv.evaluation.remote.device import RemoteDevice
from edge_cv.evaluation.remote.golden import DescribedModel, GoldenInputs
from edge_cv.evaluation.runner_events import Repetitions

PACKAGE = "dev.edgecv.demo"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
FOLDER = "files/benchmark"  # from the app's data folder, where `run-as` begins
EXCHANGE = "/data/local/tmp"  # adb's shell can write here, and every app can read
MEASUREMENT = "measurement.json"
TIMEOUT_SECONDS = 900.0  # for one measurement of the app
POLL_SECONDS = 1.0


class Phone(RemoteDevice):
    """A phone with the demo app. adb finds its server and its keys in the usual way."""

    images_at_once = 64  # many, because starting the app takes longer than an inference

    def __init__(self, address: Adb) -> None:
        self.address = address

    def measure(
        self,
        model: DescribedModel,
        golden: GoldenInputs | None,
        repetitions: Repetitions,
        on_progress: Callable[[int, int], None] | None,
    ) -> Measurement:
        with _app_folder(self.address, model) as folder:
            return folder.run(golden, repetitions)

    @contextlib.contextmanager
    def classifiers(self, models: Sequence[DescribedModel]) -> Iterator[Sequence[Classifier]]:
        with contextlib.ExitStack() as stack:
            yield [_PushedModel(stack.enter_context(_app_folder(self.address, model))) for model in models]


class _PushedModel(Classifier):
    """A model in the app's folder, which the app runs on inputs that are sent as golden inputs."""

    def __init__(self, folder: _AppFolder) -> None:
        model = folder.model
        super().__init__(str(model.path), model.inputs, model.outputs, f"{PACKAGE} on {folder.adb.name}")
        self._folder = folder

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        if not len(inputs):
            return np.empty((0, self.classes), self.output.dtype), 0.0
        content = np.ascontiguousarray(inputs, self.input.dtype.newbyteorder("<")).tobytes()
        measurement, name = self._folder.run(GoldenInputs(content), Repetitions((1,), 1, 0)), self._folder.adb.name
        if measurement.golden is None or not measurement.latency:
            raise InputError(f"{name} must return outputs and a latency. Received: a measurement without them")
        outputs, dtype = measurement.golden.outputs, self.output.dtype
        if outputs.shape != (len(inputs), self.classes):
            raise InputError(f"{name} must return {self.classes} outputs. Received: {outputs.shape}")
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if outputs.dtype.kind != "i" or outputs.min() < limits.min or outputs.max() > limits.max:
                raise InputError(
                    f"{name} must return outputs of {dtype}. "
                    f"Received: {outputs.dtype}, {outputs.min():g} to {outputs.max():g}"
                )
        return outputs.astype(dtype), sum(measurement.latency[0].samples_ms) / 1e3 * len(inputs)


class _AppFolder:
    """A new folder of the app that holds a model."""

    def __init__(self, adb: AdbClient, model: DescribedModel, delegate: str) -> None:
        self.adb, self.model, self._delegate = adb, model, delegate
        self._identifier = secrets.token_hex(8)
        self.path = f"{FOLDER}/{self._identifier}"

    def shell(self, *words: str) -> str:
        """As `AdbClient.shell`, with the rights of the app and in its data folder."""
        return self.adb.shell("run-as", PACKAGE, *words)

    def _read(self) -> str:
        return self.adb.read("run-as", PACKAGE, "cat", f"{self.path}/{MEASUREMENT}")

    def push(self, content: bytes, name: str) -> None:
        exchange = f"{EXCHANGE}/edge-cv-{self._identifier}"
        with tempfile.NamedTemporaryFile(prefix="edge-cv-") as file:
            file.write(content)
            file.flush()
            try:
                self.adb.shell("mkdir", "-p", exchange)
                self.adb.transfer("push", file.name, f"{exchange}/{name}")
                self.adb.shell("chmod", "-R", "a+rX", exchange)
                self.shell("cp", f"{exchange}/{name}", f"{self.path}/{name}")
            finally:
                with contextlib.suppress(InputError):
                    self.adb.shell("rm", "-rf", exchange)
        if name not in self.shell("ls", self.path).split():
            raise InputError(f"{self.adb.name} must have a debug build of the app, and space for {name}")

    def run(self, golden: GoldenInputs | None, repetitions: Repetitions) -> Measurement:
        """Start the app and wait for its measurement.

        Raises:
            InputError: the app could not measure, or it measured a changed file.
        """
        if golden is not None:
            self.push(golden.content, "golden.bin")
        self.shell("rm", "-f", f"{self.path}/{MEASUREMENT}")
        self._start(repetitions)
        self._wait()
        measurement = self._pull()
        received = measurement.golden.sha256 if measurement.golden is not None else None
        for name, ours, theirs in (
            (self.model.path.name, self.model.sha256, measurement.sha256),
            ("golden.bin", None if golden is None or received is None else golden.sha256, received),
        ):
            if ours is not None and ours != theirs:
                raise InputError(
                    f"{name} must arrive unchanged on {self.adb.name}, with SHA-256 {ours[:12]}; try again. "
                    f"Received there: {theirs!r:.14}"
                )
        return dataclasses.replace(measurement, file=self.model.path.name)

    def _start(self, repetitions: Repetitions) -> None:
        threads = ",".join(map(str, repetitions.threads))
        extras = ["--es", "folder", self._identifier, "--es", "threads", threads, "--es", "delegate", self._delegate]
        extras += ["--ei", "runs", str(repetitions.runs), "--ei", "warmup", str(repetitions.warmup)]
        output = self.adb.shell("am", "start", "-W", "-n", ACTIVITY, *extras)
        if "Error" in output:
            reason = strict_json.message(output.strip().splitlines()[-1])
            raise InputError(f"{self.adb.name} does not start the app: {reason}")

    def _wait(self) -> None:
        name, end, stopped = self.adb.name, time.monotonic() + TIMEOUT_SECONDS, 0
        while True:
            running = self.adb.shell("pidof", PACKAGE).strip()
            if MEASUREMENT in self.shell("ls", self.path).split():
                return
            stopped = 0 if running else stopped + 1
            if stopped > 2:
                raise InputError(f"{name} ended the app before it measured: the file is corrupt, or too large")
            if time.monotonic() > end:
                raise InputError(f"{name} must measure within {TIMEOUT_SECONDS:.0f} s. Received: no measurement yet")
            time.sleep(POLL_SECONDS)

    def _pull(self) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="edge-cv-") as folder:
            try:
                Path(folder, MEASUREMENT).write_text(self._read(), encoding="utf-8")
                return Measurement.load(f"{folder}/{MEASUREMENT}")
            except InputError as error:
                raise InputError(f"{self.adb.name}: {str(error).removeprefix(folder + '/')}") from error


@contextlib.contextmanager
def _app_folder(address: Adb, model: DescribedModel) -> Iterator[_AppFolder]:
    if model.path.suffix.lower() != ".tflite":
        raise InputError(f"a phone takes .tflite files. Received: {model.path.name}")
    adb = AdbClient(address)
    if "package:" not in adb.shell("pm", "path", PACKAGE):
        raise InputError(
            f"{adb.name} must have the demo app: adb install the APK of android_demo. Received: no {PACKAGE}"
        )
    folder = _AppFolder(adb, model, address.delegate)
    try:
        folder.shell("mkdir", "-p", folder.path)
        folder.push(model.path.read_bytes(), "model.tflite")
        yield folder
    except BaseException:
        with contextlib.suppress(InputError):
            adb.shell("am", "force-stop", PACKAGE)
        raise
    finally:
        with contextlib.suppress(InputError):
            folder.shell("rm", "-rf", folder.path)
