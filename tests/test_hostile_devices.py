"""Boards that answer a part, garbage, nothing or without end: exit code 2, one line, and what was measured is kept."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import hostile_runner
import numpy as np
import pytest
import tiny_files
from ssh_server import SSHD

from converters.errors import InputError
from edge_cv.evaluation.measurement import Measurement, compare
from edge_cv.evaluation.remote import ssh

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)"),
    pytest.mark.usefixtures("client", "described_once", "impatient"),
]

# The latencies that are kept, and what the last line says. A device of two latencies has answered all.
EXPECTED: dict[str, tuple[int, str]] = {
    "whole": (2, ""),
    "noise on stderr": (2, ""),
    "one of two": (1, "must report a latency for each of the thread counts (1, 2). Received: 1"),
    "half of the runs": (2, "must report a latency for each of the thread counts (1, 2). Received: 1"),
    "fewer runs": (1, "must report the 3 requested inferences. Received: 1"),
    "more runs": (2, "must report the 3 requested inferences. Received: 6"),
    "no golden outputs": (2, "must give outputs for the golden inputs. Received: none"),
    "golden null": (2, "must give outputs for the golden inputs. Received: none"),
    "golden of fewer images": (2, "must give outputs of (8, 3) for the golden inputs. Received: (7, 3)"),
    "golden of fewer classes": (2, "must give outputs of (8, 3) for the golden inputs. Received: (8, 2)"),
    "golden ragged": (2, "must have as many numbers for every image. Received: 3 and 1"),
    "golden text": (2, "golden's outputs must be a list"),
    "golden nan": (2, "must be a finite number. Received: nan"),
    "golden huge": (2, "must be a finite number"),
    "nothing": (0, "must report a latency for each of the thread counts (1, 2). Received: 0"),
    "only a model": (0, "must report a latency for each of the thread counts (1, 2). Received: 0"),
    "latency first": (0, "must report the model first"),
    "model without names": (0, "the runner's cores must be a number"),
    "negative samples": (1, "must be a number from 0"),
    "nan samples": (0, "must be a finite number. Received: nan"),
    "no events": (0, "must answer with events"),
    "a list": (0, "must answer with events"),
    "garbage": (0, "must answer with events"),
    "nested": (0, "must answer with events"),
    "error with escape codes": (0, "boom"),
    "error without message": (0, "no message"),
    "exit code of text": (1, "an exit code must be a number"),
    "silent": (0, "must answer within 3 s. Received: no answer"),
    "silent after one": (1, "must answer within 3 s. Received: no answer"),
    "a byte now and then": (0, "must answer within 3 s. Received: no answer"),
    "a line without end": (0, "must answer with lines of at most 100,000 bytes"),
    "events without end": (0, "must report at most 100 events beside its progress"),
    "unknown events without end": (1, "must report at most 100 events beside its progress"),
    "empty progress without end": (0, "must report inferences as its progress. Received: none"),
}


QUICK = ("whole", "one of two", "golden nan", "nothing", "garbage", "a line without end")


@pytest.fixture
def impatient(monkeypatch):
    """Limits that a test can reach."""
    monkeypatch.setattr(ssh, "SILENCE_SECONDS", 3.0)
    monkeypatch.setattr(ssh, "MAX_LINE", 100_000)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_files.write(tmp_path_factory.mktemp("tiny") / "tiny.tflite", record=tiny_files.record_bytes())


@pytest.fixture
def hostile(device, python):
    """The address of a board whose runner misbehaves in one way; its agent is ours."""

    def make(way: str) -> str:
        command = f'"{sys.executable}" "{hostile_runner.__file__}" "{way}" "$@"'
        return device(python=python(f'case "$1" in -I) exec "$python" "$@" ;; *) exec {command} ;; esac'))

    return make


def test_every_way_is_expected():
    assert set(EXPECTED) == set(hostile_runner.WAYS)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way in QUICK else [pytest.mark.slow]) for way in EXPECTED]
)
def test_a_board_that_misbehaves_is_reported_and_what_it_measured_is_kept(
    way, hostile, model, server, edge_cv, tmp_path
):
    kept, message = EXPECTED[way]
    out = tmp_path / "board.json"
    start = time.monotonic()
    code, _, errors = edge_cv(
        *("benchmark", model, "--device", hostile(way), "--threads", "1,2", "--runs", 3, "--out", out)
    )
    assert time.monotonic() - start < 30
    last = errors.splitlines()[-1]
    assert code == (2 if message else 0), errors
    assert message in last
    assert "Traceback" not in errors
    assert "\x1b" not in errors
    assert len(last) < 1000
    assert out.exists() == (kept > 0)
    if kept:
        measurement = Measurement.load(out)
        assert len(measurement.latency) == kept
        assert (measurement.error is None) == (not message)
    assert server.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("way", hostile_runner.SERVED)
def test_a_board_that_misbehaves_while_it_classifies_is_reported(way, hostile, model, photos, server, edge_cv):
    code, _, errors = edge_cv("evaluate", model, "--data", photos, "--limit", 2, "--device", hostile(way))
    assert code == 2, errors
    assert "Traceback" not in errors
    assert server.left() == []


def test_outputs_of_another_type_are_no_match():
    ours = np.array([[1, 2]], np.int8)
    with pytest.raises(InputError, match="must give integers"):
        compare(ours, np.array([[1.2, 2.0]]), "here")
    assert compare(ours, np.array([[1, 3]]), "here").max_steps == 1
