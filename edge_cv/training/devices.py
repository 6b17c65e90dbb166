"""Data-parallel training on all devices of one or several hosts, with Keras's or TensorFlow's distribution."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InputError

PREFETCHED = 2  # batches on the device before their step
GPU_STEPS = 8  # a call of TensorFlow's runtime costs about a millisecond
FIRST_BFLOAT16_GPU = 8.0  # compute capability: NVIDIA's Ampere


@dataclass(frozen=True)
class Devices:
    """The devices that take part in a training.

    Attributes:
        host_index: index of this process, 0..hosts - 1; host 0 writes the files.
        hosts: number of processes that train together.
        replicas: number of devices that share each batch, over all hosts.
    """

    host_index: int = 0
    hosts: int = 1
    replicas: int = 1

    def check_batch_size(self, per_host: int) -> None:
        """Raise InputError if a batch, given in images per host, cannot be divided between the devices."""
        if per_host * self.hosts % self.replicas:
            raise InputError(
                f"fit.batch_size must be a multiple of the {self.replicas} devices. Received: {per_host * self.hosts}"
            )


@functools.cache
def join_hosts() -> None:
    """Connect to the other hosts that the environment names. Must be called before the first computation.

    Keras reads KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and KERAS_DISTRIBUTION_PROCESS_ID.
    Without them there is one host, and this function does nothing.

    Raises:
        InputError: if there are several hosts and the backend is not JAX. Keras's trainer (3.15) fails under
            TensorFlow's strategy for several workers.
    """
    if int(os.environ.get("KERAS_DISTRIBUTION_NUM_PROCESSES", "1")) < 2 and "TF_CONFIG" not in os.environ:
        return
    import keras

    if keras.backend.backend() != "jax":
        raise InputError(f"training on several hosts needs KERAS_BACKEND=jax. Received: {keras.backend.backend()}")
    keras.distribution.initialize()


def distribute(make: Callable[[], Any]) -> Any:
    """Prepare batches for Keras's `fit`. On several TensorFlow replicas each batch is split between them.

    A dataset is copied to the device two batches ahead of the step. On JAX Keras does so itself.

    Args:
        make: returns the batches of images and targets, from the first one at each call: an iterable or a
            `tf.data.Dataset`. Their sizes must be multiples of the number of replicas.

    Returns:
        An iterable of batches, a dataset, or a distributed dataset.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return make()
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    dataset = make()
    if not isinstance(dataset, tf.data.Dataset):
        dataset = _dataset(dataset, make)
    if replicas == 1:
        accelerators = tf.config.list_logical_devices("GPU")
        if not accelerators:
            return dataset
        return dataset.apply(tf.data.experimental.prefetch_to_device(accelerators[0].name, PREFETCHED))

    def parts(*arrays: Any) -> tf.data.Dataset:
        cut = tf.nest.map_structure(lambda array: tf.reshape(array, (replicas, -1, *array.shape[1:])), arrays)
        return tf.data.Dataset.from_tensor_slices(cut)

    return strategy.distribute_datasets_from_function(lambda context: dataset.flat_map(parts))


def _dataset(batches: Iterable[Any], make: Callable[[], Iterable[Any]]) -> Any:
    """A `tf.data.Dataset` of batches of arrays, which reads them two steps ahead.

    Args:
        batches: the first ones that it yields.
        make: returns the batches again, for another pass: several replicas begin two.
    """
    import tensorflow as tf

    iterator = iter(batches)
    first = tf.nest.map_structure(np.asarray, tuple(next(iterator)))
    signature = tf.nest.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), first)
    options = tf.data.Options()
    options.autotune.enabled = False  # an iterator would wait for its thread when it ends, up to a minute
    passes = itertools.chain([itertools.chain([first], iterator)], iter(make, None))
    dataset = tf.data.Dataset.from_generator(lambda: map(tuple, next(passes)), output_signature=signature)
    return dataset.prefetch(PREFETCHED).with_options(options)


def divisible(batches: Iterable[Any], replicas: int) -> Iterator[Any]:
    """The batches, each cut to a multiple of the number of replicas. This affects a smaller last batch only."""
    for arrays in batches:
        kept = len(arrays[0]) // replicas * replicas
        if kept:
            yield tuple(array[:kept] for array in arrays)


def uses_xla() -> bool:
    """Whether XLA compiles the steps: always on JAX, on TensorFlow with a GPU. On CPUs TensorFlow is faster without."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.backend.backend() == "jax"
    return bool(keras.distribution.list_devices("gpu"))


def after(tensors: Any) -> contextlib.AbstractContextManager[Any]:
    """Context whose operations run after these nested tensors have been computed.

    TensorFlow would otherwise count a step whose batch could not be read: a counter does not depend on the batch.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([part for part in tf.nest.flatten(tensors) if tf.is_tensor(part)])


def precision_of_device(name: str) -> str:
    """The precision that `auto` selects: `bfloat16` where the first device computes in it, else `float32`."""
    import keras

    if name != "auto":
        return name
    (first, *_) = keras.distribution.list_devices()
    if first.startswith("tpu"):
        return "bfloat16"
    return "bfloat16" if first.startswith(("gpu", "cuda")) and _capability() >= FIRST_BFLOAT16_GPU else "float32"


def _capability() -> float:
    """The compute capability of the first GPU; infinite where it is not NVIDIA's, 0 if unknown."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", 0)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        capability = ".".join(map(str, details.get("compute_capability", (0,))))
    else:
        capability = 0
    try:
        return float(capability)
    except ValueError:
        return float("inf")


def steps_per_execution(steps: int | None, devices: Devices) -> int:
    """The steps that one call of TensorFlow's runtime executes: as given, else several on one GPU.

    JAX calls the device for each step, without waiting for it.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return 1
    if steps is not None:
        return steps
    return GPU_STEPS if devices.replicas == 1 and keras.distribution.list_devices("gpu") else 1


@contextlib.contextmanager
def all_devices() -> Iterator[Devices]:
    """Context in which new models are replicated on all devices, and each device computes its part of a batch."""
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
    with _mirrored(tuple(device.name for device in devices)).scope():
        yield Devices(replicas=len(devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    """The strategy of a process for some devices.

    Each strategy numbers its reductions from the same number on, and TensorFlow refuses a number that it has seen with
    another shape: with a strategy of its own a second training, of a model of another size, would fail.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))
