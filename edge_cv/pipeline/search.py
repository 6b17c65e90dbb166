"""Hyper-parameter search over a recipe's fields, by Optuna: https://arxiv.org/abs/1907.10902."""

from __future__ import annotations

import ast
import hashlib
import math
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.packages import require
from edge_cv.progress import Progress, Update, silent
from edge_cv.recipe import Recipe

if TYPE_CHECKING:
    import optuna

_FINISHED = ("COMPLETE", "PRUNED")
_RANGE = re.compile(r"(?P<log>log:)?(?P<least>[^.]\S*?)\.\.(?P<most>\S+)")


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: counted from 0.
        fields: the values that were tried, by the names of the recipe's fields.
        score: the best validation score, 0..1; the last one of a training that was ended early.
        state: `complete`, or `pruned` for a training that was ended early because others were better by then.
    """

    number: int
    fields: dict[str, Any]
    score: float
    state: str


def search(
    recipe: Recipe,
    over: Sequence[str],
    out_dir: str | os.PathLike,
    *,
    trials: int = 20,
    progress: Progress = silent,
) -> list[Trial]:
    """Train a recipe with different values of some fields; return the best by the score on the validation images.

    The trials are recorded in the folder's `trials.log`. An interrupted search resumes, and a finished one continues
    if `trials` is higher. After each epoch a training whose score is under the median of the others' is ended.

    Args:
        recipe: with a part `fit`.
        over: the fields to search, as `FIELD=SPACE`; a space is `LEAST..MOST`, `log:LEAST..MOST`, or choices separated
            by commas.
        out_dir: the folder.
        trials: number of trainings, including those of an earlier search in the folder.
        progress: shows what is being done.

    Returns:
        The trials, best first.

    Raises:
        InputError: a recipe without `fit`, an unknown field, an invalid space, or a training that fails.
    """
    require("a search", "search")
    import optuna

    if recipe.fit is None:
        raise InputError(f"to search, the recipe {recipe.name} must have a part fit. Received: none")
    if trials < 1:
        raise InputError(f"trials must be at least 1. Received: {trials}")
    spaces = [_space(text, recipe) for text in over]
    if not spaces:
        raise InputError("a search needs a field, such as fit.learning_rate=log:0.001..0.3. Received: none")
    folder = Path(out_dir)
    study = _study(recipe, folder)
    objective = _Objective(recipe, spaces, folder, trials, progress)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a search that was killed
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    while sum(t.state.name in _FINISHED for t in study.trials) < trials:
        # The seed depends on the number of trials: a new sampler with the same seed would draw the first values again.
        study.sampler = optuna.samplers.TPESampler(seed=recipe.fit.seed + len(study.trials))
        try:
            study.optimize(objective, n_trials=1)
        except KeyboardInterrupt:  # Optuna counts it as failed; it is queued, so that the next search resumes it
            if study.trials[-1].state == optuna.trial.TrialState.FAIL:
                study.enqueue_trial(study.trials[-1].params)
            raise
    finished = [_trial(t) for t in study.trials if t.state.name in _FINISHED]
    return sorted(finished, key=lambda t: (t.state, -t.score))


@dataclass(frozen=True)
class _Objective:
    """Trains the recipe with the values that Optuna suggests; returns the best validation score."""

    recipe: Recipe
    spaces: Sequence[tuple[str, Any]]
    folder: Path
    trials: int
    progress: Progress

    def __call__(self, trial: optuna.Trial) -> float:
        import optuna

        from edge_cv.pipeline.run import train

        recipe = self.recipe.with_settings(f"{name}={_drawn(trial, name, space)!r}" for name, space in self.spaces)
        key = hashlib.sha256(repr(sorted(trial.params.items())).encode()).hexdigest()[:8]

        def judge(entry: dict[str, Any]) -> None:
            trial.report(entry["validation_score"] or 0.0, entry["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        def numbered(title: str) -> AbstractContextManager[Update]:
            return self.progress(f"trial {trial.number + 1} of {self.trials}, {title}")

        model = train(recipe, self.folder / key, progress=numbered, on_epoch=judge)
        return max(entry["validation_score"] or 0.0 for entry in model.history)


def _study(recipe: Recipe, folder: Path) -> optuna.Study:
    """The study in the folder's `trials.log`, with the trials of earlier searches."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=recipe.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "trials.log"))),
    )


def _trial(trial: optuna.trial.FrozenTrial) -> Trial:
    score = trial.value or trial.intermediate_values[max(trial.intermediate_values)]
    return Trial(trial.number, dict(trial.params), score, trial.state.name.lower())


def _space(text: str, recipe: Recipe) -> tuple[str, Any]:
    """The field's name, and its space: (least, most, logarithmic) or a list of choices."""
    name, equals, space = (part.strip() for part in text.partition("="))
    if not equals or not space:
        raise InputError(f"a field to search must be FIELD=SPACE. Received: {text!r}")
    ranged = _RANGE.fullmatch(space)
    if ranged is not None:
        try:
            least, most = (ast.literal_eval(ranged[side]) for side in ("least", "most"))
            valid = all(isinstance(n, int | float) and math.isfinite(n) for n in (least, most)) and least < most
        except (ValueError, SyntaxError):
            valid = False
        if not valid or (ranged["log"] and least <= 0):
            raise InputError(f"a range must be LEAST..MOST, two numbers (above 0 with log:). Received: {space!r}")
        values: Any = (least, most, bool(ranged["log"]))
        trial_values = [least, most]
    else:
        values = trial_values = [_value(part.strip()) for part in space.split(",")]
    for value in trial_values:
        recipe.with_settings([f"{name}={value!r}"])  # an unknown field or an invalid value is refused now
    return name, values


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value


def _drawn(trial: optuna.Trial, name: str, space: Any) -> Any:
    if isinstance(space, list):
        return trial.suggest_categorical(name, space)
    least, most, logarithmic = space
    if isinstance(least, int) and isinstance(most, int):
        return trial.suggest_int(name, least, most, log=logarithmic)
    return trial.suggest_float(name, least, most, log=logarithmic)
