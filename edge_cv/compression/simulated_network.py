"""A network that computes with other kernels than its variables hold, and with rounded outputs, while it is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

import edge_cv.compression.fake_quantization  # noqa: F401  a saved simulation has its layers
from edge_cv.compression.elementary import ElementaryCalls
from edge_cv.compression.keras_graph import inner_layers, leaf_layers, walk

KernelName = tuple[str, str]  # the layer's name in `leaf_layers`, and the attribute that holds the kernel


@keras.saving.register_keras_serializable("edge_cv")
class SimulatedNetwork(keras.layers.Layer):
    """A network, computed operation by operation. The variables that are trained are the network's own.

    Attributes:
        network: the network.
        frozen: 1 while ranges and the statistics of batch normalization are constant, else 0.
    """

    def __init__(
        self,
        network: keras.Model,
        kernels: Mapping[KernelName, keras.layers.Layer],
        outputs: Mapping[str, keras.layers.Layer] | None = None,
        *,
        train_statistics: bool = False,
        **options: Any,
    ) -> None:
        """
        Args:
            network: the network; it changes.
            kernels: called with a kernel, each returns the one to compute with; by layer and attribute.
            outputs: each rounds the output of an elementary operation, by its name in `ElementaryCalls`.
            train_statistics: whether batch normalization normalizes by the batch, until `frozen` is 1.
        """
        super().__init__(**options)
        self.network = network
        self.train_statistics = train_statistics
        outputs = outputs or {}
        self.parts = list({id(part): part for part in [*kernels.values(), *outputs.values()]}.values())
        self._kernels = tuple((*name, self.parts.index(part)) for name, part in kernels.items())
        self._outputs = tuple((name, self.parts.index(part)) for name, part in outputs.items())
        self.frozen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="frozen")
        self.built = True

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of kernels and outputs, then those of the network."""
        return [*self.parts, *inner_layers(self.network)]

    @property
    def outputs(self) -> dict[str, keras.layers.Layer]:
        """The roundings of outputs, by name of elementary operation."""
        return {name: self.parts[index] for name, index in self._outputs}

    def call(self, pixels: Any, training: bool = False) -> Any:
        """The network's outputs `(batch, classes)` for pixels `(batch, height, width, channels)`."""
        frozen, kernels, outputs, followed = self.frozen.value, self._kernels_by_layer(), self.outputs, set()

        def compute(operation: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
            if "training" in getattr(operation, "_call_context_args", {}):
                kwargs = {**kwargs, "training": training}
            with _with_kernels(operation, kernels.get(id(operation), ())):
                value = self._computed(operation, args, kwargs, frozen)
            if name not in outputs:
                return value
            follows = training and outputs[name] not in followed  # a shared range follows the first output that has it
            followed.add(outputs[name])
            return outputs[name](value, training=follows, frozen=frozen)

        (result,) = walk(self.network, [pixels], ElementaryCalls(compute))
        return result

    def _kernels_by_layer(self) -> dict[int, list[tuple[str, keras.layers.Layer]]]:
        leaves = leaf_layers(self.network)
        kernels: dict[int, list[tuple[str, keras.layers.Layer]]] = {}
        for name, attribute, index in self._kernels:
            kernels.setdefault(id(leaves[name]), []).append((attribute, self.parts[index]))
        return kernels

    def _computed(self, operation: Any, args: tuple, kwargs: dict[str, Any], frozen: Any) -> Any:
        """The value of an operation; that of batch normalization as in inference once `frozen` is 1."""
        if not (isinstance(operation, keras.layers.BatchNormalization) and kwargs.get("training")):
            return operation(*args, **kwargs)
        if self.train_statistics and operation.trainable:
            return _normalized(operation, args[0], frozen)
        return operation(*args, **{**kwargs, "training": False})

    def trained(self) -> keras.Model:
        """The network, whose variables now hold the trained kernels before their rounding to int8."""
        leaves = leaf_layers(self.network)
        for name, attribute, index in self._kernels:
            kernel = getattr(leaves[name], attribute)
            kernel.assign(self.parts[index].unrounded(kernel.value))
        return self.network

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.network.output_shape[1:])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "network": serialize(self.network),
            "parts": [serialize(part) for part in self.parts],
            "kernels": self._kernels,
            "outputs": self._outputs,
            "train_statistics": self.train_statistics,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SimulatedNetwork:
        config, deserialize = dict(config), keras.saving.deserialize_keras_object
        parts = [deserialize(part) for part in config.pop("parts")]
        kernels = {(name, attribute): parts[index] for name, attribute, index in config.pop("kernels")}
        outputs = {name: parts[index] for name, index in config.pop("outputs")}
        return cls(deserialize(config.pop("network")), kernels, outputs, **config)


def _normalized(layer: Any, x: Any, frozen: Any) -> Any:
    """Batch normalization by the batch, which the moving statistics follow; by those alone once `frozen` is 1."""
    values = keras.ops.cast(x, "float32")
    axes = [axis for axis in range(len(x.shape)) if axis != layer.axis % len(x.shape)]
    used = []
    for moving, batch in zip(
        (layer.moving_mean, layer.moving_variance), keras.ops.moments(values, axes=axes), strict=True
    ):
        used.append(keras.ops.where(frozen > 0, moving.value, batch))
        moving.assign(moving + (used[-1] - moving) * (1 - layer.momentum))
    output = keras.ops.batch_normalization(
        values,
        *used,
        axis=layer.axis,
        offset=layer.beta if layer.center else None,
        scale=layer.gamma if layer.scale else None,
        epsilon=layer.epsilon,
    )
    return keras.ops.cast(output, layer.compute_dtype)


@contextlib.contextmanager
def _with_kernels(layer: Any, kernels: Iterable[tuple[str, Any]]) -> Iterator[None]:
    """Context in which a layer computes with the kernels that the parts return."""
    if not kernels:
        yield
        return
    values = {id(variable): (variable, variable.value) for variable in layer.variables}
    for attribute, part in kernels:
        kernel = getattr(layer, attribute)
        values[id(kernel)] = kernel, part(kernel.value)
    with keras.StatelessScope(list(values.values())):
        yield


def simulated(
    network: keras.Model,
    kernels: Mapping[KernelName, keras.layers.Layer],
    outputs: Mapping[str, keras.layers.Layer] | None = None,
    *,
    train_statistics: bool = False,
) -> keras.Model:
    """A functional model of one `SimulatedNetwork`, which Keras's `fit` and `edge_cv.training.fit` train.

    Args:
        network: the model whose variables are trained; a clone, because it changes.
        kernels, outputs, train_statistics: see `SimulatedNetwork`.
    """
    (tensor,) = network.inputs
    pixels = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name="pixels")
    layer = SimulatedNetwork(network, kernels, outputs, train_statistics=train_statistics, name="simulated")
    return keras.Model(pixels, layer(pixels), name=f"{network.name}_simulated")


def simulated_network(model: keras.Model) -> SimulatedNetwork | None:
    """The `SimulatedNetwork` of a model of `simulated`; None for any other."""
    return next((layer for layer in model.layers if isinstance(layer, SimulatedNetwork)), None)


def strip(model: keras.Model) -> keras.Model:
    """The network of a model that `quantize_aware` made, with its trained kernels; any other model as it is.

    Args:
        model: a Keras 3 model.

    Returns:
        A plain Keras 3 model, which can be saved and converted.
    """
    layer = simulated_network(model)
    return model if layer is None else layer.trained()
