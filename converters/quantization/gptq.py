"""GPTQ and bias correction: weights and biases of an int8 file, optimized layer by layer.

The plain int8 file is walked operator by operator beside its float graph, on calibration images. At each layer both
the quantized input, with its accumulated error, and the float output are known. For each layer:

1. Draw patches of the layer's input: x of the int8 file, x + d of the float graph, both with their means removed.
2. Take H = x^T x / n, the Hessian of the squared output error, and add the damping to its diagonal.
3. Add H^-1 x^T d W to the float weights W, so that the layer also compensates the error of its input
   (https://arxiv.org/abs/2504.02692).
4. Round the weights one input after the other, from the largest variance to the smallest; spread each rounding error
   over the inputs that are not yet rounded, by the Cholesky factor of H^-1 (https://arxiv.org/abs/2210.17323). Rounding
   errors are small, so H needs less damping here than in step 3, which fits the weights to the images.
5. Set the bias so that each channel's mean is the float layer's (https://arxiv.org/abs/1906.04721).

Zeros of a pruned model stay zero, and a layer of clustered weights keeps them: only its bias is set.

Operators, scales, size and latency stay those of the plain file.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import ThreadpoolController

from converters.memory import return_freed_memory
from converters.quantization.clusters import is_clustered
from converters.quantization.layers import Dequantizer, QuantizedLayer, quantized_layer, ungrouped
from converters.quantization.walk import Values, Walk
from converters.tflite.graph import WEIGHTED, Graph, Operator
from converters.tflite.runtime import interpreter, to_input

# Samples for each value of a patch: 16, or 4 where that is more than MANY_SAMPLES.
MIN_SAMPLES, SAMPLES_PER_VALUE, MANY_SAMPLES, LEAST_PER_VALUE = 2048, 16, 4096, 4
MAX_PATCH = 4800  # values of a patch; the weights of a layer with larger ones are not optimized: too slow
# Per value of the patch: keeps the Hessian's condition number below 1e5, within the precision of float32.
LEAST_DAMPING = 1e-5
ROUNDING_DAMPING = 0.3  # the most of step 4, in the units of `damping`
BLOCK = 32  # columns whose errors are spread together
_correcting = threading.Lock()  # the limit of BLAS threads is the process's


def correct(float_content: bytes, content: bytes, inputs: np.ndarray, *, damping: float | None) -> bytes:
    """Optimize the integers of a file's convolutions and dense layers.

    Args:
        float_content, content: the float graph and the int8 file; see `Candidate`.
        inputs: `(n, height, width, 3)` float32, the float graph's input.
        damping: GPTQ's Hessian damping: what is added to the variance of a layer's inputs, as a multiple of their mean
            variance for a layer of as many inputs as there are images. None keeps the weights and sets biases only.

    Returns:
        The corrected file.
    """
    return_freed_memory()
    float_graph, graph = Graph(float_content), Graph(content)
    detail = interpreter(content).get_input_details()[0]
    reference, walk = Walk(float_graph, inputs), Walk(graph, to_input(inputs, detail, None))
    pairs = _matching_layers(walk.operators, graph, reference.operators, float_graph)

    def prepare(operator: Operator, twin: Operator) -> tuple[QuantizedLayer | None, _Inputs | None]:
        """The layer and its float input."""
        reference.run_until(twin.index)
        layer, values = quantized_layer(graph, operator, float_graph, twin), reference.values.get(twin.inputs[0])
        if layer is None or values is None:
            return None, None
        return layer, _layer_inputs(operator, layer, values, Dequantizer(), samples=damping is not None)

    libraries = ThreadpoolController()
    with _correcting, ThreadPoolExecutor(max_workers=1) as pool:
        # The float graph runs up to the next layer while the current layer's integers are computed.
        ahead = [pool.submit(prepare, *pair) for pair in pairs[:1]]
        for place, (operator, _) in enumerate(pairs):
            walk.run_until(operator.index)
            layer, target = ahead.pop().result()
            ahead += [pool.submit(prepare, *pair) for pair in pairs[place + 1 : place + 2]]
            quantized = walk.values.get(operator.inputs[0])
            if layer is None or target is None or quantized is None:
                continue
            # One thread of matrix products, which leaves the other cores to the float graph while that runs.
            with libraries.limit(limits=1 if ahead else None, user_api="blas"):
                constants = _integers(operator, layer, quantized, target, damping)
            for position, values in constants.items():
                walk.set_constant(operator.index, position, values)
                graph.set_constant(_exclusive(graph, operator, position), values)
            del layer, target, quantized  # the next operators run without them
    return graph.to_bytes()


@dataclass(frozen=True)
class _Inputs:
    """A layer's input on all images.

    Attributes:
        mean: the mean patch, `(groups, 1, patch)`.
        patches: a sample of patches without their mean, `(groups, samples, patch)`; None where no weights are set.
    """

    mean: np.ndarray
    patches: np.ndarray | None


def _layer_inputs(
    operator: Operator, layer: QuantizedLayer, values: Values, dequantize: Dequantizer, *, samples: bool
) -> _Inputs:
    """The mean of a layer's input `values` and, where `samples` is true and they are not too large, its patches."""
    mean, patch = layer.geometry.mean_patch(values, dequantize), layer.weights.shape[2]
    if not samples or patch > MAX_PATCH:
        return _Inputs(mean, None)
    count = max(MIN_SAMPLES, LEAST_PER_VALUE * patch, min(SAMPLES_PER_VALUE * patch, MANY_SAMPLES))
    patches = layer.geometry.patches(values, count, operator.index, dequantize)
    return _Inputs(mean, np.subtract(patches, mean, out=patches))


def _matching_layers(
    operators: Sequence[Operator], graph: Graph, float_operators: Sequence[Operator], float_graph: Graph
) -> list[tuple[Operator, Operator]]:
    """The weighted operators of a graph, each with the float graph's operator of the same output."""
    twins = {float_graph.name(twin.outputs[0]): twin for twin in float_operators}
    pairs = [(operator, twins.get(graph.name(operator.outputs[0]))) for operator in operators]
    return [(o, twin) for o, twin in pairs if twin is not None and o.name == twin.name and o.name in WEIGHTED]


def _integers(
    operator: Operator, layer: QuantizedLayer, quantized: Values, target: _Inputs, damping: float | None
) -> dict[int, np.ndarray]:
    """Optimize one layer's weights and bias.

    Args:
        operator, layer: the layer.
        quantized: its int8 input on all images.
        target: the float layer's input, changed in place.
        damping: see `correct`.

    Returns:
        New constants by their position among the operator's inputs.
    """
    constants, integers, transposed = {}, layer.integers, layer.weights.transpose(0, 2, 1)
    own = _layer_inputs(operator, layer, quantized, layer.dequantize, samples=damping is not None)
    clustered = is_clustered(layer.weights.reshape(-1, layer.weights.shape[2]))
    if damping is not None and own.patches is not None and target.patches is not None and not clustered:
        difference = np.subtract(target.patches, own.patches, out=target.patches)
        of_inputs = layer.weights.shape[2] / len(quantized)
        integers = gptq_round(
            own.patches, difference, layer, damping * of_inputs, min(damping, ROUNDING_DAMPING) * of_inputs
        )
        constants[1] = ungrouped(integers, operator, layer.shape).astype(np.int8)
    mean_output = np.matmul(target.mean, transposed) + layer.bias
    bias = (mean_output - np.matmul(own.mean, (integers * layer.scale).transpose(0, 2, 1))).reshape(-1)
    bias = np.rint(bias / (layer.dequantize.scale * layer.scale.reshape(-1)))
    fits = np.abs(bias) < np.iinfo(layer.integer_bias.dtype).max / 2  # the products are added to it
    bias = np.where(fits, bias, layer.integer_bias)
    constants[2] = bias.astype(layer.integer_bias.dtype)
    return constants


def _exclusive(graph: Graph, operator: Operator, position: int) -> int:
    """The constant that the operator reads there, copied first if another operator reads it too."""
    tensor = operator.inputs[position]
    if len(graph.readers()[tensor]) > 1:
        graph.tensors.append(copy.copy(graph.tensors[tensor]))
        tensor = len(graph.tensors) - 1
        graph.rename(tensor, f"{graph.name(tensor)}#{tensor}")
        inputs = graph.subgraph.operators[operator.index].inputs.copy()
        inputs[position] = tensor
        graph.set_inputs(operator, inputs)
    return tensor


def gptq_round(
    x: np.ndarray, difference: np.ndarray, layer: QuantizedLayer, damping: float, rounding_damping: float
) -> np.ndarray:
    """Round a layer's weights by GPTQ, steps 2 to 4 above.

    Args:
        x: `(groups, samples, patch)`, the int8 layer's input without its mean.
        difference: the float layer's input without its mean, less `x`; the same shape.
        layer: its float weights, scales and integers.
        damping: added to the variance of the inputs in step 3, as a multiple of their mean variance.
        rounding_damping: the same in step 4; not more.

    Returns:
        Integers -127..127 as float32, `(groups, outputs / groups, patch)`.
    """
    size, samples = x.shape[2], x.shape[1]
    transposed, weights = x.transpose(0, 2, 1), layer.weights.transpose(0, 2, 1)
    hessian = np.matmul(transposed, x) / samples
    missing = np.matmul(transposed, np.matmul(difference, weights)) / samples
    variance = np.einsum("gkk->gk", hessian)
    order = np.argsort(variance, axis=1)[:, ::-1]
    # A variance below that of the input's own rounding is not reliable either.
    unit = (variance.mean(1) + layer.dequantize.scale**2 / 12)[:, None]
    least = LEAST_DAMPING * size
    hessian[:, range(size), range(size)] += max(damping, least) * unit
    if len(hessian) == 1:
        hessian = hessian[:, order[0]][:, :, order[0]]
    else:
        hessian = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None], 2)
    factor = _inverse_factor(hessian)
    missing = np.take_along_axis(missing, order[:, :, None], 1)
    left = np.take_along_axis(weights, order[:, :, None], 1) + np.matmul(
        factor, np.matmul(factor.transpose(0, 2, 1), missing)
    )
    left = (left / layer.scale.transpose(0, 2, 1)).astype(np.float32)
    if max(rounding_damping, least) < max(damping, least):
        hessian[:, range(size), range(size)] += (max(rounding_damping, least) - max(damping, least)) * unit
        factor = _inverse_factor(hessian)
    zero = np.take_along_axis(weights, order[:, :, None], 1) == 0
    rounded, columns = np.empty_like(left), _round_columns(left, factor, zero if zero.any() else None)
    np.put_along_axis(rounded, np.broadcast_to(order[:, :, None], left.shape), columns, 1)
    rounded = rounded.transpose(0, 2, 1)
    return np.where(np.any(layer.weights, axis=2, keepdims=True), rounded, layer.integers)


def _round_columns(left: np.ndarray, factor: np.ndarray, zero: np.ndarray | None) -> np.ndarray:
    """Round `left`, `(groups, patch, outputs / groups)` in integer steps, row by row; `left` is overwritten.

    `zero` is true, in the same shape, where the weight must be 0.
    """
    size = left.shape[1]
    rounded = np.empty_like(left)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.empty_like(left[:, start:stop])
        for k in range(start, stop):
            row, error = rounded[:, k], errors[:, k - start]
            np.rint(left[:, k], out=row)
            np.minimum(row, 127, out=row)
            np.maximum(row, -127, out=row)
            if zero is not None:
                row[zero[:, k]] = 0
            np.subtract(left[:, k], row, out=error)
            error /= factor[:, k, k, None]
            left[:, k + 1 : stop] -= factor[:, k + 1 : stop, k, None] * error[:, None]
        if stop < size:
            left[:, stop:] -= np.matmul(factor[:, stop:, start:stop], errors)
    return rounded


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """Lower triangular L, `(groups, size, size)`, with L L^T the inverse of each Hessian."""
    backwards = _inverse_of_cholesky(np.ascontiguousarray(hessian[:, ::-1, ::-1]))
    return np.ascontiguousarray(backwards[:, ::-1, ::-1].transpose(0, 2, 1))


def _inverse_of_cholesky(moments: np.ndarray) -> np.ndarray:
    """The inverse of the lower Cholesky factor of each matrix of `(groups, size, size)`, by recursion on halves."""
    size = moments.shape[1]
    if size <= BLOCK:
        return np.linalg.inv(np.linalg.cholesky(moments))
    half, inverse = size // 2, np.zeros(moments.shape, moments.dtype)
    first = inverse[:, :half, :half] = _inverse_of_cholesky(moments[:, :half, :half])
    below = np.matmul(moments[:, half:, :half], first.transpose(0, 2, 1))
    rest = moments[:, half:, half:] - np.matmul(below, below.transpose(0, 2, 1))
    second = inverse[:, half:, half:] = _inverse_of_cholesky(rest)
    inverse[:, half:, :half] = -np.matmul(second, np.matmul(below, first))
    return inverse
