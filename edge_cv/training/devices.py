"""Data parallel training on all devices of a host, or of several hosts: Keras's distribution, or TensorFlow's."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Devices:
    """What takes part in a training.

    Attributes:
        host_index: which host this process is, 0..hosts - 1; host 0 writes the files.
        hosts: processes that train together.
        replicas: devices that share each batch, over all hosts.
    """

    host_index: int = 0
    hosts: int = 1
    replicas: int = 1


@functools.cache
def join_hosts() -> None:
    """Meet the other hosts of a training on JAX, where KERAS_DISTRIBUTION_NUM_PROCESSES says that there are some.

    Keras reads KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID; it must be done before anything is
    computed. TensorFlow's workers meet by TF_CONFIG when `all_devices` is entered.
    """
    import keras

    if keras.backend.backend() == "jax" and int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1")) > 1:
        keras.distribution.initialize()


@contextlib.contextmanager
def all_devices() -> Iterator[Devices]:
    """Within it models that are made are copied to all devices, and each device works on its part of a batch."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        join_hosts()
        with _on_jax() as devices:
            yield devices
    elif backend == "tensorflow":
        with _on_tensorflow() as devices:
            yield devices
    else:
        yield Devices()


@contextlib.contextmanager
def _on_jax() -> Iterator[Devices]:
    import jax
    import keras

    if jax.device_count() == 1:
        yield Devices()
        return
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    try:
        yield Devices(jax.process_index(), jax.process_count(), jax.device_count())
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def _on_tensorflow() -> Iterator[Devices]:
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        if len(tf.config.list_logical_devices(kind)) == 1:
            yield Devices()
            return
        strategy = tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(kind)])
    resolver = strategy.cluster_resolver
    index = resolver.task_id if resolver is not None and resolver.task_id is not None else 0
    hosts = strategy.extended._num_workers if "TF_CONFIG" in os.environ else 1
    with strategy.scope():
        yield Devices(index, hosts, strategy.num_replicas_in_sync)
