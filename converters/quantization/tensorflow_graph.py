"""A float TFLite graph in TensorFlow: all its tensors for a batch of images, for gradients through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.parity import sqnr_db
from converters.tflite.graph import Graph, Operator
from converters.tflite.runtime import predict

EQUAL_DB = 40.0  # the least SQNR of the graph's outputs in TensorFlow against the runtime's
SAME = 0  # the schema's padding


class TensorflowGraph:
    """A float graph whose operators run in TensorFlow, on batches of any size.

    Attributes:
        graph: the graph.
        operators: its operators, in order.
    """

    def __init__(self, content: bytes) -> None:
        import tensorflow as tf

        self.graph = Graph(content)
        self.operators = list(self.graph.operators())
        self._functions = _functions(tf)
        self._activations = {0: lambda x: x, 1: tf.nn.relu, 2: lambda x: tf.clip_by_value(x, -1, 1), 3: tf.nn.relu6}

    @property
    def supported(self) -> bool:
        """Whether all operators are known here."""
        return {operator.name for operator in self.operators} <= set(self._functions)

    def run(self, images: Any, constants: Mapping[tuple[int, int], Any] | None = None) -> dict[int, Any]:
        """The graph's computed tensors and its input, by index, each `(batch, ...)`.

        Args:
            images: `(batch, height, width, channels)` float32 tensor.
            constants: tensors in the place of constants, by an operator's index and the position among its inputs.
        """
        values = {self.graph.inputs[0]: images}
        for operator in self.operators:
            given = constants or {}
            inputs = [
                given[operator.index, place] if (operator.index, place) in given else self._value(values, tensor)
                for place, tensor in enumerate(operator.inputs)
            ]
            values[operator.outputs[0]] = self.apply(operator, inputs)
        return values

    def apply(self, operator: Operator, inputs: list[Any]) -> Any:
        """The output of one operator for its inputs."""
        options = self.graph.options(operator)
        shape = self.graph.shape(operator.outputs[0])
        result = self._functions[operator.name](inputs, options, shape)
        return self._activations[getattr(options, "fusedActivationFunction", 0)](result)

    def linear(self, operator: Operator, x: Any, weights: Any) -> Any:
        """The output of a weighted operator for these weights, without bias and activation."""
        return self._functions[operator.name]([x, weights], self.graph.options(operator), ())

    def _value(self, values: Mapping[int, Any], tensor: int) -> Any:
        return values[tensor] if tensor in values else self.graph.constant(tensor)


def tensorflow_graph(content: bytes, inputs: np.ndarray) -> TensorflowGraph | None:
    """The graph in TensorFlow; None where it has an operator that is not known here, or computes something else there.

    Args:
        content: a float TFLite file.
        inputs: `(n, height, width, channels)`, images that both are compared on; two are used.
    """
    import tensorflow as tf

    graph, images = TensorflowGraph(content), inputs[:2].astype(np.float32)
    if not graph.supported or len(graph.graph.outputs) != 1:
        return None
    try:
        output = np.asarray(graph.run(tf.constant(images))[graph.graph.outputs[0]]).reshape(len(images), -1)
        reference = predict(content, images)
    except (ValueError, TypeError, KeyError, tf.errors.OpError):  # a form of an operator that is not known here
        return None
    return graph if output.shape == reference.shape and sqnr_db(reference, output) >= EQUAL_DB else None


def _functions(tf: Any) -> dict[str, Callable[[list[Any], Any, tuple[int, ...]], Any]]:
    """For each operator, its output before the fused activation, for its inputs, its options and its output's shape."""

    def padding(options: Any) -> str:
        return "SAME" if options.padding == SAME else "VALID"

    def biased(y: Any, inputs: list[Any]) -> Any:
        return y if len(inputs) < 3 or inputs[2] is None else y + inputs[2]

    def conv(i: list[Any], o: Any, shape: tuple[int, ...]) -> Any:
        kernel, dilations = tf.transpose(i[1], [1, 2, 3, 0]), [o.dilationHFactor, o.dilationWFactor]
        return biased(tf.nn.conv2d(i[0], kernel, [o.strideH, o.strideW], padding(o), dilations=dilations), i)

    def depthwise(i: list[Any], o: Any, shape: tuple[int, ...]) -> Any:
        channels = i[0].shape[-1]
        kernel = tf.reshape(i[1][0], [*i[1].shape[1:3], channels, i[1].shape[3] // channels])
        dilations, strides = [o.dilationHFactor, o.dilationWFactor], [1, o.strideH, o.strideW, 1]
        return biased(tf.nn.depthwise_conv2d(i[0], kernel, strides, padding(o), dilations=dilations), i)

    def dense(i: list[Any], o: Any, shape: tuple[int, ...]) -> Any:
        return biased(tf.matmul(tf.reshape(i[0], [-1, i[1].shape[1]]), i[1], transpose_b=True), i)

    def pooled(pool: Callable[..., Any]) -> Callable[[list[Any], Any, tuple[int, ...]], Any]:
        return lambda i, o, shape: pool(
            i[0], [o.filterHeight, o.filterWidth], [o.strideH, o.strideW], padding=padding(o)
        )

    def reshaped(i: list[Any], o: Any, shape: tuple[int, ...]) -> Any:
        return tf.reshape(i[0], [-1, *(shape[1:] if shape[:1] == (1,) else shape)])

    return {
        "ADD": lambda i, o, shape: i[0] + i[1],
        "AVERAGE_POOL_2D": pooled(tf.nn.avg_pool2d),
        "CONCATENATION": lambda i, o, shape: tf.concat(i, o.axis),
        "CONV_2D": conv,
        "DEPTHWISE_CONV_2D": depthwise,
        "FULLY_CONNECTED": dense,
        "HARD_SWISH": lambda i, o, shape: i[0] * tf.nn.relu6(i[0] + 3) / 6,
        "LEAKY_RELU": lambda i, o, shape: tf.nn.leaky_relu(i[0], o.alpha),
        "LOGISTIC": lambda i, o, shape: tf.sigmoid(i[0]),
        "MAX_POOL_2D": pooled(tf.nn.max_pool2d),
        "MEAN": lambda i, o, shape: tf.reduce_mean(i[0], i[1], keepdims=o.keepDims),
        "MUL": lambda i, o, shape: i[0] * i[1],
        "PAD": lambda i, o, shape: tf.pad(i[0], i[1]),
        "RELU": lambda i, o, shape: tf.nn.relu(i[0]),
        "RELU6": lambda i, o, shape: tf.nn.relu6(i[0]),
        "RESHAPE": reshaped,
        "SOFTMAX": lambda i, o, shape: tf.nn.softmax(i[0]),
        "SUB": lambda i, o, shape: i[0] - i[1],
        "SUM": lambda i, o, shape: tf.reduce_sum(i[0], i[1], keepdims=o.keepDims),
        "TANH": lambda i, o, shape: tf.tanh(i[0]),
    }
