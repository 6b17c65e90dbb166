"""A search over a recipe's fields: real trainings of a tiny network on digits."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv import recipe as recipes
from edge_cv.pipeline.search import search
from edge_cv.recipe import Data, Fit, Model, Recipe

RECIPE = Recipe(
    name="trial",
    model=Model("alexnet", image_size=64, alpha=0.125, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None),
    fit=Fit(epochs=2, images=64, batch_size=32, learning_rate=0.001, warmup_epochs=0, checkpoint_seconds=0.0),
)
OVER = ["fit.learning_rate=0.000001,0.002", "fit.momentum=0.5..0.9"]


def trained(folder: Path) -> dict[str, int]:
    """The modification time of the model of each training in a search's folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/model.keras")}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return search(RECIPE, OVER, folder, trials=2), folder


@pytest.mark.slow
def test_the_best_trial_comes_first_and_each_has_its_values(found):
    trials, folder = found
    assert sorted(trial.number for trial in trials) == [0, 1]
    scores = [trial.score for trial in trials if trial.state == "complete"]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    for trial in trials:
        assert trial.fields["fit.learning_rate"] in (0.000001, 0.002)
        assert 0.5 <= trial.fields["fit.momentum"] <= 0.9
    assert len({tuple(trial.fields.items()) for trial in trials}) == 2
    assert len(trained(folder)) == 2


@pytest.mark.slow
def test_a_finished_search_repeats_nothing(found):
    trials, folder = found
    before = trained(folder)
    assert search(RECIPE, OVER, folder, trials=2) == trials
    assert trained(folder) == before


@pytest.mark.slow
def test_more_trials_continue_with_other_values(found):
    trials, folder = found
    more = search(RECIPE, OVER, folder, trials=3)
    assert {trial.number: trial for trial in more}.items() >= {trial.number: trial for trial in trials}.items()
    assert len({tuple(trial.fields.items()) for trial in more}) == 3


@pytest.mark.slow
def test_an_interrupted_trial_resumes(found, tmp_path):
    """Ctrl-C in the second epoch of the first trial: it resumes with the same values in the second epoch."""
    titles: list[str] = []

    @contextlib.contextmanager
    def impatient(title: str):
        titles.append(title)
        if title == "trial 1 of 1, training, epoch 2 of 2":
            raise KeyboardInterrupt
        yield lambda done, total, note="": None

    @contextlib.contextmanager
    def patient(title: str):
        titles.append(title)
        yield lambda done, total, note="": None

    with pytest.raises(KeyboardInterrupt):
        search(RECIPE, OVER, tmp_path, trials=1, progress=impatient)
    titles.clear()
    (trial,) = search(RECIPE, OVER, tmp_path, trials=1, progress=patient)
    assert [title for title in titles if ", epoch " in title] == ["trial 2 of 1, training, epoch 2 of 2"]
    whole = next(other for other in found[0] if other.number == 0)
    assert (trial.fields, trial.score) == (whole.fields, whole.score)


@pytest.mark.slow
def test_a_killed_trial_resumes(found, tmp_path):
    code = f"""
import contextlib, os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_search as t
@contextlib.contextmanager
def dying(title):
    if "epoch 2" in title:
        os.kill(os.getpid(), signal.SIGKILL)
    yield lambda done, total, note="": None
t.search(t.RECIPE, t.OVER, {str(tmp_path)!r}, trials=1, progress=dying)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    assert not trained(tmp_path)
    (trial,) = search(RECIPE, OVER, tmp_path, trials=1)
    whole = next(other for other in found[0] if other.number == 0)
    assert (trial.fields, trial.score) == (whole.fields, whole.score)
    assert len(trained(tmp_path)) == 1


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], r"a search needs a field, such as fit.learning_rate=log:0.001..0.3"),
        (["fit.learning_rate"], r"a field to search must be FIELD=SPACE. Received: 'fit.learning_rate'"),
        (["fit.learning_rate="], r"must be FIELD=SPACE"),
        (["fit.learning_rat=0.1..0.2"], r"field of Fit.*learning_rat"),
        (["fit.learning_rate=0.2..0.1"], r"a range must be LEAST..MOST, two numbers.*Received: '0.2..0.1'"),
        (["fit.learning_rate=a..b"], r"a range must be LEAST..MOST"),
        (["fit.learning_rate=log:0..1"], r"a range must be .*above 0 with log:"),
        (["fit.learning_rate=-1..1"], r"Fit.learning_rate must be above 0. Received: -1"),
        (["fit.optimizer=sgd,adam"], r"unknown Fit.optimizer.*adam"),
        (["fit.epochs=1.5,2"], r"Fit.epochs must be int. Received: 1.5"),
        (["=1,2"], r"unknown field of Recipe"),
    ],
)
def test_invalid_spaces_and_fields_are_refused_before_the_first_training(over, message, tmp_path):
    with pytest.raises(InputError, match=message):
        search(RECIPE, over, tmp_path / "search", trials=1)
    assert not (tmp_path / "search").exists()


def test_a_recipe_without_training_and_no_trials_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"the recipe trial must have a part fit. Received: none"):
        search(dataclasses.replace(RECIPE, fit=None), OVER, tmp_path)
    with pytest.raises(InputError, match=r"trials must be at least 1. Received: 0"):
        search(RECIPE, OVER, tmp_path, trials=0)


@pytest.mark.parametrize(
    ("space", "valid"),
    [
        ("fit.learning_rate=log:0.001..0.3", lambda value: 0.001 <= value <= 0.3),
        ("fit.batch_size=8..16", lambda value: value in range(8, 17)),
        ("fit.optimizer=sgd,rmsprop", lambda value: value in ("sgd", "rmsprop")),
        ("fit.ema=None,0.9", lambda value: value in (None, 0.9)),
        ("fit.augment.flip=0..0.5", lambda value: 0 <= value <= 0.5),
    ],
)
def test_values_are_drawn_from_the_space_and_fit_the_field(space, valid):
    import optuna

    from edge_cv.pipeline.search import _drawn, _space

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    name, values = _space(space, RECIPE)
    for _ in range(8):
        value = _drawn(study.ask(), name, values)
        assert valid(value)
        assert recipes.with_settings(RECIPE, [f"{name}={value!r}"])
