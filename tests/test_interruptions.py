"""Commands that are interrupted again and again end with the result of an undisturbed run, and leave nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

import pytest
from image_batches import scene, stored
from interruptions import (
    CODES,
    SIGNALS,
    Command,
    check_end,
    check_whole,
    content_of,
    interrupt,
    interrupted_run,
    start,
    timeline,
    without_time,
)

SEEDS = [int(seed) for seed in os.environ.get("INTERRUPTION_SEEDS", "0").split(",")]
TIMES = int(os.environ.get("INTERRUPTIONS", "0"))  # of a run, at random places; 0: two, and the digits in some stages
STAGES = ("training, epoch 2", "quantization-aware training", "converting to int8", "measuring")

CHAIN = """
import dataclasses
from edge_cv.recipe import Analysis, FineTuning, Measure, Model, Qat
from edge_cv.recipes.digits import RECIPE as digits
short = FineTuning(steps=12, learning_rate=1e-3, freeze_statistics=False)
RECIPE = dataclasses.replace(
    digits,
    model=Model("{model}", preprocessing={{"rule": "stretch"}}),
    data=dataclasses.replace(digits.data, calibration_images=16, images=32),
    fit=dataclasses.replace(digits.fit, epochs=2, images=256, checkpoint_seconds=0.0),
    prune=dataclasses.replace(digits.prune, fine_tuning=short),
    qat=Qat(fine_tuning=short),
    measure=Measure(threads=(1,), runs=6, warmup=1),
    analysis=Analysis(grad_cam=2),
    limits=(),
)
"""
TINY = """
from edge_cv.recipe import Analysis, Data, Measure, Model, Recipe
RECIPE = Recipe(
    name="tiny",
    model=Model("{model}", preprocessing={{"rule": "stretch"}}),
    data=Data(measure="digits", calibrate=None, calibration_images=16, images=32),
    schemes=("float32",),
    measure=Measure(threads=(1,), runs=6, warmup=1),
    analysis=Analysis(grad_cam=0),
)
"""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Attributes:
        arguments: the command's, for a folder of results.
        lines: its timeline.
        content: what its folder holds.
        printed: its output as JSON; None without `--json`.
    """

    arguments: Callable[[Path], list[object]]
    lines: list[tuple[float, str]]
    content: dict[str, Any]
    printed: Any


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], Whole]:
    """Runs a command once and returns what it did."""
    place = tmp_path_factory.mktemp("undisturbed")
    done: dict[str, Whole] = {}

    def run(name: str) -> Whole:
        if name not in done:
            arguments = partial(COMMANDS[name], _inputs(name, place))
            command = start(arguments(place / name), place / f"{name}.out")
            assert command.wait(600) == 0, command.text()
            check_whole(place / name)
            done[name] = Whole(arguments, timeline(command), content_of(place / name), printed(place / f"{name}.out"))
        return done[name]

    return run


def network() -> keras.Model:
    """32x32 pixels to ten logits, in layers that every stage of compression takes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    x = image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(x)
    for number, width in enumerate((16, 24)):
        x = layers.Conv2D(width, 3, strides=2, use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(layers.BatchNormalization(name=f"norm{number}")(x))
    return keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)), name="small")


def _inputs(name: str, place: Path) -> Path:
    """The file or folder that a command starts from."""
    if name in ("digits", "sweep", "compress"):
        model = place / "small.keras"
        if not model.exists():
            network().save(model)
        recipe = place / f"{name}.py"
        recipe.write_text((CHAIN if name == "digits" else TINY).format(model=model))
        return model if name == "compress" else recipe
    photos = place / "photos"
    for number in range(160 if name == "prepare" else 0):
        file = photos / ("ant nest", "bee hive", "fox den")[number % 3] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored(scene(number % 7, 480, 360)) + bytes([number]))
    return photos


def printed(path: Path) -> Any:
    import json

    text = path.read_text()
    if text.startswith("["):  # rows, whose files are in the run's own folder
        return without_time([row | {"file": Path(row["file"]).name} for row in json.loads(text)])
    return without_time(json.loads(text)) if text.startswith("{") else None


COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "demo": lambda _, out: [
        *(
            "run",
            "demo",
            "--json",
            "--set",
            "model.image_size=64",
            "--set",
            "data.images=6",
            "--set",
            "data.calibration_images=6",
        ),
        *("--set", "measure.runs=6", "--set", "measure.warmup=1", "--set", "limits=()", "--out", out),
    ],
    "digits": lambda recipe, out: ["run", recipe, "--json", "--out", out],
    "sweep": lambda recipe, out: ["sweep", recipe, "--over", "data.images=32,24", "--json", "--out", out],
    "compress": lambda model, out: [
        *("compress", model, "--data", "digits", "--channels", 0.8, "--sparsity", 0.5, "--clusters", 16, "--qat"),
        *("--steps", 12, "--json", "--out", out),
    ],
    "prepare": lambda photos, out: ["data", "prepare", photos, out, "--shards", 16],
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["digits", "sweep", "compress", *(["demo"] if TIMES else [])])
def test_a_run_that_is_interrupted_again_and_again_ends_as_an_undisturbed_one(undisturbed, tmp_path, name, seed):
    whole = undisturbed(name)
    arguments, out = whole.arguments(tmp_path / name), tmp_path / f"{name}.out"
    titles = [line for _, line in whole.lines]
    places = sorted(random.Random(seed).sample(range(len(titles)), TIMES or 2))
    if name == "digits" and not TIMES:
        places = [next(p for p, title in enumerate(titles) if title.startswith(stage)) for stage in STAGES]
    hits = interrupted_run(arguments, whole.lines, places, seed, lambda: check_whole(tmp_path / name), out)
    assert len(hits) > len(places) / 2, hits
    assert content_of(tmp_path / name) == whole.content, hits
    assert printed(out) == whole.printed


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_shards_are_the_same_after_interruptions_at_random_moments(undisturbed, tmp_path, seed):
    whole, draw = undisturbed("prepare"), random.Random(seed)
    records = tmp_path / "prepare" / ".unfinished"
    times = TIMES or 4
    for turn in range(times):
        number, least = draw.choice(SIGNALS), turn * 24 // times
        command = start(whole.arguments(tmp_path / "prepare"))
        interrupt(
            command,
            lambda least=least: len(list(records.glob("*/*.npz"))) >= least,
            draw.uniform(0, 0.4),
            number,
            group=draw.random() < 0.3,
        )
        check_whole(tmp_path / "prepare")
    assert start(whole.arguments(tmp_path / "prepare")).wait(60) == 0
    assert content_of(tmp_path / "prepare") == whole.content


@pytest.mark.slow
def test_finished_shards_are_kept_and_other_options_are_refused_meanwhile(undisturbed, tmp_path):
    whole = undisturbed("prepare")
    command, folder = start(whole.arguments(tmp_path / "prepare")), tmp_path / "prepare"
    assert interrupt(command, lambda: len(list(folder.glob(".unfinished/*/*.npz"))) >= 3, 0, signal.SIGINT, group=True)
    kept = {f"{path.parent.name}-{int(path.stem):05d}" for path in folder.glob(".unfinished/*/*.npz")}
    shards = [path for path in folder.glob("*.tfrecord") if path.name.partition("-of-")[0] in kept]
    written = {path: path.stat().st_mtime_ns for path in shards}
    assert len(written) >= 3
    assert not (folder / "manifest.json").exists()
    other = start([*whole.arguments(folder), "--max-side", 100])
    assert other.wait(60) == 2
    assert "with other images or options; resume with those" in other.text()
    assert start(whole.arguments(folder)).wait(60) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert content_of(folder) == whole.content


@pytest.mark.slow
def test_ctrl_c_pressed_twice_is_reported_once(undisturbed, tmp_path):
    command = start(undisturbed("prepare").arguments(tmp_path / "prepare"))
    wait_for(lambda: list(tmp_path.glob("prepare/.unfinished/*/*.npz")), command)
    os.killpg(command.process.pid, signal.SIGINT)
    time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.process.pid, signal.SIGINT)
    check_end(command, signal.SIGINT)
    assert command.text().count("interrupted") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2])
def test_a_command_that_is_interrupted_while_it_starts_says_so(tmp_path, seconds, number):
    command = start(["data", "prepare", tmp_path, tmp_path / "out"])
    interrupt(command, lambda: True, seconds, number)
    assert command.process.returncode in (CODES[number], 2)  # of the empty folder


HALF_MADE = """
import os, signal
from edge_cv.cli.interruption import interruption

class HalfMade:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGINT)
        self.made = True

    def __del__(self):
        assert self.made

with interruption() as received:
    try:
        HalfMade()
    except KeyboardInterrupt:
        pass
    received.end()
"""


def test_an_object_whose_construction_is_interrupted_prints_nothing():
    done = subprocess.run([sys.executable, "-c", HALF_MADE], capture_output=True, text=True)
    assert done.returncode == CODES[signal.SIGINT]
    assert done.stderr.splitlines() == [
        "edge-cv: interrupted; finished work is kept, and the same command resumes from it"
    ]


IN_A_DESTRUCTOR = """
import os, signal, time
from edge_cv.cli.interruption import interruption

class Ended:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the signal's handler runs here

with interruption() as received:
    try:
        Ended()
        time.sleep(30)
    except KeyboardInterrupt:
        received.end()
"""


def test_a_signal_that_comes_while_a_destructor_runs_is_not_lost():
    done = subprocess.run([sys.executable, "-c", IN_A_DESTRUCTOR], capture_output=True, text=True, timeout=60)
    assert done.returncode == CODES[signal.SIGTERM]
    assert done.stderr.splitlines() == [
        "edge-cv: interrupted by SIGTERM; finished work is kept, and the same command resumes from it"
    ]


SWALLOWED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:  # as compiled code that does not expect it
    raise SystemError("bad argument to internal function") from None
"""


def test_a_signal_that_a_library_turns_into_an_error_is_reported_as_one(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(SWALLOWED)
    command = start(["run", recipe])
    check_end(command, signal.SIGTERM)


@pytest.mark.slow
def test_nohup_keeps_a_command_running(undisturbed, tmp_path):
    whole = undisturbed("prepare")
    command = start(whole.arguments(tmp_path / "prepare"), wrapper=("nohup",))
    wait_for(lambda: list(tmp_path.glob("prepare/.unfinished/*/*.npz")), command)
    os.killpg(command.process.pid, signal.SIGHUP)
    assert command.wait(60) == 0, command.text()
    assert content_of(tmp_path / "prepare") == whole.content


@pytest.mark.slow
def test_a_closed_terminal_interrupts_a_command(undisturbed, tmp_path):
    whole = undisturbed("prepare")
    command = start(whole.arguments(tmp_path / "prepare"), terminal=True)
    wait_for(lambda: list(tmp_path.glob("prepare/.unfinished/*/*.npz")), command)
    command.close_terminal()
    assert command.wait(60) == CODES[signal.SIGHUP]
    wait_for(lambda: not command.others(), command)
    assert start(whole.arguments(tmp_path / "prepare")).wait(60) == 0
    assert content_of(tmp_path / "prepare") == whole.content


@pytest.mark.slow
def test_a_killed_worker_is_reported_in_one_line_and_the_command_resumes(undisturbed, tmp_path):
    whole = undisturbed("prepare")
    command = start(whole.arguments(tmp_path / "prepare"))
    wait_for(lambda: list(tmp_path.glob("prepare/.unfinished/*/*.npz")), command)
    worker = next(process for process, line in command.others().items() if "popen_loky" in line)
    os.kill(worker, signal.SIGKILL)
    assert command.wait(60) == 2
    assert command.text() == "edge-cv: a worker process died: memory ran out, or it was killed (2 workers)"
    assert start(whole.arguments(tmp_path / "prepare")).wait(60) == 0
    assert content_of(tmp_path / "prepare") == whole.content


def wait_for(reached: Callable[[], object], command: Command, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, command.text()
        time.sleep(0.005)


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of some kB, or changes its size."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kilobytes: int) -> Path:
        how = ["-o", f"remount,size={kilobytes}k"] if os.path.ismount(place) else ["-t", "tmpfs", "-o", "size=4k"]
        done = subprocess.run(["mount", *how, "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("a file system cannot be mounted here")
        return place

    resize(4)
    yield resize
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("prepare", [4, 300, 1200]),
        ("digits", [60, 260]),
    ],
)
@pytest.mark.slow
def test_a_full_disk_is_reported_in_one_line_and_the_command_resumes_when_there_is_space(
    undisturbed, disk, name, sizes
):
    whole = undisturbed(name)
    for kilobytes in sizes:
        place = disk(kilobytes) / name
        command = start(whole.arguments(place))
        assert command.wait(600) == 2, command.text()
        assert "Traceback" not in command.text(), command.text()
        assert re.fullmatch(r"edge-cv: .* cannot be written: No space left .*", command.lines[-1][1]), command.text()
        assert not [line for _, line in command.lines[:-1] if line.startswith("edge-cv:")]
        check_whole(place)
    place = disk(100_000) / name
    command = start(whole.arguments(place))
    assert command.wait(600) == 0, command.text()
    assert content_of(place) == whole.content
