"""Many recipes at once: each in a fresh process, one after the other or one a node of a cluster, and one report."""

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
from edge_cv.parallel.processes import process_pool
from edge_cv.progress import Progress, Update, silent
from edge_cv.recipe import Recipe
from edge_cv.stages import tools as tools_here

if TYPE_CHECKING:
    from edge_cv.parallel.ray_cluster import RayCluster
    from edge_cv.report import Report

MOST_LETTERS = 300  # of what Ray has to say
TOKEN = ".sweep"  # by its content a node knows the folder for the same


@dataclass(frozen=True)
class Run:
    """One recipe of a sweep, called as its folder is."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: of the run.
        failed: the reason in one line; None for one that has its report.
        violations: how many limits of the recipe were broken.
        bad_input: whether what failed was the input, and not a conversion's check or a process.
    """

    name: str
    failed: str | None = None
    violations: int = 0
    bad_input: bool = False


def plan(recipes: Sequence[Recipe], over: Sequence[str] = ()) -> list[Run]:
    """Every recipe with every combination of values.

    Args:
        recipes: each with a name of its own.
        over: `FIELD=VALUE,VALUE`, as `Recipe.with_settings` takes each; all are combined.

    Returns:
        The runs; the values that differ are in their names.

    Raises:
        InputError: a field or a value that cannot be, or two runs of the same name.
    """
    runs = [Run(recipe.name, recipe) for recipe in recipes]
    for text in over:
        field, equals, values = text.partition("=")
        choices = [value.strip() for value in re.split(r",(?![^(\[{]*[)\]}])", values)]  # commas outside of brackets
        if not equals or not all(choices):
            raise InputError(f"what is swept over must be FIELD=VALUE,VALUE. Received: {text!r}")
        runs = [
            Run(f"{run.name}_{_word(value)}", run.recipe.with_settings([f"{field}={value}"]))
            for run in runs
            for value in choices
        ]
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"each run of a sweep must have a name of its own. Received twice: {', '.join(twice)}")
    return runs


def _word(value: str) -> str:
    return re.sub(r"[^\w.-]+", "-", value).strip("-.") or "-"


def sweep(
    runs: Sequence[Run],
    out_dir: str | os.PathLike,
    *,
    cluster: RayCluster | None = None,
    progress: Progress = silent,
) -> tuple[Report | None, list[Outcome]]:
    """Carry out the runs, each in a folder of its own, and compare those that came to an end.

    A run that fails does not stop the others. The same sweep again does only what is left: each run goes on as
    `pipeline.run` does. Whole runs never share a machine, so that latencies are measured while no other run of the
    sweep is at work there.

    Args:
        runs: of `plan`.
        out_dir: the sweep's folder; each run's is in there by its name, and so are `report.json` and `report.html`.
        cluster: run on its nodes, to all of which the folder and the photos must be at hand under the same paths;
            None does one run after the other on this machine.
        progress: told what is being done, run by run; it must be a function of a module.

    Returns:
        The comparison, None where no run came to an end, and how each run ended, in the order of the runs.

    Raises:
        InputError: there is nothing to run, or the folder cannot be written.
    """
    from edge_cv.report import load, merge, save

    if not runs:
        raise InputError("a sweep needs at least one recipe. Received: none")
    folder = Path(out_dir).absolute()
    token = secrets.token_hex(16)
    write_atomic(folder / TOKEN, token)
    tasks = [
        (run, folder, token, tools_here(), _Titled(progress, f"run {number} of {len(runs)}, {run.name}: "))
        for number, run in enumerate(runs, 1)
    ]
    done = _on_nodes(cluster, tasks) if cluster is not None else _in_turn(tasks)
    outcomes = [outcome for _, outcome in sorted(done, key=lambda pair: pair[0])]
    finished = [outcome.name for outcome in outcomes if outcome.failed is None]
    if not finished:
        return None, outcomes
    report = merge([load(folder / name) for name in finished], finished)
    save(report, folder)
    return report, outcomes


@dataclass(frozen=True)
class _Titled:
    """A progress whose titles say which run they are of; it can be sent to another process."""

    progress: Progress
    title: str

    def __call__(self, title: str) -> AbstractContextManager[Update]:
        return self.progress(self.title + title)


def _in_turn(tasks: Sequence[tuple]) -> Iterator[tuple[int, Outcome]]:
    """Each task in a fresh process of this machine; Ctrl-C ends that too, and so does this process's death."""
    from loky.process_executor import BrokenProcessPool

    for place, task in enumerate(tasks):
        executor, ended = process_pool(1, threads=True), False
        try:
            outcome = executor.submit(_carry_out, *task).result()
            ended = True
        except BrokenProcessPool:
            outcome = _died(task[0], "memory ran out, or it was killed")
        finally:
            executor.shutdown(wait=True, kill_workers=not ended)
        yield place, outcome


def _on_nodes(cluster: RayCluster, tasks: Sequence[tuple]) -> Iterator[tuple[int, Outcome]]:
    trains = [run.recipe.fit is not None or bool(run.recipe.compression()) for run, *_ in tasks]
    for place, result in cluster.one_a_node(_carry_out, tasks, trains):
        yield place, result if isinstance(result, Outcome) else _died(tasks[place][0], result)


def _died(run: Run, why: object) -> Outcome:
    return Outcome(run.name, f"its process ended: {' '.join(str(why).split())[:MOST_LETTERS]}")


def _carry_out(run: Run, folder: Path, token: str, tools: dict[str, str], progress: Progress) -> Outcome:
    """One run, in a process of its own, perhaps on another machine."""
    from edge_cv.pipeline import run as run_recipe

    try:
        _check_node(folder, token, tools)
        report = run_recipe(run.recipe, folder / run.name, progress=progress)
    except (InputError, CheckFailed, OSError) as error:
        return Outcome(run.name, " ".join(str(error).split()), bad_input=not isinstance(error, CheckFailed))
    except Exception as error:
        traceback.print_exc()  # an error of this program: whoever mends it wants to know where
        return Outcome(run.name, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Outcome(run.name, violations=len(report.violations))


def _check_node(folder: Path, token: str, tools: dict[str, str]) -> None:
    """Raise InputError on a machine that would write elsewhere, or do other work than it was asked for."""
    try:
        same = (folder / TOKEN).read_text() == token
    except OSError:
        same = False
    if not same:
        raise InputError(f"{folder} must be the same folder on all nodes. Received: {os.uname().nodename} has another")
    if tools_here() != tools:
        raise InputError(
            "all nodes must have the same versions of edge-cv and its libraries. "
            f"Received: others on {os.uname().nodename}"
        )
