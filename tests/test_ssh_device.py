"""Measuring by ssh, against a real OpenSSH server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from ssh_server import SSHD, Wire

from converters.errors import InputError
from edge_cv.cli import app as cli
from edge_cv.data import Samples
from edge_cv.evaluation import evaluate, runner
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.remote import board, evaluating, measure_on, parse

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)"),
    pytest.mark.usefixtures("client", "described_once"),
]


@pytest.fixture
def artifacts(small_files):
    return small_files


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos, labels = [], []
    for index in range(50):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(10, 0).repeat(12, 1)
        file = folder / f"{index:02}.png"
        Image.fromarray(pixels).save(file)
        photos.append(file)
        labels.append(int(rng.integers(10)))
    (folder / "20.png").write_bytes(b"no photo")
    return Samples.from_files("squares", photos, labels, tuple(f"class {i}" for i in range(10)))


def test_a_device_measures_with_the_outputs_of_this_machine(device, server, artifacts):
    progress = []
    measured = measure_on(
        device(), artifacts["int8"], threads=(1, 2), runs=20, warmup=2, on_progress=lambda *at: progress.append(at)
    )
    assert [(entry.threads, entry.runs, len(entry.samples_ms)) for entry in measured.latency] == [
        (1, 20, 20),
        (2, 20, 20),
    ]
    assert all(0 < entry.p50_ms <= entry.p90_ms <= entry.p99_ms for entry in measured.latency)
    assert measured.latency[0].host.startswith(runner.cpu_name())
    assert measured.latency[0].runtime.startswith("ai-edge-litert 2.")
    assert measured.peak_memory_bytes > 0
    assert measured.error is None
    assert measured.golden.outputs.shape == (8, 10)
    assert (measured.likeness.images, measured.likeness.top1_equal, measured.likeness.max_steps) == (8, 8, 0)
    assert progress[-1] == (40, 40)
    assert server.left() == []


@pytest.mark.slow
def test_outputs_of_a_float_file_are_compared_by_their_error(device, artifacts):
    likeness = measure_on(device(), artifacts["float32"], runs=1).likeness
    assert likeness.top1_equal == 8
    assert likeness.max_steps is None
    assert likeness.max_abs_error < 1e-4


@pytest.mark.slow
def test_a_difference_of_outputs_is_found(device, artifacts, python, tmp_path):
    """The device runs another file of the same shape."""
    other = tmp_path / "other.tflite"
    content = bytearray(artifacts["int8"].read_bytes())
    ours = measure_on(device(), artifacts["int8"], runs=1)
    start = content.index(b"TFL3") + 4
    weights = max(range(start, len(content) - 64, 64), key=lambda at: len(set(content[at : at + 64])))
    for at in range(weights, weights + 64):
        content[at] ^= 0x40
    other.write_bytes(content)
    swap = python(f'case "$1" in -I) ;; *) cp "{other}" "$2" ;; esac\nexec "$python" "$@"')
    theirs = measure_on(device(python=swap), artifacts["int8"], runs=1)
    expected = np.abs(ours.golden.outputs - theirs.golden.outputs).max()
    assert expected > 0
    assert theirs.likeness.max_steps == expected


@pytest.fixture(scope="module")
def here(small_files, source):
    """The evaluation on this machine."""
    return evaluate(small_files, source, reference="float32")


def test_accuracy_on_the_device_is_that_of_this_machine(device, server, artifacts, source, here):
    there = evaluate(artifacts, source, reference="float32", device=parse(device()))
    assert there.predictions == here.predictions
    assert there.skipped == here.skipped
    assert len(there.skipped) == 1
    for name, score in here.scores.items():
        assert (there.scores[name].top1, there.scores[name].agreement) == (score.top1, score.agreement)
        assert there.scores[name].sqnr_db == pytest.approx(score.sqnr_db)
    assert runner.cpu_name() in there.runtimes["int8"]
    assert server.left() == []


@pytest.mark.slow
def test_an_evaluation_resumes_after_the_device_disconnected(device, server, artifacts, source, here, tmp_path):
    wire, journal = Wire(server.port), tmp_path / "answers"

    def cut(done, _):
        if done >= 32:
            wire.cut()

    options = {"reference": "float32", "journal": journal}
    first = evaluate(artifacts, source, device=parse(device(wire.port)), on_progress=cut, **options)
    assert 32 <= len(first.predictions) + len(first.skipped) < 50
    assert first.error.startswith(f"ssh://127.0.0.1:{wire.port} disconnected")
    assert first.predictions[:31] == here.predictions[:31]
    assert server.left() == []

    classified = []
    original = board._ServedModel.stored
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "connect", lambda _: board.Board(parse(device())))
        patch.setattr(board._ServedModel, "stored", lambda self, x: classified.append(len(x)) or original(self, x))
        second = evaluate(artifacts, source, device=parse(device(wire.port)), **options)
    assert second.error is None
    assert second.predictions == here.predictions
    assert second.scores["int8"].sqnr_db == pytest.approx(here.scores["int8"].sqnr_db)
    assert sum(classified) == 2 * (50 - 32)


@pytest.mark.slow
def test_a_journal_of_other_files_is_not_resumed(device, artifacts, source, tmp_path):
    options = {"device": parse(device()), "journal": tmp_path, "limit": 3}
    first = evaluate({"a": artifacts["float32"]}, source, **options)
    second = evaluate({"a": artifacts["int8"]}, source, **options)
    assert len(list(tmp_path.iterdir())) == 2
    assert first.predictions != second.predictions


def test_results_before_the_device_disconnects_are_kept(device, server, artifacts, tmp_path, monkeypatch, capsys):
    wire = Wire(server.port)
    threading.Thread(target=_call_while_measuring, args=(server, wire.cut), daemon=True).start()
    out = tmp_path / "device.json"
    arguments = ["benchmark", str(artifacts["int8"]), "--device", device(wire.port), "--runs", "1000000"]
    monkeypatch.setattr(sys, "argv", ["edge-cv", *arguments, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output = capsys.readouterr()
    assert stopped.value.code == 2
    assert f"edge-cv: ssh://127.0.0.1:{wire.port} disconnected before it finished" in output.err.splitlines()[-1]
    assert "Traceback" not in output.err
    kept = Measurement.load(out)
    assert kept.latency[0].runs > 100
    assert kept.error.startswith("ssh://")
    assert f"{kept.latency[0].runs:,}" in output.out
    assert server.left() == []


def _call_while_measuring(server, happens):
    _until(lambda: _running(server))
    time.sleep(1)
    happens()


def _running(server):
    return any((server.tmp / name / "golden.bin").exists() for name in os.listdir(server.tmp))


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


def test_a_truncated_transfer_is_an_error_and_leaves_nothing_behind(device, server, artifacts):
    wire = Wire(server.port, carries=30_000)
    with pytest.raises(InputError, match=r"disconnected while (runner\.py|model\.tflite) was sent"):
        measure_on(device(wire.port), artifacts["int8"], runs=1)
    assert server.left() == []
    assert measure_on(device(), artifacts["int8"], runs=1).likeness.top1_equal == 8


def test_a_file_that_arrives_changed_is_not_run(device, server, artifacts, python):
    flip = "import os\nwhile c := os.read(0, 1 << 16): os.write(1, c.replace(b'TFL3', b'TFL4'))"
    changed = python(f'case "$1" in -I) "$python" -c "{flip}" | "$python" "$@" ;; *) exec "$python" "$@" ;; esac')
    with pytest.raises(InputError, match=r"(runner\.py|model\.tflite) must arrive unchanged on ssh.*; try again"):
        measure_on(device(python=changed), artifacts["int8"], runs=1)
    assert server.left() == []


def test_a_full_disk_is_reported_with_the_file(device, server, artifacts, python, tmp_path):
    small = tmp_path / "small disk"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted by this user")
    try:
        full = python(f'TMPDIR="{small}" exec "$python" "$@"')
        with pytest.raises(InputError, match=r"cannot store .* bytes\): No space left on device"):
            measure_on(device(python=full), artifacts["int8"], runs=1)
        _until(lambda: not os.listdir(small))
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
def test_killing_the_host_leaves_nothing_on_the_device(device, server, artifacts):
    command = [sys.executable, "-m", "edge_cv.cli", "benchmark", artifacts["int8"], "--device", device()]
    process = subprocess.Popen([*map(str, command), "--runs", "1000000"], stderr=subprocess.DEVNULL)
    _until(lambda: _running(server))
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert server.left() == []


@pytest.mark.slow
def test_a_silent_device_is_noticed(device, server, artifacts):
    wire = Wire(server.port)
    threading.Thread(target=_call_while_measuring, args=(server, wire.freeze), daemon=True).start()
    start = time.monotonic()
    measured = measure_on(device(wire.port), artifacts["int8"], runs=1_000_000)
    assert "disconnected before it finished" in measured.error
    assert measured.latency[0].runs > 100
    assert time.monotonic() - start < 120
    wire.cut()


@pytest.mark.slow
def test_the_report_has_the_latencies_of_host_and_device(device, artifacts, source, tmp_path, monkeypatch, capsys):
    """After benchmark --out, report adds the latencies to the row of the same file, and refuses other files."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["edge-cv", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr()

    folder = tmp_path / "photos"
    for photo in source.chunk(0, 12):
        (folder / f"class {photo.label % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"class {photo.label % 2}" / photo.path.name).write_bytes(photo.place.read())
    files = [artifacts["float32"], artifacts["int8"]]
    code, output = run("evaluate", *files, "--data", folder, "--device", device(), "--out", tmp_path / "run")
    assert code == 0, output.err
    assert not (tmp_path / "run" / "answers").exists()
    out = tmp_path / "pi.json"
    code, output = run("benchmark", artifacts["int8"], "--device", device(), "--out", out, "--runs", 3)
    assert code == 0, output.err
    assert "the same top-1 on 8 of 8 golden inputs" in output.out
    fields = json.loads(out.read_text())
    fields["device"]["host"] = fields["latency"][0]["host"] = "Raspberry Pi 5 (4 cores)"
    out.write_text(json.dumps(fields))
    code, output = run("report", tmp_path / "run", out, "--out", tmp_path / "merged", "--json")
    assert code == 0, output.err
    merged = json.loads(output.out)
    assert [len(row["latency"]) for row in merged["rows"]] == [0, 1]
    assert merged["rows"][1]["latency"][0]["host"] == "Raspberry Pi 5 (4 cores)"
    assert any("Raspberry Pi 5 (4 cores): the same top-1 on 8 of 8" in note for note in merged["notes"])
    assert "Raspberry Pi 5" in (tmp_path / "merged" / "report.html").read_text()
    fields["artifact"]["sha256"] = "0" * 64
    out.write_text(json.dumps(fields))
    code, output = run("report", tmp_path / "run", out)
    assert code == 2
    assert "a measurement must be of a file that the report contains" in output.err


@pytest.mark.slow
def test_a_run_measures_its_files_on_the_device_once_and_keeps_its_report_if_that_fails(device, tmp_path):
    from edge_cv.pipeline import run
    from edge_cv.recipe import Analysis, Measure, Model, Recipe

    recipe = Recipe(
        "there",
        Model("mobilenet_v1", alpha=0.25, image_size=32),
        schemes=("float32", "float16"),
        measure=Measure(threads=(1,), runs=3, warmup=1),
        analysis=Analysis(grad_cam=0),
    ).quick()
    there = parse(device())
    with pytest.raises(InputError, match="/no/such/python3"):
        run(recipe, tmp_path, device=parse(device(python="/no/such/python3")))
    assert "there" in (tmp_path / "report.html").read_text()
    report = run(recipe, tmp_path, device=there)
    assert [note for note in report.notes if "the same top-1 on 8 of 8 golden inputs" in note]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "measurements").iterdir()}
    assert {path.stem for path in files} == {"float32", "float16"}
    assert run(recipe, tmp_path, device=there).rows == report.rows
    assert {path: path.stat().st_mtime_ns for path in files} == files
