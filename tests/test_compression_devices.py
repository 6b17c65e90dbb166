"""Compression on several devices of TensorFlow: each stage reaches the result of one device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COMPRESSED = """
import os, sys
import numpy as np
import tensorflow as tf
if os.environ["DEVICES"] == "2":
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one, one])
import tiny_training
from edge_cv.compression.clustering import cluster
from edge_cv.compression.pruning import prune
from edge_cv.compression.qat import quantization_aware
from edge_cv.recipe import FineTuning, Prune, Qat, WeightClustering
tuning = FineTuning(steps=12, learning_rate=1e-2)
for stage in sys.argv[2:]:
    model, batches, ranges = tiny_training.network(), tiny_training.batches(), {}
    if stage == "pruned":
        compressed = prune(model, Prune(0.75, fine_tuning=tuning), batches)
    elif stage == "clustered":
        compressed = cluster(model, WeightClustering(4, fine_tuning=tuning), batches)
    else:
        trained = quantization_aware(model, Qat(ranges=stage, freeze_epoch=1, fine_tuning=tuning), batches)
        compressed, ranges = trained.model, trained.ranges
    ends = [ranges[name] for name in sorted(ranges)]
    np.savez(f"{sys.argv[1]}/{stage}.npz", *compressed.get_weights(), ranges=ends)
"""
STAGES = ("pruned", "clustered", "ema", "lsq")  # the last two are quantization-aware training, by its kind of ranges


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of the results of one device and of two. One process trains models of several sizes, one by one."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    paths = [tmp_path_factory.mktemp(f"devices_{devices}_") for devices in (1, 2)]
    for devices, folder in enumerate(paths, 1):
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "DEVICES": str(devices)}
        process = subprocess.run(
            [sys.executable, "-c", COMPRESSED, str(folder), *STAGES],
            env=os.environ | environment | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stderr[-3000:]
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_on_two_devices_reaches_the_result_of_one(folders, stage):
    one, two = (dict(np.load(folder / f"{stage}.npz")) for folder in folders)
    assert one.keys() == two.keys()
    assert len(one["ranges"]) == (4 if stage in ("ema", "lsq") else 0)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
