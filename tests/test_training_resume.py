"""Interrupted training: it resumes with the same result, and its checkpoints are whole or refused."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_training import Breaking, assert_equal, batches, network, quick

from converters.errors import InputError
from edge_cv.recipe import Phase
from edge_cv.training import fit
from edge_cv.training.checkpoint import load, save_weights
from edge_cv.training.logs import TensorBoard


@pytest.mark.parametrize(
    ("fields", "killed_at"),
    [
        pytest.param({"optimizer": "adamw", "accumulate": 2}, (0, 4), marks=pytest.mark.slow),
        pytest.param({}, (1, 0), marks=pytest.mark.slow),
        ({"phases": ()}, (1, 3)),
        pytest.param({"schedule": "plateau", "ema": 0.9}, (2, 3), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_interrupted_training_resumes_to_the_same_weights_and_history(fields: dict, killed_at, tmp_path):
    phases = (Phase(1, 0.05, train="head"),)
    settings = quick(**{"epochs": 2, "phases": phases, "checkpoint_seconds": 0.0, **fields})
    validation = list(batches(16).epoch(0))
    whole, parts = network(dropout=0.5), network(dropout=0.5)
    wanted = fit(whole, batches(), settings, validation=validation, folder=tmp_path / "whole")
    with pytest.raises(Exception):  # noqa: B017, PT011  what the backend makes of an error in a generator
        fit(parts, Breaking(*killed_at), settings, validation=validation, folder=tmp_path / "parts")
    assert load(tmp_path / "parts" / "checkpoint.npz").state["phase"] == (killed_at[0] > 0 and len(settings.phases))
    again = network(dropout=0.5, seed=77)  # the initial weights do not matter
    found = fit(again, batches(), settings, validation=validation, folder=tmp_path / "parts")
    assert_equal(whole, again)
    timing = {"seconds": 0, "images_per_second": 0}
    assert [entry | timing for entry in found.history] == [entry | timing for entry in wanted.history]


@pytest.mark.slow
def test_a_finished_training_is_not_repeated(tmp_path):
    first = network()
    fitted = fit(first, batches(), quick(), validation=list(batches(16).epoch(0)), folder=tmp_path)
    again = network(seed=3)
    assert fit(again, Breaking(0, 0), quick(), validation=list(batches(16).epoch(0)), folder=tmp_path) == fitted
    assert_equal(first, again)


@pytest.mark.slow
def test_a_killed_process_leaves_a_checkpoint_from_which_training_resumes(tmp_path):
    """kill -9 in the middle of an epoch, in a separate process."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import tiny_training as t
from edge_cv.training import fit
class Dying(t.Breaking):
    def epoch(self, number, first_step=0):
        for step, batch in enumerate(self.whole.epoch(number, first_step), first_step):
            if (number, step) == self.at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch
fit(t.network(), Dying(1, 3), t.quick(epochs=3, checkpoint_seconds=0.0), folder={str(tmp_path / "run")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    state = load(tmp_path / "run" / "checkpoint.npz").state
    assert state["epoch"] == 1
    whole, again = network(), network(seed=4)
    fit(whole, batches(), quick(epochs=3))
    fit(again, batches(), quick(epochs=3, checkpoint_seconds=0.0), folder=tmp_path / "run")
    assert_equal(whole, again)


def test_short_epochs_share_a_checkpoint_unless_it_shall_be_written_at_once(tmp_path):
    def files(name: str, **fields: float) -> list[bool]:
        path, found = tmp_path / name / "checkpoint.npz", []
        fit(network(), batches(), quick(**fields), folder=path.parent, on_epoch=lambda _: found.append(path.is_file()))
        return found

    assert files("short") == [False, True]
    assert files("at once", checkpoint_seconds=0.0) == [True, True]


def test_the_kept_weights_of_an_earlier_epoch_survive_an_interruption(tmp_path):
    validation = [(images, np.roll(targets, 1, axis=1)) for images, targets in batches(16).epoch(0)]  # wrong labels
    settings = quick(epochs=3, optimizer="adamw", learning_rate=0.02, schedule="constant", checkpoint_seconds=0.0)
    whole, again = network(), network(seed=3)
    wanted = fit(whole, batches(), settings, validation=validation)
    assert wanted.best_epoch < 3
    with pytest.raises(Exception):  # noqa: B017, PT011
        fit(network(), Breaking(wanted.best_epoch, 2), settings, validation=validation, folder=tmp_path)
    assert fit(again, batches(), settings, validation=validation, folder=tmp_path).best_epoch == wanted.best_epoch
    assert_equal(whole, again)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished training."""
    folder = tmp_path_factory.mktemp("finished")
    fit(network(), batches(), quick(), folder=folder)
    return folder


def test_folder_of_another_training_is_refused(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"must be empty or contain a checkpoint of this training.*other settings"):
        fit(network(), batches(), quick(learning_rate=0.2), folder=tmp_path)
    with pytest.raises(InputError, match=r"contain a checkpoint of this training"):
        fit(network(batch_norm=False), batches(), quick(), folder=tmp_path)


def test_file_that_is_not_a_checkpoint_is_refused_and_nothing_in_it_runs(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    place = tmp_path / "checkpoint.npz"
    whole = place.read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        place.write_bytes(content)
        with pytest.raises(InputError, match=r"must be a checkpoint of a training; delete .* to start over"):
            fit(network(), batches(), quick(), folder=tmp_path)
    np.savez(place, state=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="must be a checkpoint"):
        load(place)


def test_a_full_disk_keeps_the_last_checkpoint(finished, tmp_path, monkeypatch):
    before = (finished / "checkpoint.npz").read_bytes()
    shutil.copytree(finished, tmp_path / "full")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    from edge_cv.training import checkpoint

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(
        InputError, match=r"checkpoint.npz cannot be written: No space left on device; the previous checkpoint"
    ):
        checkpoint.save(tmp_path / "full" / "checkpoint.npz", {}, {})
    assert (tmp_path / "full" / "checkpoint.npz").read_bytes() == before
    assert not list((tmp_path / "full").glob(".*part"))


@pytest.fixture
def full_disk():
    """A limit of 2,000 bytes on the size of files, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_logs_on_a_full_disk_end_a_training_in_one_line(tmp_path, full_disk):
    history = [{"epoch": number, "loss": 1.0, "score": 0.5} for number in range(100)]
    with pytest.raises(InputError, match=r"tensorboard cannot be written: File too large"):
        TensorBoard(tmp_path / "tensorboard", history)


def test_weights_on_a_full_disk_end_a_training_in_one_line(tmp_path, full_disk):
    with pytest.raises(InputError, match=r"best\.weights\.h5 cannot be written: File too large"):
        save_weights(tmp_path / "best.weights.h5", network())
    assert not list(tmp_path.iterdir())


def test_keras_loads_the_saved_weights(tmp_path):
    first, again = network(), network(seed=3)
    save_weights(tmp_path / "best.weights.h5", first)
    again.load_weights(tmp_path / "best.weights.h5")
    assert_equal(first, again)
