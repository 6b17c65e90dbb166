"""Sweeps: real runs of a tiny network on digits, one after the other and on a Ray cluster, interrupted and killed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interruptions import CODES

from converters.errors import InputError
from edge_cv.pipeline import sweep as sweeping
from edge_cv.recipe import Analysis, Data, Measure, Model, Recipe

TINY = Recipe(
    name="tiny",
    model=Model("mobilenet_v2", image_size=64, alpha=0.35, classes=10, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None, calibration_images=16, images=64),
    schemes=("float32", "float16"),
    measure=Measure(threads=(1,), runs=20),
    analysis=Analysis(grad_cam=0),
)
LOST = dataclasses.replace(TINY, name="lost", data=Data(measure="/nowhere/photos", calibrate=None))
OVER = "data.images=64,48"


def names(runs: list[sweeping.Run]) -> list[str]:
    return [run.name for run in runs]


def test_every_recipe_is_combined_with_every_combination_of_values():
    other = dataclasses.replace(TINY, name="other")
    runs = sweeping.plan([TINY, other], ["model.name=mobilenet_v1,mobilenet_v2", "measure.runs=5,6"])
    expected = [f"{r}_{m}_{n}" for r in ("tiny", "other") for m in ("mobilenet_v1", "mobilenet_v2") for n in (5, 6)]
    assert names(runs) == expected
    assert {(run.recipe.model.name, run.recipe.measure.runs) for run in runs} == {
        (name, n) for name in ("mobilenet_v1", "mobilenet_v2") for n in (5, 6)
    }
    assert names(sweeping.plan([TINY])) == ["tiny"]


def test_a_value_may_have_commas_in_brackets_and_names_a_folder():
    runs = sweeping.plan([TINY], ["schemes=('float32',),('float32','int8')"])
    assert [run.recipe.schemes for run in runs] == [("float32",), ("float32", "int8")]
    assert names(runs) == ["tiny_float32", "tiny_float32-int8"]
    (run,) = sweeping.plan([TINY], ["model.weights=../../x/y.keras"])
    assert "/" not in run.name


@pytest.mark.parametrize(
    ("recipes", "over", "message"),
    [
        ([TINY, TINY], [], r"must have a different name. Received twice: tiny"),
        ([TINY], ["model.alpha=0.5,0.5"], r"Received twice: tiny_0.5"),
        ([TINY], ["model.alpha"], r"must be FIELD=VALUE,VALUE. Received: 'model.alpha'"),
        ([TINY], ["model.alpha=0.5,"], r"must be FIELD=VALUE,VALUE"),
        ([TINY], ["model.alpa=0.5"], r"unknown field of Model: 'alpa'"),
        ([TINY], ["model.alpha=wide"], r"Model.alpha must be float"),
    ],
)
def test_invalid_fields_values_and_names_are_refused(recipes, over, message):
    with pytest.raises(InputError, match=message):
        sweeping.plan(recipes, over)


def test_a_sweep_without_a_finished_run_has_no_report(tmp_path):
    report, (outcome,) = sweeping.sweep(sweeping.plan([LOST]), tmp_path)
    assert report is None
    assert outcome.bad_input
    assert "/nowhere/photos" in outcome.failed
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(InputError, match="needs at least one recipe"):
        sweeping.sweep([], tmp_path)


def test_a_node_with_another_folder_or_other_versions_is_refused(tmp_path):
    (tmp_path / sweeping.TOKEN).write_text("token")
    (run,) = sweeping.plan([TINY])
    tools = sweeping.versions_here()
    for folder, token, given, message in (
        (tmp_path, "other", tools, "must be the same folder on all nodes"),
        (tmp_path / "empty", "token", tools, "must be the same folder on all nodes"),
        (tmp_path, "token", {**tools, "keras": "0"}, "must have the same versions"),
    ):
        outcome = sweeping._do_run(run, folder, token, given, sweeping.silent)
        assert message in outcome.failed
        assert not (folder / run.name).exists()


# ----------------------------------------------------------------------------------------------- the command, for real


@pytest.fixture(scope="module")
def recipes(small_model, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recipes")
    small_model.save(folder / "small.keras")
    model = Model(str(folder / "small.keras"), preprocessing={"resize_to": None})
    for recipe in (dataclasses.replace(TINY, model=model), LOST):
        text = f"from edge_cv.recipe import *\nRECIPE = {recipe!r}\n"
        (folder / f"{recipe.name}.py").write_text(text)
    return [folder / "tiny.py", folder / "lost.py"]


def command(recipe_files: list[Path], out: Path, *more: str, over: str = OVER) -> list[str]:
    files = [str(path) for path in recipe_files]
    return [sys.executable, "-m", "edge_cv.cli", "sweep", *files, "--over", over, "--out", str(out), "--json", *more]


def swept(recipe_files: list[Path], out: Path, *more: str, over: str = OVER) -> subprocess.CompletedProcess:
    return subprocess.run(command(recipe_files, out, *more, over=over), capture_output=True, text=True, timeout=1200)


def written(out: Path) -> dict[str, int]:
    """The modification time of each file of each run, without the reports, which are always written."""
    found = (path for path in out.rglob("*") if path.is_file() and path.parent != out)
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in found if not p.name.startswith("report.")}


def rows_without_timing(report: dict) -> list[dict]:
    """The rows without latency, memory, gzip size and hash, which differ between runs (the files contain a date)."""
    other = ("latency", "peak_memory_bytes", "gzip_bytes", "sha256")
    return [{name: value for name, value in row.items() if name not in other} for row in report["rows"]]


@pytest.fixture(scope="module")
def in_turn(recipes, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    out = tmp_path_factory.mktemp("sweep")
    return swept(recipes, out), out


@pytest.mark.slow
def test_one_report_compares_the_runs_and_failures_are_listed_at_the_end(in_turn, recipes):
    done, out = in_turn
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert report["rows"] == json.loads((out / "report.json").read_text())["rows"]
    assert [(row["run"], row["scheme"]) for row in report["rows"]] == [
        (f"tiny_{photos}", scheme) for photos in (64, 48) for scheme in ("float32", "float16")
    ]
    assert {one["host"] is None for one in report["fronts"]} == {True, False}
    assert {one["name"] for one in report["recipe"]["runs"].values()} == {"tiny"}
    *_, first, second = done.stderr.strip().splitlines()
    for line, name in ((first, "lost_64"), (second, "lost_48")):
        assert line.startswith(f"edge-cv: {name} failed: ")
        assert "/nowhere/photos" in line
    assert "Traceback" not in done.stderr
    assert "resource_tracker" not in done.stderr
    assert ">Pareto front</h2>" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_finished_sweep_repeats_nothing(in_turn, recipes):
    _, out = in_turn
    before = written(out)
    assert swept(recipes[:1], out).returncode == 0
    assert written(out) == before


def descendants(process: int) -> set[int]:
    found, parents = set(), {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
        except OSError:
            continue
    new = {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # they do no work and end a minute later


def alive(process: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        ended = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return "" if ended else Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "signalled", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda signalled: signalled.name
)
def test_a_stopped_sweep_leaves_no_process_and_resumes(signalled, in_turn, recipes, tmp_path):
    pytest.importorskip("ray")
    one, more = "data.images=64", ("--ray", "local")
    place = tmp_path / "tiny_64" / "stages" / "convert_float32.json"
    process = subprocess.Popen(
        command(recipes[:1], tmp_path, *more, over=one),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 600
    while not place.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    started = {pid for pid in descendants(process.pid) if not alive(pid).endswith(RAY_AGENTS)}
    assert process.poll() is None, process.communicate()[1]
    assert started
    process.send_signal(signalled)
    process.communicate(timeout=300)
    assert process.returncode == CODES[signalled]
    deadline = time.monotonic() + 300
    while any(map(alive, started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in started if alive(pid)]
    made = {name: when for name, when in written(tmp_path).items() if "convert_float32" in name or "model" in name}
    assert made
    assert not (tmp_path / "report.json").exists()
    if signalled != signal.SIGKILL:  # the harshest; what the others leave is the same
        return

    done = swept(recipes[:1], tmp_path, *more, over=one)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path).items() >= made.items()
    whole = [row | {"run": None} for row in json.loads(in_turn[0].stdout)["rows"] if row["run"] == "tiny_64"]
    found = [row | {"run": None} for row in json.loads(done.stdout)["rows"]]
    assert rows_without_timing({"rows": found}) == rows_without_timing({"rows": whole})


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1:1", "refused"), ("nonsense", "no HOST:PORT"), ("127.0.0.1:99999", "")],
)
def test_an_address_without_a_cluster_is_reported_in_one_line(address, reason):
    from edge_cv.parallel.ray_cluster import connected

    pytest.importorskip("ray")
    with pytest.raises(InputError) as error, connected(address):
        pass
    message = str(error.value)
    assert f"must be HOST:PORT of a running one, or local. Received: {address} (" in message
    assert reason in message
    assert "\n" not in message


def test_a_cluster_without_ray_names_the_package_to_install(monkeypatch):
    from edge_cv.parallel.ray_cluster import connected

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'edge-cv\[ray\]'"), connected("local"):
        pass
