"""Commands in unfriendly surroundings: closed streams, other encodings, names that a terminal would obey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_files
from pictures import encoded, write

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "edge_cv.cli"]


def run(*arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run `edge-cv` through a shell that redirects its streams."""
    script = f'exec "$@" {shell}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        capture_output=True,
    )


def one_line(done: subprocess.CompletedProcess) -> bytes:
    """The only line on stderr of a command that refuses its input."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("shell", [*(pytest.param(s, marks=pytest.mark.slow) for s in (">&-", "2>&-")), "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(shell):
    done = run("devices", shell=shell)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_goes_away_is_no_error():
    script = '"$@" | head -c 10 > /dev/null; echo ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "models", "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
    )
    assert done.stderr == b""


@pytest.fixture(scope="module")
def strange_photos(tmp_path_factory) -> Path:
    """Two class folders whose names hold an accent and a terminal's escape code; one file name is not UTF-8."""
    folder = tmp_path_factory.mktemp("photos")
    for place, name in enumerate(("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "red \x1b[31m")):
        for number in range(2):
            write(folder / name / f"{number}.jpg", encoded(2 * place + number))
    Path(os.fsdecode(os.fsencode(folder / "red \x1b[31m") + b"/caf\xe9 [x].jpg")).write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        *(pytest.param(values, marks=pytest.mark.slow) for values in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0"})),
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_names_are_printed_without_what_a_terminal_obeys(strange_photos, environment):
    done = run("data", "check", strange_photos, **environment)
    assert done.returncode == 1  # one photo cannot be read
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"cannot be read" in done.stdout


@pytest.fixture(scope="module")
def strange_model(tmp_path_factory) -> Path:
    """A model file whose name is not UTF-8 and holds an escape code, in a folder whose name looks like markup."""
    folder = tmp_path_factory.mktemp("model") / "w[/x]"
    folder.mkdir(parents=True)
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 \x1b[31m.tflite"))
    record = {**tiny_files.RECORD, "labels": None}
    return tiny_files.write(path, record=json.dumps(record).encode())


@pytest.mark.parametrize(
    "command", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("evaluate", "debug")), "benchmark", "check"]
)
def test_a_model_file_of_a_strange_name_is_used(command, strange_model, strange_photos, tmp_path):
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9"))
    more: dict[str, list[object]] = {
        "evaluate": ["--data", strange_photos, "--out", out],
        "benchmark": ["--runs", 2, "--out", out],
        "check": ["--target", "cpu"],
        "debug": [strange_model, "--data", strange_photos, "--plot", tmp_path / "layers.png"],
    }
    done = run(command, strange_model, *more[command])
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    if command == "evaluate":
        assert {path.name for path in out.iterdir()} == {"report.json", "report.html"}
        assert run("report", out, PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_workers_start_where_streams_are_closed(shell, strange_model, strange_photos):
    assert run("evaluate", strange_model, "--data", strange_photos, shell=shell).returncode == 0


def test_a_picture_of_two_jpegs_is_read_as_its_first(edge_cv, tmp_path):
    from PIL import Image

    for name in "ab":
        for number in range(2):
            write(tmp_path / "photos" / name / f"{number}.jpg", encoded(number))
    first, second = (Image.new("RGB", (64, 48), colour).rotate(3) for colour in ("red", "blue"))
    for name in ("stereo.mpo", "phone.jpg"):
        first.save(tmp_path / "photos" / "a" / name, format="MPO", save_all=True, append_images=[second])
    _, out, err = edge_cv("data", "check", tmp_path / "photos")
    assert "Traceback" not in err
    assert "suffix" not in out
    assert "animated" not in out


def test_an_unknown_backend_is_named():
    assert b"unknown KERAS_BACKEND: 'foo'. Known: tensorflow, jax" in one_line(run("models", KERAS_BACKEND="foo"))


def test_a_recipe_that_raises_anything_is_refused_in_one_line(edge_cv, tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text("raise BaseException('any')")
    code, _, err = edge_cv("run", recipe)
    (line,) = err.splitlines()
    assert code == 2
    assert "cannot be run: BaseException: any" in line


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.image_size=100000000", "Model.image_size must be at most 4,096"),
        ("model.classes=1e30", "Model.classes must be"),
        ("measure.runs=100000000000", "Measure.runs must be at most 1,000,000"),
        ("data.images=1" + "0" * 30, "Data.images must be a number of at most"),
        ("onnx=('x',)", "unknown scheme in Recipe.onnx: 'x'"),
        ("schemes=('int9',)", "unknown scheme in Recipe.schemes: 'int9'"),
        ("name='a\\x00b'", "Recipe.name must be text without control characters"),
        ("name='\\ud800'", "Recipe.name must be text without control characters"),
    ],
)
def test_absurd_settings_are_refused_before_any_work(edge_cv, setting, message, tmp_path):
    code, _, err = edge_cv("run", "demo", "--set", setting, "--out", tmp_path / "run")
    (line,) = err.splitlines()
    assert code == 2
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("main", "arguments", "code"),
    [("run", ["--version"], 0), ("run", ["models", "--nothing"], 2), ("lambda: 1 / 0", [], 1)],
)
def test_the_program_ends_after_the_exit_handlers_with_its_code_and_all_output(main, arguments, code):
    program = f"""
import atexit, sys
from edge_cv.cli import app

class Kept:
    def __del__(self):
        print("taken apart")

kept, run = Kept(), app.main
def main():
    atexit.register(print, "an exit handler")
    ({main})()

app.main, sys.argv = main, {["edge-cv", *arguments]}
app.program()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "an exit handler"
    assert ("ZeroDivisionError" in done.stderr) == (code == 1)
    assert ("edge-cv 0" in done.stdout) == (code == 0)


def test_a_signal_after_the_work_is_done_does_not_change_the_exit_code():
    program = """
import atexit, os, signal, sys
from edge_cv.cli import app

run = app.main
def main():
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
    run()

app.main, sys.argv = main, ["edge-cv", "--version"]
app.program()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("edge-cv 0")
