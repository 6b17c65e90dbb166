"""Run many recipes, each in a fresh process, one after the other or one a node; one report compares them."""

from __future__ import annotations

import os
import re
import secrets
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import CheckFailed, InputError
from converters.files import write_atomic
from edge_cv.folder_lock import holds
from edge_cv.parallel.processes import process_pool
from edge_cv.progress import Progress, Update, silent
from edge_cv.recipe import Recipe
from edge_cv.stages import tools as versions_here

if TYPE_CHECKING:
    from edge_cv.parallel.ray_cluster import RayCluster
    from edge_cv.report import Report

MAX_MESSAGE = 300  # characters of an error from Ray
TOKEN = ".sweep"  # the file whose content shows a node that it sees the same folder


@dataclass(frozen=True)
class Run:
    """One recipe of a sweep; the name is that of its folder."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: of the run.
        failed: the reason in one line; None if the run has a report.
        violations: number of the recipe's limits that are broken.
        bad_input: whether the input was invalid, rather than that a conversion's check or a process failed.
    """

    name: str
    failed: str | None = None
    violations: int = 0
    bad_input: bool = False


def plan(recipes: Sequence[Recipe], over: Sequence[str] = ()) -> list[Run]:
    """Combine every recipe with every combination of values.

    Args:
        recipes: each with a different name.
        over: the values to combine, as `FIELD=VALUE,VALUE` with fields and values of `Recipe.with_settings`.

    Returns:
        The runs; their names contain the values that differ.

    Raises:
        InputError: an unknown field, an invalid value, or two runs of the same name.
    """
    runs = [Run(recipe.name, recipe) for recipe in recipes]
    for text in over:
        field, equals, values = text.partition("=")
        choices = [value.strip() for value in re.split(r",(?![^(\[{]*[)\]}])", values)]  # commas outside brackets
        if not equals or not all(choices):
            raise InputError(f"values to sweep over must be FIELD=VALUE,VALUE. Received: {text!r}")
        runs = [
            Run(f"{run.name}_{_word(value)}", run.recipe.with_settings([f"{field}={value}"]))
            for run in runs
            for value in choices
        ]
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"each run of a sweep must have a different name. Received twice: {', '.join(twice)}")
    return runs


def _word(value: str) -> str:
    return re.sub(r"[^\w.-]+", "-", value).strip("-.") or "-"


@holds("out_dir")
def sweep(
    runs: Sequence[Run],
    out_dir: str | os.PathLike,
    *,
    cluster: RayCluster | None = None,
    progress: Progress = silent,
) -> tuple[Report | None, list[Outcome]]:
    """Do the runs, each in a folder of its own, and compare those that finish.

    A run that fails does not stop the others. The same sweep again does only the rest: each run resumes as
    `pipeline.run` does. Two runs never share a machine, so that a latency is measured while no other run of the sweep
    works there.

    Args:
        runs: from `plan`.
        out_dir: the sweep's folder; it holds each run's folder, `report.json` and `report.html`.
        cluster: run on its nodes, which must all have the folder and the photos under the same paths; None does one
            run after the other on this machine.
        progress: shows what is being done, run by run; a function of a module.

    Returns:
        The comparison, or None if no run finished, and how each run ended, in the order of the runs.

    Raises:
        InputError: there is no run, or the folder cannot be written.
    """
    from edge_cv.report import load, merge, save

    if not runs:
        raise InputError("a sweep needs at least one recipe. Received: none")
    folder = Path(out_dir).absolute()
    token = secrets.token_hex(16)
    write_atomic(folder / TOKEN, token)
    tasks = [
        (run, folder, token, versions_here(), _Titled(progress, f"run {number} of {len(runs)}, {run.name}: "))
        for number, run in enumerate(runs, 1)
    ]
    ended = _on_nodes(cluster, tasks) if cluster is not None else _in_turn(tasks)
    outcomes = [outcome for _, outcome in sorted(ended, key=lambda pair: pair[0])]
    finished = [outcome.name for outcome in outcomes if outcome.failed is None]
    if not finished:
        return None, outcomes
    report = merge([load(folder / name) for name in finished], finished)
    save(report, folder)
    return report, outcomes


@dataclass(frozen=True)
class _Titled:
    """A progress whose titles begin with the run's name; it can be sent to another process."""

    progress: Progress
    title: str

    def __call__(self, title: str) -> AbstractContextManager[Update]:
        return self.progress(self.title + title)


def _in_turn(tasks: Sequence[tuple]) -> Iterator[tuple[int, Outcome]]:
    """Do each task in a fresh process of this machine, which ends when this process is interrupted or killed."""
    from loky.process_executor import BrokenProcessPool

    for place, task in enumerate(tasks):
        executor, ended = process_pool(1, threads=True), False
        try:
            outcome = executor.submit(_do_run, *task).result()
            ended = True
        except BrokenProcessPool:
            outcome = _died(task[0], "memory ran out, or it was killed")
        finally:
            executor.shutdown(wait=True, kill_workers=not ended)
        yield place, outcome


def _on_nodes(cluster: RayCluster, tasks: Sequence[tuple]) -> Iterator[tuple[int, Outcome]]:
    trains = [run.recipe.fit is not None or bool(run.recipe.compression()) for run, *_ in tasks]
    for place, result in cluster.one_a_node(_do_run, tasks, trains):
        yield place, result if isinstance(result, Outcome) else _died(tasks[place][0], result)


def _died(run: Run, why: object) -> Outcome:
    return Outcome(run.name, f"its process ended: {' '.join(str(why).split())[:MAX_MESSAGE]}")


def _do_run(run: Run, folder: Path, token: str, versions: dict[str, str], progress: Progress) -> Outcome:
    """Do one run, in a process of its own, perhaps on another machine."""
    from edge_cv.pipeline.run import run as run_recipe

    try:
        _check_node(folder, token, versions)
        report = run_recipe(run.recipe, folder / run.name, progress=progress)
    except (InputError, CheckFailed, OSError) as error:
        return Outcome(run.name, " ".join(str(error).split()), bad_input=not isinstance(error, CheckFailed))
    except Exception as error:
        traceback.print_exc()  # an error of this program: the traceback shows where
        return Outcome(run.name, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Outcome(run.name, violations=len(report.violations))


def _check_node(folder: Path, token: str, versions: dict[str, str]) -> None:
    """Raise InputError on a machine with another folder or other versions than the one that started the sweep."""
    try:
        same = (folder / TOKEN).read_text() == token
    except OSError:
        same = False
    if not same:
        raise InputError(f"{folder} must be the same folder on all nodes. Received: {os.uname().nodename} has another")
    if versions_here() != versions:
        raise InputError(
            "all nodes must have the same versions of edge-cv and its libraries. "
            f"Received: different versions on {os.uname().nodename}"
        )
