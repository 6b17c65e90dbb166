"""Data parallel training on all devices of a host, or of several hosts: Keras's distribution, or TensorFlow's."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError

if TYPE_CHECKING:
    from edge_cv.data.batches import Batches


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
    """Meet the other hosts of a training, where the environment names some; to be done before anything is computed.

    Keras reads KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID.
    Without them there is one host and nothing to do.

    Raises:
        InputError: there are several hosts, and Keras runs on TensorFlow: its trainer (Keras 3.15) fails under
            TensorFlow's strategy for several workers.
    """
    if int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1")) < 2 and "TF_CONFIG" not in os.environ:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise InputError(f"several hosts train with KERAS_BACKEND=jax. Received: {keras.backend.backend()}")
    keras.distribution.initialize()


def spread(batches: Batches, number: int, first_step: int = 0) -> Any:
    """An epoch as Keras's fit takes it: on TensorFlow's several replicas each batch is cut into their parts.

    Raises InputError when the replicas of this host cannot share a batch evenly.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return batches.epoch(number, first_step)
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches.epoch(number, first_step)
    if batches.batch_size % replicas:
        raise InputError(f"batch_size must be a multiple of the {replicas} devices. Received: {batches.batch_size}")
    dataset = batches.epoch(number, first_step)
    if not isinstance(dataset, tf.data.Dataset):
        first = next(iter(dataset))
        signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in first)
        dataset = tf.data.Dataset.from_generator(lambda: batches.epoch(number, first_step), output_signature=signature)
    parts = dataset.rebatch(batches.batch_size // replicas)
    return strategy.distribute_datasets_from_function(lambda context: parts)


@contextlib.contextmanager
def all_devices() -> Iterator[Devices]:
    """Within it models that are made are copied to all devices, and each device works on its part of a batch."""
    import keras

    backend = keras.backend.backend()
    join_hosts()
    if backend == "jax":
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

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        yield Devices()
        return
    with tf.distribute.MirroredStrategy([device.name for device in devices]).scope():
        yield Devices(replicas=len(devices))
