"""A board or a computer reached by ssh: it runs a copy of the runner, which measures, or classifies the images sent."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from converters import strict_json
from converters.errors import InputError
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.open_model import Classifier
from edge_cv.evaluation.remote.address import Ssh
from edge_cv.evaluation.remote.device import RemoteDevice
from edge_cv.evaluation.remote.golden import DescribedModel, GoldenInputs
from edge_cv.evaluation.remote.results import measurement_of
from edge_cv.evaluation.remote.ssh import Session
from edge_cv.evaluation.runner_events import RUNNER, Repetitions, RunnerEvents


class Board(RemoteDevice):
    """The device at the other end of an ssh connection."""

    images_at_once = 16

    def __init__(self, address: Ssh) -> None:
        self.address = address

    def measure(
        self,
        model: DescribedModel,
        golden: GoldenInputs | None,
        repetitions: Repetitions,
        on_progress: Callable[[int, int], None] | None,
    ) -> Measurement:
        events, error = RunnerEvents(repetitions.threads, repetitions.runs, on_progress), None
        arguments = ["./" + _name(model), *repetitions.options()]
        try:
            with Session(self.address) as session:
                _send(session, model)
                if golden is not None:
                    session.send("golden.bin", golden.content)
                    arguments += ["--golden", "./golden.bin"]
                session.start(RUNNER.name, arguments)
                for event in session.events():
                    events.add(event)
                events.check_complete()
        except InputError as reason:
            if not events.latency:
                raise
            error = str(reason)
        return measurement_of(model, events, golden, error)

    @contextlib.contextmanager
    def classifiers(self, models: Sequence[DescribedModel]) -> Iterator[Sequence[Classifier]]:
        with contextlib.ExitStack() as stack:
            yield [self._open(model, stack.enter_context(Session(self.address))) for model in models]

    def _open(self, model: DescribedModel, session: Session) -> _ServedModel:
        _send(session, model)
        session.start(RUNNER.name, ["./" + _name(model), "--serve"])
        events, event = RunnerEvents((1,), 0), session.event()
        events.add(event)
        if not events.model:
            raise InputError(f"{self.address} must report the model first. Received: {event['event']!r:.40}")
        return _ServedModel(model, session, f"{events.model['runtime']} on {events.model['host']}")


class _ServedModel(Classifier):
    """A model that a runner on the device has opened and runs on the inputs that it receives."""

    def __init__(self, model: DescribedModel, session: Session, runtime: str) -> None:
        super().__init__(str(model.path), model.inputs, model.outputs, runtime)
        self._session = session

    def stored(self, inputs: np.ndarray) -> tuple[np.ndarray, float]:
        if not len(inputs):
            return np.empty((0, self.classes), self.output.dtype), 0.0
        content = np.ascontiguousarray(inputs, self.input.dtype.newbyteorder("<")).tobytes()
        self._session.write(struct.pack(">I", len(inputs)) + content)
        event = self._session.event()
        size = len(inputs) * self.classes * self.output.dtype.itemsize
        if event["event"] != "outputs" or event.get("images") != len(inputs) or event.get("bytes") != size:
            raise InputError(f"{self._session.address} must return {size:,} bytes of outputs. Received: {event!r:.80}")
        outputs = np.frombuffer(self._session.read(size), self.output.dtype.newbyteorder("<"))
        seconds = strict_json.number(event.get("seconds"), "the seconds of the inferences", 0)
        return outputs.reshape(len(inputs), self.classes), float(seconds)


def _name(model: DescribedModel) -> str:
    return "model" + (".onnx" if model.path.suffix.lower() == ".onnx" else ".tflite")


def _send(session: Session, model: DescribedModel) -> None:
    session.send(RUNNER.name, RUNNER.read_bytes())
    session.send(_name(model), model.path.read_bytes())
