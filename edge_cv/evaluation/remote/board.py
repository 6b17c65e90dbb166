"""A board or a computer that ssh reaches: the runner measures there, and answers for the photos that are sent."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from converters.errors import InputError
from edge_cv.evaluation.inference import Classifier
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.remote.address import Ssh
from edge_cv.evaluation.remote.device import RemoteDevice
from edge_cv.evaluation.remote.golden import DescribedModel
from edge_cv.evaluation.remote.results import measurement_of
from edge_cv.evaluation.remote.ssh import Session
from edge_cv.evaluation.runner_events import RUNNER, RunnerEvents, runner_options


class Board(RemoteDevice):
    """A device at the other end of an ssh connection."""

    images_at_once = 16

    def __init__(self, address: Ssh) -> None:
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
        gathered, error = RunnerEvents(threads, runs, on_progress), None
        arguments = ["./" + _name(artifact), *runner_options(threads, runs, warmup)]
        try:
            with Session(self.address) as session:
                _send(session, artifact)
                if golden is not None:
                    session.send("golden.bin", golden[1])
                    arguments += ["--golden", "./golden.bin"]
                session.start(RUNNER.name, arguments)
                for event in session.events():
                    gathered.add(event)
        except InputError as reason:
            if not gathered.latency:
                raise
            error = str(reason)
        return measurement_of(artifact, gathered, golden, error)

    @contextlib.contextmanager
    def classifiers(self, artifacts: Sequence[DescribedModel]) -> Iterator[list[Classifier]]:
        with contextlib.ExitStack() as stack:
            opened = []
            for artifact in artifacts:
                session = stack.enter_context(Session(self.address))
                _send(session, artifact)
                session.start(RUNNER.name, ["./" + _name(artifact), "--serve"])
                gathered = RunnerEvents((1,), 0)
                gathered.add(session.event())
                if not gathered.model:
                    raise InputError(f"{self.address} must tell of the model first. Received: something else")
                opened.append(_Served(artifact, session, f"{gathered.model['runtime']} on {gathered.model['host']}"))
            yield opened


class _Served(Classifier):
    """An artifact that a runner over there answers for."""

    def __init__(self, artifact: DescribedModel, session: Session, runtime: str) -> None:
        super().__init__(str(artifact.path), artifact.inputs, artifact.outputs, runtime)
        self._session = session

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        if not len(inputs):
            return np.empty((0, self.classes), self.output.dtype), 0.0
        content = np.ascontiguousarray(inputs, self.input.dtype.newbyteorder("<")).tobytes()
        self._session.exchange(struct.pack(">I", len(inputs)) + content)
        event = self._session.event()
        size = len(inputs) * self.classes * self.output.dtype.itemsize
        if event["event"] != "outputs" or event.get("images") != len(inputs) or event.get("bytes") != size:
            raise InputError(f"{self._session.address} must give {size:,} bytes of outputs. Received: {event!r:.80}")
        outputs = np.frombuffer(self._session.read(size), self.output.dtype.newbyteorder("<"))
        seconds = event.get("seconds")
        return outputs.reshape(len(inputs), self.classes), float(seconds) if isinstance(seconds, float) else 0.0


def _name(artifact: DescribedModel) -> str:
    return "model" + (".onnx" if artifact.path.suffix.lower() == ".onnx" else ".tflite")


def _send(session: Session, artifact: DescribedModel) -> None:
    session.send(RUNNER.name, RUNNER.read_bytes())
    session.send(_name(artifact), Path(artifact.path).read_bytes())
