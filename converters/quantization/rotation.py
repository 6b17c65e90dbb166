"""Rotation: the channels of a tensor between linear layers are mixed, so that its rounding changes the outputs least.

A tensor that no activation follows, and sums of such tensors, may be multiplied by any invertible matrix A if the
layers that read them are multiplied by its inverse B: outputs and operators stay the same. For language models A is a
rotation, which spreads large values over all channels (https://arxiv.org/abs/2404.00456). Here it is the matrix of
the least expected noise. Rounding gives each mixed channel the same error, so that the outputs' noise is

    trace(S B B^T) * mean(diagonal(A C A^T)),

C the covariance of the channels and S that of the outputs' derivatives by them. With S^1/2 C S^1/2 = U L U^T it is
least for B = S^-1/2 U L^1/4 H, H any orthogonal matrix that makes the diagonal of A C A^T uniform: it is then
trace(L^1/2)^2 / channels, at most what gains of the channels alone reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.quantization.equalization import ChannelGroup, centres, channel_groups, replace_constants
from converters.quantization.sensitivity import PROBES, probed_sums
from converters.quantization.tensorflow_graph import TensorflowGraph
from converters.tflite.graph import WEIGHTED, Graph, Operator

LINEAR = ("CONV_2D", "FULLY_CONNECTED", "ADD", "MEAN", "AVERAGE_POOL_2D")  # commute with a mix of channels
READERS = ("CONV_2D", "FULLY_CONNECTED")
MOST_CHANNELS = 1024  # of a tensor: more take minutes
MOST_ZEROS = 0.2  # share of a layer's weights: a pruned layer would lose its zeros
DAMPING = 0.01  # of S, as a share of its mean: channels that no output depends on here may matter on other images
LEAST = 1e-6  # of the eigenvalues, as a share of the largest: keeps the gains of all but constant channels below 32


@dataclass(frozen=True, eq=False)
class _Mix:
    """`mixed = forward @ (value - centre)` for the channels of a tensor, and `backward`, the inverse of `forward`."""

    forward: np.ndarray
    backward: np.ndarray
    centre: np.ndarray


def rotated_groups(graph: Graph) -> list[ChannelGroup]:
    """The tensors whose channels `rotated` mixes, by groups that are mixed alike."""
    return [group for group in channel_groups(graph) if _is_linear(graph, group)]


def _is_linear(graph: Graph, group: ChannelGroup) -> bool:
    channels = graph.shape(group.tensors[0])[-1]
    layers = [o for o in (*group.writers, *group.readers) if o.name in WEIGHTED]
    return (
        1 < channels <= MOST_CHANNELS
        and all(w.name in LINEAR and not _activation(graph, w) for w in group.writers)
        and all(r.name in READERS for r in group.readers)
        and all(np.mean(graph.values(layer.inputs[1]) == 0) <= MOST_ZEROS for layer in layers)
    )


def _activation(graph: Graph, operator: Operator) -> int:
    return int(getattr(graph.options(operator), "fusedActivationFunction", 0) or 0)


def rotated(graph: TensorflowGraph, inputs: np.ndarray) -> tuple[bytes, frozenset[str]]:
    """A float graph with the same outputs whose linear tensors round with the least noise of the outputs.

    Args:
        graph: the float graph.
        inputs: `(n, height, width, channels)`, its input.

    Returns:
        The file, and the names of the tensors whose channels are mixed.
    """
    groups = rotated_groups(graph.graph)
    changed = Graph(graph.graph.to_bytes())
    if not groups:
        return changed.to_bytes(), frozenset()
    moments = _moments(graph, inputs, [tensor for group in groups for tensor in group.tensors])
    random = np.random.default_rng(0)
    mixes: dict[int, _Mix] = {}
    for group in groups:
        forward, backward = _least_noise(
            np.sum([moments[t].derivatives for t in group.tensors], axis=0),
            np.sum([moments[t].covariance for t in group.tensors], axis=0),
            random,
        )
        for tensor, centre in centres(group, {t: moments[t].mean for t in group.tensors}).items():
            mixes[tensor] = _Mix(forward, backward, centre)
    names = frozenset(changed.name(tensor) for tensor in mixes)  # before packing renumbers the tensors
    for operator in changed.operators():
        if operator.name in WEIGHTED:
            _rewrite(changed, operator, mixes.get(operator.inputs[0]), mixes.get(operator.outputs[0]))
    return changed.to_bytes(), names


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of a tensor's channels over images and positions.

    Attributes:
        derivatives: of the outputs by the channels, the sum of their products, `(channels, channels)`.
        covariance: of the channels, `(channels, channels)`.
        mean: `(channels,)`.
    """

    derivatives: np.ndarray
    covariance: np.ndarray
    mean: np.ndarray


def _moments(graph: TensorflowGraph, inputs: np.ndarray, tensors: Sequence[int]) -> dict[int, _Moments]:
    import tensorflow as tf

    def sums(values: Mapping[int, Any], gradients: Mapping[int, list[Any]]) -> list[Any]:
        found = []
        for tensor in tensors:
            rows, *derivatives = (tf.reshape(x, [-1, x.shape[-1]]) for x in (values[tensor], *gradients[tensor]))
            products = tf.add_n([tf.matmul(d, d, transpose_a=True) for d in derivatives]) / PROBES
            count = tf.cast(tf.shape(rows)[0], tf.float32)
            found += [products, tf.matmul(rows, rows, transpose_a=True), tf.reduce_sum(rows, 0), count]
        return found

    totals, _ = probed_sums(graph, inputs, tensors, sums)
    moments = {}
    for place, tensor in enumerate(tensors):
        derivatives, squares, total, count = totals[4 * place : 4 * place + 4]
        mean = total / count
        moments[tensor] = _Moments(derivatives, squares / count - np.outer(mean, mean), mean)
    return moments


def _least_noise(
    derivatives: np.ndarray, covariance: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A and B of the formulas above, `(channels, channels)` each."""
    identity = np.eye(len(covariance))
    if not np.trace(derivatives) > 0 or not np.trace(covariance) > 0:  # constant, or nothing depends on it
        return identity, identity
    values, vectors = np.linalg.eigh(derivatives + DAMPING * np.trace(derivatives) / len(identity) * identity)
    root, inverse_root = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    values, vectors = np.linalg.eigh(root @ covariance @ root)
    values = np.maximum(values, LEAST * values.max())
    orthogonal = _uniform_diagonal(np.sqrt(values), random)
    backward = inverse_root @ vectors @ (values[:, None] ** 0.25 * orthogonal)
    forward = (orthogonal.T * values**-0.25) @ vectors.T @ root
    size = np.sqrt(np.mean(np.diag(forward @ covariance @ forward.T)))
    return forward / size, backward * size


def _uniform_diagonal(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An orthogonal H with a uniform diagonal of H^T diag(values) H: random, then turned in one plane after another."""
    orthogonal = np.linalg.qr(random.normal(size=(len(values), len(values))))[0]
    product = (orthogonal.T * values) @ orthogonal
    mean = values.mean()
    for _ in range(len(values) - 1):
        diagonal = np.diag(product)
        low, high = int(np.argmin(diagonal)), int(np.argmax(diagonal))
        if diagonal[high] - diagonal[low] <= 1e-9 * mean:
            break
        # The tangent of the angle at which the lower value becomes the mean.
        a, b, c = product[high, high] - mean, 2 * product[low, high], product[low, low] - mean
        if a <= 0:
            break
        tangent = (-b + np.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)
        cosine = 1 / np.sqrt(1 + tangent**2)
        turn = cosine * np.array([[1, -tangent], [tangent, 1]])
        plane = [low, high]
        orthogonal[:, plane] = orthogonal[:, plane] @ turn
        product[:, plane] = product[:, plane] @ turn
        product[plane] = turn.T @ product[plane]
    return orthogonal


def _rewrite(graph: Graph, operator: Operator, of_input: _Mix | None, of_output: _Mix | None) -> None:
    """Change a layer's weights and bias for its mixed input and its mixed output."""
    if of_input is None and of_output is None:
        return
    weights, bias = (np.asarray(graph.constant(t), np.float64) for t in operator.inputs[1:3])
    if of_input is not None:
        bias = bias + (weights @ of_input.centre).reshape(len(bias), -1).sum(1)
        weights = weights @ of_input.backward
    if of_output is not None:
        weights = np.tensordot(of_output.forward, weights, 1)
        bias = of_output.forward @ (bias - of_output.centre)
    replace_constants(graph, operator, weights, bias, "rotated")
