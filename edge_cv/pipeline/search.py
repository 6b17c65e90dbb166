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
from edge_cv.progress import Progress, Update, silent
from edge_cv.recipe import Recipe

if TYPE_CHECKING:
    import optuna

_JUDGED = ("COMPLETE", "PRUNED")
_RANGE = re.compile(r"(?P<log>log:)?(?P<least>[^.]\S*?)\.\.(?P<most>\S+)")


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: counted from 0.
        fields: what was tried, by the fields' names.
        score: the best validation score, 0..1; of one that was ended early the last.
        state: `complete` or `pruned` (ended early, for others were better by then).
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
    """Train a recipe with other values of some fields, and say which were best on the validation images.

    The trials are kept in the folder's `trials.log`; a search that was stopped goes on, and a finished one with more
    `trials` goes further. After each epoch a training whose score is under the median of the others' is ended.

    Args:
        recipe: with a part `fit`.
        over: what is searched, as `FIELD=SPACE`; a space is `LEAST..MOST`, `log:LEAST..MOST`, or choices with commas.
        out_dir: the folder.
        trials: trainings in all.
        progress: told what is being done.

    Returns:
        The trials, best first.

    Raises:
        InputError: a recipe without `fit`, a field or a space that cannot be, or a training that fails.
    """
    from edge_cv import pipeline

    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise InputError(f"a search needs Optuna: pip install 'edge-cv[search]'. Received: {error}") from error
    if recipe.fit is None:
        raise InputError(f"to search, the recipe {recipe.name} must have a part fit. Received: none")
    if trials < 1:
        raise InputError(f"trials must be at least 1. Received: {trials}")
    spaces = [_space(text, recipe) for text in over]
    if not spaces:
        raise InputError("a search must be told a field, such as fit.learning_rate=log:0.001..0.3. Received: none")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=recipe.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "trials.log"))),
    )

    def objective(trial: optuna.Trial) -> float:
        tried = recipe.with_settings(f"{name}={_drawn(trial, name, space)!r}" for name, space in spaces)
        key = hashlib.sha256(repr(sorted(trial.params.items())).encode()).hexdigest()[:8]

        def judge(entry: dict[str, Any]) -> None:
            trial.report(entry["validation_score"] or 0.0, entry["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        def numbered(title: str) -> AbstractContextManager[Update]:
            return progress(f"trial {trial.number + 1} of {trials}, {title}")

        network = pipeline.train(tried, folder / key, progress=numbered, on_epoch=judge)
        return max(entry["validation_score"] or 0.0 for entry in network.history)

    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a search that was killed
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    while sum(t.state.name in _JUDGED for t in study.trials) < trials:
        # Of the trials so far: a sampler that begins anew with the same seed would draw the first trial's values again.
        study.sampler = optuna.samplers.TPESampler(seed=recipe.fit.seed + len(study.trials))
        try:
            study.optimize(objective, n_trials=1)
        except KeyboardInterrupt:  # for Optuna it has failed; here it goes on when the search does
            if study.trials[-1].state == optuna.trial.TrialState.FAIL:
                study.enqueue_trial(study.trials[-1].params)
            raise
    found = [
        Trial(
            t.number, dict(t.params), t.value or t.intermediate_values[max(t.intermediate_values)], t.state.name.lower()
        )
        for t in study.trials
        if t.state.name in _JUDGED
    ]
    return sorted(found, key=lambda t: (t.state, -t.score))


def _space(text: str, recipe: Recipe) -> tuple[str, Any]:
    name, equals, space = (part.strip() for part in text.partition("="))
    if not equals or not space:
        raise InputError(f"what is searched must be FIELD=SPACE. Received: {text!r}")
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
        recipe.with_settings([f"{name}={value!r}"])  # a field or a value that cannot be is refused now
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
