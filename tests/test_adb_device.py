"""Measuring by adb, with adb's real client and server and a fake phone that implements its protocol."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys

import numpy as np
import pytest
from android_phone import HOST, Phone
from PIL import Image
from ssh_server import free_port

from converters import to_onnx
from converters.errors import InputError
from edge_cv.cli import app as cli
from edge_cv.data import Samples
from edge_cv.evaluation import evaluate
from edge_cv.evaluation.measurement import Measurement
from edge_cv.evaluation.remote import evaluating, measure_on, measuring, parse, phone

ADB = shutil.which("adb")
pytestmark = pytest.mark.skipif(ADB is None, reason="adb is not installed (apt-get install adb)")


@pytest.fixture(scope="module", autouse=True)
def adb(tmp_path_factory):
    """Runs adb commands with a server and keys of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))

        def run(*words):
            return subprocess.run([ADB, *words], capture_output=True, text=True, timeout=60, check=False)

        run("start-server")
        yield run
        run("kill-server")


@pytest.fixture
def plugged(adb, tmp_path):
    """Connects fake phones, and disconnects them at the end."""
    phones = []

    def plug(**settings):
        fake = Phone(tmp_path / f"phone{len(phones)}")
        for name, value in settings.items():
            setattr(fake, name, value)
        phones.append(fake)
        adb("connect", fake.serial)
        return fake

    yield plug
    for fake in phones:
        fake.stop()
        adb("disconnect", fake.serial)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(phone, "POLL_SECONDS", 0.1)


@pytest.fixture
def artifact(small_files):
    return small_files["int8"]


@pytest.fixture(scope="module", autouse=True)
def _describe_once():
    """Describes each model file only once on this machine, because that takes a process and the files do not change."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("describe", "golden_inputs", "golden_outputs"):
            patch.setattr(measuring, name, functools.cache(getattr(measuring, name)))
        patch.setattr(evaluating, "describe", measuring.describe)
        yield


def test_the_app_measures_with_the_outputs_of_this_machine(plugged, artifact):
    fake = plugged()
    measured = measure_on("adb?delegate=cpu", artifact, threads=(1, 2), runs=7, warmup=1)
    assert [(entry.threads, entry.runs) for entry in measured.latency] == [(1, 7), (2, 7)]
    assert {(entry.host, entry.runtime) for entry in measured.latency} == {(HOST, "tensorflow-lite 2.16.1 CPU")}
    assert (measured.likeness.images, measured.likeness.top1_equal, measured.likeness.max_steps) == (8, 8, 0)
    assert measured.file == artifact.name
    assert (measured.peak_memory_bytes, measured.temperature_c) == (12_345_678, (31.0, 33.5))
    assert fake.files == []


def test_one_of_two_phones_is_chosen_by_its_serial(plugged, artifact):
    first, second = plugged(), plugged()
    started = []
    first.on_start, second.on_start = lambda: started.append("first"), lambda: started.append("second")
    measure_on(f"adb:{second.serial}", artifact, runs=1)
    assert started == ["second"]
    with pytest.raises(InputError, match=rf"one of the connected phones, adb:SERIAL. Received: .*{first.serial}"):
        measure_on("adb", artifact, runs=1)


@pytest.mark.slow
def test_accuracy_on_the_phone_is_that_of_this_machine(plugged, artifact, tmp_path, monkeypatch):
    fake = plugged()
    photos = []
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        photos.append(tmp_path / f"{index}.png")
    source = Samples.from_files("squares", photos, [index % 10 for index in range(12)], tuple(map(str, range(10))))
    monkeypatch.setattr(phone.Phone, "images_at_once", 8)
    there = evaluate({"int8": artifact}, source, device=parse("adb"))
    assert there.predictions == evaluate({"int8": artifact}, source).predictions
    assert fake.files == []


@pytest.mark.slow
def test_results_before_a_phone_disconnects_are_kept(plugged, artifact, tmp_path, monkeypatch):
    fake = plugged()
    files = []
    for index in range(12):
        Image.fromarray(np.full((40, 40, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
        files.append(tmp_path / f"{index}.png")
    starts = []

    def count():
        starts.append(1)
        if len(starts) == 2:
            fake.stop()

    fake.on_start = count
    monkeypatch.setattr(phone.Phone, "images_at_once", 8)
    source = Samples.from_files("grey", files, [0] * 12, tuple(map(str, range(10))))
    result = evaluate({"int8": artifact}, source, device=parse("adb"))
    assert len(result.predictions) == 8
    assert f"adb:{fake.serial} disconnected before it finished" in result.error
    with pytest.raises(InputError, match=r"(must be connected|does not answer)"):
        measure_on(f"adb:{fake.serial}", artifact)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"authorized": False}, "has not authorized this computer: unlock it"),
        ({"installed": False}, "must have the demo app: adb install"),
        ({"free_bytes": 100}, r"cannot push model\.tflite: .*No space left on device"),
        ({"corrupts": True}, r"small_int8\.tflite must arrive unchanged on adb:.*try again"),
    ],
)
def test_an_unusable_phone_is_a_one_line_error(plugged, artifact, settings, message):
    fake = plugged(**settings)
    with pytest.raises(InputError, match=message) as caught:
        measure_on("adb", artifact, runs=1)
    assert "\n" not in str(caught.value)
    assert fake.files == []


@pytest.mark.slow
def test_the_apps_error_is_reported(plugged, artifact, tmp_path, monkeypatch):
    """The phone's runtime refuses a file that this machine's runtime accepts: it is replaced on the phone."""
    fake = plugged()
    fake.on_start = lambda: [path.write_bytes(b"junk" * 9) for path in fake.storage.rglob("model.tflite")]
    with pytest.raises(InputError, match="the device could not measure: it is not a TFLite model"):
        measure_on("adb", artifact, runs=1)
    fake.on_start = lambda: [path.unlink() for path in fake.storage.rglob("model.tflite")]
    with pytest.raises(InputError, match="the device could not measure: No such file or directory"):
        measure_on("adb", artifact, runs=1)
    assert fake.files == []


@pytest.mark.slow
def test_an_app_that_dies_or_is_too_slow_is_an_error(plugged, artifact, monkeypatch):
    fake = plugged()
    monkeypatch.setattr(phone, "ACTIVITY", "dev.edgecv.demo/.BenchmarkActivity")
    original = fake.shell
    fake.shell = lambda command: original("true" if command.startswith("am start") else command)
    with pytest.raises(InputError, match="ended the app before it measured"):
        measure_on("adb", artifact, runs=1)
    fake.shell = lambda command: original(command)
    monkeypatch.setattr(phone, "TIMEOUT_SECONDS", 2)
    with pytest.raises(InputError, match=r"must measure within 2 s\. Received: no measurement yet"):
        measure_on("adb", artifact, runs=1_000_000)
    assert fake.files == []


def test_an_invalid_measurement_of_a_phone_is_an_error(plugged, artifact):
    fake = plugged()
    original = fake.shell

    def shell(command):
        if command.startswith("am start"):
            for path in fake.storage.rglob("model.tflite"):
                (path.parent / "measurement.json").write_text('{"schema": 1, "kind": "measurement", "artifact": [')
            return original("true")
        return original(command)

    fake.shell = shell
    with pytest.raises(InputError, match=r"adb:.*: measurement\.json: a measurement must be JSON"):
        measure_on("adb", artifact, runs=1)
    assert fake.files == []


def test_the_command_reports_a_missing_phone_and_a_missing_adb(plugged, artifact, monkeypatch, capsys, tmp_path):
    def run(device):
        monkeypatch.setattr(sys, "argv", ["edge-cv", "benchmark", str(artifact), "--device", device])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        output = capsys.readouterr().err.splitlines()
        assert stopped.value.code == 2
        return output[-1]

    assert run("adb") == "edge-cv: a phone must be connected, with USB debugging on. Received: none in `adb devices`"
    fake = plugged()
    received = f"Received: {fake.serial} in `adb devices`"
    assert run("adb:emulator-5554") == f"edge-cv: adb:emulator-5554 must be connected. {received}"
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("adb") == "edge-cv: adb must be installed (apt-get install adb). Received: no such program"


def test_a_phone_takes_only_tflite(plugged, small_model, tmp_path):
    plugged()
    path = tmp_path / "small.onnx"
    to_onnx(small_model).save(path)
    with pytest.raises(InputError, match=r"a phone takes \.tflite files. Received: small\.onnx"):
        measure_on("adb", path, runs=1)


def test_the_measurement_is_written_for_the_report(plugged, artifact, tmp_path, monkeypatch, capsys):
    plugged()
    out = tmp_path / "phone.json"
    monkeypatch.setattr(
        sys, "argv", ["edge-cv", "benchmark", str(artifact), "--device", "adb", "--runs", "3", "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert "the same top-1 on 8 of 8 golden inputs" in capsys.readouterr().out
    assert Measurement.load(out).latency[0].host == HOST
