"""The int8 file of a float graph: equalized, ranges clipped, weights optimized, each kept only where it helps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from converters.quantization.candidates import Candidate, best_candidate
from converters.quantization.clusters import has_clusters, with_shared_scales
from converters.quantization.equalization import equalizable, equalized
from converters.quantization.normalization import NormalizedGraph
from converters.quantization.ranges import ChannelStatistics, Ranges, activation_ranges, clipped_ranges, observe
from converters.quantization.relu6_gains import least_noise_gains, relu6_tensors
from converters.quantization.rewrite import full_integer
from converters.quantization.rotation import rotated, rotated_groups
from converters.quantization.sensitivity import least_noise_channels, least_noise_ranges
from converters.quantization.tensorflow_graph import TensorflowGraph, tensorflow_graph
from converters.quantization.weight_equalization import weight_gains
from converters.quantization.weight_scales import with_fitted_scales
from converters.tflite.channels import ChannelMap, with_channels

WEIGHTS = ("per_channel", "per_tensor", "per_tensor_pow2")
STRENGTHS = (1.0, 0.5)  # of the equalization of weights with one scale a tensor
ROTATED_STRENGTH = 0.35  # the same behind RELU6, between rotated tensors
MOST_PROBED = 200  # images that the sensitivities are measured on: more take time


@dataclass(frozen=True)
class Int8Options:
    """How an int8 file is made; see `converters.schemes.Int8`, whose fields these are."""

    equalization: bool
    ranges: str
    correction: str
    damping: float | None
    effort: str
    weights: str


def int8_files(normalized: NormalizedGraph, inputs: np.ndarray, options: Int8Options) -> tuple[bytes, bytes]:
    """The int8 file of a float graph, with int8 input and output.

    Args:
        normalized: the float graph.
        inputs: `(n, height, width, channels)` float32, calibration images as the graph takes them.
        options: see `Int8Options`.

    Returns:
        The file, and the float graph, equalized or not, that it was made from.
    """
    clustered = has_clusters(normalized.content)
    making = _Making(normalized, normalized.input_range(inputs), options, clustered)
    equalization = options.equalization and not clustered
    clip = options.ranges == "mse"
    steps = dict.fromkeys([(equalization, clip), (False, clip), (False, False)])
    candidates: list[Callable[[np.ndarray], Candidate]] = [
        functools.partial(making.candidate, equalize=equalize, clip=clip) for equalize, clip in steps
    ]
    compared = 1
    if equalization:
        better = making.better(inputs)
        candidates, compared = [*better, *candidates], len(better) + 1
    content, chosen = best_candidate(
        candidates,
        inputs,
        method=options.correction,
        damping=options.damping,
        compared=compared,
        thorough=options.effort == "high" or options.weights != "per_channel",
    )
    return with_channels(content, chosen.channels), chosen.float_content


class _Making:
    """Makes candidates of one model; what was observed of its tensors is kept."""

    def __init__(
        self, normalized: NormalizedGraph, input_range: tuple[float, float], options: Int8Options, clustered: bool
    ) -> None:
        self._content, self._input_range, self._options = normalized.content, input_range, options
        self._clustered = clustered
        self._equalizable = equalizable(self._content) if options.equalization and not clustered else frozenset()
        self._observed: dict[int, tuple[Ranges, dict[str, ChannelStatistics]]] = {}  # by number of images

    def candidate(self, images: np.ndarray, *, equalize: bool, clip: bool) -> Candidate:
        if len(images) not in self._observed:
            self._observed[len(images)] = observe(self._content, images, self._equalizable)
        ranges, statistics = self._observed[len(images)]
        content, maps = self._content, dict[str, ChannelMap]()
        if equalize:
            content, maps = equalized(content, statistics)
        if content is not self._content:
            ranges = activation_ranges(content, images)
        if clip:
            ranges = clipped_ranges(content, images, ranges)
        return self._integer(content, ranges, maps, clip=clip)

    def better(self, inputs: np.ndarray) -> list[Callable[[np.ndarray], Candidate]]:
        """Candidates that take longer: of high effort, and for weights with one scale a tensor."""
        shared, high = self._options.weights != "per_channel", self._options.effort == "high"
        high = high and self._options.ranges == "mse"
        graph = tensorflow_graph(self._content, inputs) if shared or high else None
        groups = rotated_groups(graph.graph) if graph is not None else []
        if shared:
            strengths = (ROTATED_STRENGTH,) if groups else STRENGTHS
            return [functools.partial(self.equal_weights, graph, strength=strength) for strength in strengths]
        if graph is None:
            return []
        mixed = frozenset(graph.graph.name(tensor) for group in groups for tensor in group.tensors)
        return [functools.partial(self.least_noise, graph, mixed)]

    def least_noise(self, graph: TensorflowGraph, mixed: frozenset[str], images: np.ndarray) -> Candidate:
        """The tensors `mixed` rotated, the channels of others equalized, all by the effect on the outputs."""
        probed, relu6 = images[:MOST_PROBED], relu6_tensors(self._content)
        statistics = observe(self._content, images, self._equalizable)[1]
        found = {name: np.ones_like(statistics[name].mean) for name in mixed}
        if relu6:  # the statistics and the gains from different images
            of_half = observe(self._content, images[::2], relu6)[1]
            found.update(least_noise_gains(graph, of_half, images[1::2][:MOST_PROBED]))
        linear = {name: statistics[name] for name in self._equalizable - mixed}
        statistics = {**statistics, **least_noise_channels(graph, probed, linear)}
        content, maps = equalized(self._content, statistics, found, centre="middle")
        content, names = rotated(TensorflowGraph(content), probed)
        ranges = activation_ranges(content, images)
        ranges = least_noise_ranges(TensorflowGraph(content), probed, ranges)
        return self._integer(content, ranges, {**maps, **dict.fromkeys(names)}, clip=True)

    def equal_weights(self, graph: TensorflowGraph | None, images: np.ndarray, *, strength: float) -> Candidate:
        """Rotated where the graph can be, and equalized for weights with one scale a tensor."""
        content, names = self._content, frozenset[str]()
        if graph is not None:
            content, names = rotated(graph, images[:MOST_PROBED])
        statistics = observe(content, images, self._equalizable | relu6_tensors(content))[1]
        gains = weight_gains(content, statistics, strength=strength, fixed=names)
        gains.update({name: np.ones_like(statistics[name].mean) for name in names})
        content, maps = equalized(content, statistics, gains)
        ranges, clip = activation_ranges(content, images), self._options.ranges == "mse"
        if clip and graph is not None and self._options.effort == "high":
            ranges = least_noise_ranges(TensorflowGraph(content), images[:MOST_PROBED], ranges)
        elif clip:
            ranges = clipped_ranges(content, images, ranges)
        return self._integer(content, ranges, {**maps, **dict.fromkeys(names)}, clip=clip)

    def _integer(
        self, content: bytes, ranges: Ranges, maps: Mapping[str, ChannelMap | None], *, clip: bool
    ) -> Candidate:
        """The integer file; `clip` lets one scale of a layer's weights clip some of them."""
        weights = self._options.weights
        integer = full_integer(content, ranges, self._input_range, by_channel=weights == "per_channel")
        if self._clustered:
            integer = with_shared_scales(content, integer)
        if weights != "per_channel" or self._options.effort == "high":
            narrow, powers_of_two = clip and not self._clustered, weights == "per_tensor_pow2"
            integer = with_fitted_scales(content, integer, narrow=narrow, powers_of_two=powers_of_two)
        return Candidate(content, integer, maps)
