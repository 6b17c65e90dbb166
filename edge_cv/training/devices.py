"""Data parallel training on all devices of a host, or of several hosts: Keras's distribution, or TensorFlow's."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from converters.errors import InputError


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


def spread(make: Callable[[], Iterable[Any]]) -> Any:
    """Batches as Keras's fit takes them: on TensorFlow's several replicas each is cut into their parts.

    Args:
        make: gives the batches of images and targets, each time from the first; their sizes are multiples of the
            replicas.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return make()
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return make()
    dataset = make()
    if not isinstance(dataset, tf.data.Dataset):
        signature = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in next(iter(dataset)))
        dataset = tf.data.Dataset.from_generator(make, output_signature=signature)

    def parts(*arrays: tf.Tensor) -> tf.data.Dataset:
        cut = (tf.reshape(array, (replicas, -1, *array.shape[1:])) for array in arrays)
        return tf.data.Dataset.from_tensor_slices(tuple(cut))

    return strategy.distribute_datasets_from_function(lambda context: dataset.flat_map(parts))


def even(batches: Iterable[Any], replicas: int) -> Iterator[Any]:
    """The batches without the images that the replicas cannot share: of a smaller last batch some may be left out."""
    for arrays in batches:
        kept = len(arrays[0]) // replicas * replicas
        if kept:
            yield tuple(array[:kept] for array in arrays)


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
