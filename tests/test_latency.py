from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.evaluation import describe_environment, measure, runner, runner_events


@pytest.fixture(scope="session")
def dense_model(tmp_path_factory) -> Path:
    """Two float32 matrices, 2048 x 2048 and 2048 x 10, large enough to measure memory and time."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    first = tf.constant(rng.normal(size=(2048, 2048)).astype(np.float32) * 0.02)
    second = tf.constant(rng.normal(size=(2048, 10)).astype(np.float32))

    class Network(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 2048), tf.float32, name="values")])
        def __call__(self, values):
            return tf.matmul(tf.nn.relu(tf.matmul(values, first)), second)

    network = Network()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.__call__.get_concrete_function()], network)
    file = tmp_path_factory.mktemp("latency") / "dense model's.tflite"
    file.write_bytes(converter.convert())
    return file


def test_percentiles_are_computed_from_the_samples(dense_model):
    progress = []
    performance = measure(
        dense_model, threads=(1, 2), runs=20, warmup=2, on_progress=lambda *numbers: progress.append(numbers)
    )
    assert [value.threads for value in performance.latency] == [1, 2]
    for value in performance.latency:
        assert value.runs == len(value.samples_ms) == 20
        assert 0 < min(value.samples_ms) <= value.p50_ms <= value.p90_ms <= value.p99_ms <= max(value.samples_ms)
        ordered = sorted(value.samples_ms)
        assert value.p50_ms == pytest.approx((ordered[9] + ordered[10]) / 2)
        assert value.host == f"{runner.cpu_name()} ({runner.cpu_count()} core{'s' * (runner.cpu_count() > 1)})"
        assert value.runtime.startswith("ai-edge-litert 2.")
        json.dumps(value.to_json(), allow_nan=False)
    assert progress[-1] == (40, 40)
    assert progress == sorted(progress)


def test_peak_memory_excludes_the_parent_process(dense_model):
    ballast = np.ones(400 * 2**20, np.uint8)  # a caller as large as one with TensorFlow loaded
    performance = measure(dense_model, runs=1, warmup=0)
    weights = 2048 * 2048 * 4
    assert weights <= performance.peak_memory_bytes <= 5 * weights
    assert ballast[-1] == 1


def test_the_runner_runs_without_the_project(dense_model, tmp_path):
    """A copy of the script runs in a folder from which the project cannot be imported."""
    script = shutil.copy(runner.__file__, tmp_path / "copied.py")
    blocked = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'edge_cv', 'converters', 'recipes', 'tensorflow', 'keras', 'PIL'}:\n"
        "            raise ImportError('refused: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-c", blocked, script, str(dense_model), "--threads", "1,2", "--runs", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "model",
        "memory",
        "golden",
        "sensors",
        "latency",
        "latency",
        "sensors",
    ]
    golden = next(event for event in events if event["event"] == "golden")
    np.testing.assert_allclose(golden["outputs"][0], _plain_output(dense_model, 0), rtol=1e-6)


def _plain_output(file: Path, seed: int) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)
    interpreter.allocate_tensors()
    values = np.random.RandomState(seed).randint(0, 256, (1, 2048)).astype(np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def test_random_input_fills_the_range_of_pixels():
    for dtype, low, high in ((np.float32, 0, 255), (np.uint8, 0, 255), (np.int8, -128, 127)):
        values = runner.random_input(runner.Tensor((1, 64, 64, 3), dtype), seed=3)
        assert (values.dtype, values.min(), values.max()) == (dtype, low, high)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": (0,)}, r"threads must be .* 1 to 1024. Received: \(0,\)"),
        ({"threads": (1, 10**8)}, r"threads must be .* 1 to 1024. Received: \(1, 100000000\)"),
        ({"runs": 10**9}, "runs must be 1 or more, and at most 1,000,000. Received: 1000000000"),
        ({"threads": ()}, "threads must be"),
        ({"runs": 0}, "runs must be 1 or more"),
        ({"warmup": -1}, "warmup must be 0 or more"),
    ],
)
def test_counts_out_of_range_are_input_errors(dense_model, options, message):
    with pytest.raises(InputError, match=message):
        measure(dense_model, **options)


def test_missing_and_corrupt_files_are_input_errors(dense_model, tmp_path):
    with pytest.raises(InputError, match=r"none\.tflite.*no such file"):
        measure(tmp_path / "none.tflite")
    content = dense_model.read_bytes()
    for name, broken in {
        "junk.tflite": b"junk" * 100,
        "empty.tflite": b"",
        "cut.tflite": content[:5000],
        "headed.tflite": content[:8] + np.random.default_rng(2).bytes(4000),
        "junk.onnx": b"junk",
    }.items():
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(InputError, match=name) as caught:
            measure(tmp_path / name, runs=1)
        assert "\n" not in str(caught.value)


def test_a_dying_runner_is_an_error_with_its_signal(dense_model, tmp_path, monkeypatch):
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(runner_events, "RUNNER", deadly)
    with pytest.raises(InputError, match=r"dense model's\.tflite cannot be run: the runtime ended with SIGSEGV"):
        measure(dense_model)


def test_interrupting_ends_the_runner(dense_model):
    code = (
        "import sys\n"
        "from edge_cv.evaluation import measure\n"
        "measure(sys.argv[1], runs=1_000_000, on_progress=lambda *n: print(*n, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(dense_model)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{child}").exists() for child in children)
    finally:
        process.kill()
        process.wait()


def test_environment_is_json_and_imports_nothing_heavy():
    code = (
        "import json, sys\n"
        "from edge_cv.evaluation import describe_environment\n"
        "print(json.dumps(describe_environment()))\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'ai_edge_litert', 'onnxruntime', 'PIL', 'loky', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["versions"]["numpy"] == np.__version__
    assert fields["cores"] >= 1
    assert fields["memory_bytes"] > 2**28
    assert fields["cpu"]


def test_environment_names_no_host():
    import platform
    import socket

    name = socket.gethostname()
    text = json.dumps({key: value for key, value in describe_environment().items() if key != "versions"})
    assert len(name) < 4 or name not in text
    assert platform.node() == name or platform.node() not in text


@pytest.mark.slow
def test_measuring_in_turns_divides_the_runs_and_keeps_every_sample(dense_model):
    from edge_cv.evaluation import measure_in_turns

    calls = []
    measured = measure_in_turns(
        {"a": dense_model, "b": dense_model},
        threads=(1, 2),
        runs=7,
        warmup=0,
        rounds=3,
        on_progress=lambda *at: calls.append(at),
    )
    assert list(measured) == ["a", "b"]
    for performance in measured.values():
        assert [entry.threads for entry in performance.latency] == [1, 2]
        assert [entry.runs for entry in performance.latency] == [7, 7]
        assert all(0 < entry.cpu_share <= 1 for entry in performance.latency)
        assert performance.peak_memory_bytes > 0
    assert calls[-1] == (28, 28)
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("processor : 0\nflags\t\t: fpu avx2\n", False),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", True),
        ("processor : 0\nFeatures\t: fp asimd\n", False),
        ("processor : 0\n", None),
    ],
)
def test_int8_dot_product_is_read_from_the_processors_features(monkeypatch, tmp_path, cpuinfo, expected):
    from edge_cv.evaluation import environment

    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(environment, "CPU_FEATURES", tmp_path / "cpuinfo")
    assert environment.int8_dot_product() is expected
