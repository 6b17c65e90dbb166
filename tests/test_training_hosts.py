"""Training on several devices and hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.training.devices import join_hosts

DISTRIBUTED = """
import os, sys
HIDDEN = os.environ.get("HIDDEN")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == HIDDEN:
            raise ImportError(name + " is hidden")
sys.meta_path.insert(0, Block())
if os.environ.get("DEVICES"):
    import tensorflow as tf
    one = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [one, one])
import keras, json
import numpy as np
from edge_cv.training.devices import join_hosts
join_hosts()
from edge_cv.data.input_pipeline.batches import array_batches
from edge_cv.recipe import Fit
from edge_cv.training import fit
hosts = int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1"))
index = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0"))
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 256, (64, 8, 8, 3)).astype("uint8"), rng.integers(0, 3, 64)
keras.utils.set_random_seed(0)
L = keras.layers
model = keras.Sequential([
    keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Conv2D(8, 3, use_bias=False),
    L.BatchNormalization(synchronized=keras.backend.backend() == "tensorflow"), L.ReLU(), L.GlobalAveragePooling2D(),
    L.Dense(3)])
batches = array_batches(images, labels, classes=tuple("abc"), batch_size=16 // hosts, seed=0, shard_index=index,
                        shard_count=hosts)
validation = list(array_batches(images, labels, classes=tuple("abc"), batch_size=24, seed=0).epoch(0))
fitted = fit(model, batches, Fit(epochs=3, batch_size=16, learning_rate=0.1), validation=validation, folder=sys.argv[1])
np.savez(sys.argv[2], *model.get_weights(), losses=[entry["loss"] for entry in fitted.history])
"""


def trained_in_processes(tmp_path, name: str, environments: list[dict[str, str]]) -> list[dict[str, np.ndarray]]:
    """The final weights of each process of a common training."""
    files = [tmp_path / f"{name}{i}.npz" for i in range(len(environments))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(tmp_path / name), str(file)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
            stderr=subprocess.PIPE,
        )
        for environment, file in zip(environments, files, strict=True)
    ]
    for process in processes:
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages.decode()[-3000:]
    return [dict(np.load(file)) for file in files]


def free_addresses(count: int) -> str:
    import socket

    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    return addresses


@pytest.mark.slow
def test_two_hosts_on_jax_reach_the_weights_of_one_with_twice_the_batch_without_tensorflow(tmp_path):
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "HIDDEN": "tensorflow"}
    together = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": free_addresses(2), "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
    (one,) = trained_in_processes(tmp_path, "one", [jax])
    hosts = [jax | together | {"KERAS_DISTRIBUTION_PROCESS_ID": str(i)} for i in range(2)]
    for two in trained_in_processes(tmp_path, "two", hosts):
        assert len(one) == len(two) == 8
        for name, value in one.items():
            np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_devices_on_tensorflow_reach_the_weights_of_one(tmp_path):
    (one,) = trained_in_processes(tmp_path, "one", [{"KERAS_BACKEND": "tensorflow"}])
    (two,) = trained_in_processes(tmp_path, "two", [{"KERAS_BACKEND": "tensorflow", "DEVICES": "2"}])
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-4)


def test_several_hosts_on_tensorflow_are_refused(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(InputError, match=r"needs KERAS_BACKEND=jax. Received: tensorflow"):
        join_hosts.__wrapped__()
