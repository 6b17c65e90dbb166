"""The int8 file of a float graph: equalized, ranges clipped, weights optimized, each kept only where it helps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converters.quantization.candidates import Candidate, best_candidate
from converters.quantization.clusters import has_clusters, with_shared_scales
from converters.quantization.equalization import equalizable, equalized
from converters.quantization.normalization import NormalizedGraph
from converters.quantization.ranges import ChannelStatistics, Ranges, activation_ranges, clipped_ranges, observe
from converters.quantization.relu6_gains import least_noise_gains, relu6_tensors
from converters.quantization.rewrite import full_integer
from converters.quantization.sensitivity import least_noise_channels, least_noise_ranges
from converters.quantization.tensorflow_graph import TensorflowGraph, tensorflow_graph
from converters.quantization.weight_equalization import weight_gains
from converters.tflite.channels import ChannelMap, with_channels

STRENGTHS = (1.0, 0.5)  # of the equalization of weights with one scale a tensor
MOST_PROBED = 96  # images that the sensitivities are measured on: more change nothing and take time


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
    if equalization and options.weights != "per_channel":
        shared = [functools.partial(making.equal_weights, strength=strength) for strength in STRENGTHS]
        candidates, compared = [*shared, *candidates], 3
    if equalization and clip and options.effort == "high":
        graph = tensorflow_graph(normalized.content, inputs)
        if graph is not None:
            candidates, compared = [functools.partial(making.least_noise, graph), *candidates], compared + 1
    content, chosen = best_candidate(
        candidates,
        inputs,
        method=options.correction,
        damping=options.damping,
        compared=compared,
        thorough=options.effort == "high",
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
        return self._integer(content, ranges, maps)

    def least_noise(self, graph: TensorflowGraph, images: np.ndarray) -> Candidate:
        """Equalized also through RELU6, with gains and ranges by their effect on the outputs."""
        relu6 = relu6_tensors(self._content)
        statistics = observe(self._content, images, self._equalizable | relu6)[1]
        centre = "mean"
        if self._options.weights != "per_channel":
            gains = weight_gains(self._content, statistics, strength=STRENGTHS[0])
        elif relu6:
            of_half = observe(self._content, images[::2], relu6)[1]
            gains = least_noise_gains(graph, of_half, images[1::2][:MOST_PROBED])
        else:
            gains = {}
        if self._options.weights == "per_channel":
            centre, linear = "middle", {name: statistics[name] for name in self._equalizable}
            statistics = {**statistics, **least_noise_channels(graph, images[:MOST_PROBED], linear)}
        content, maps = equalized(self._content, statistics, gains, centre=centre)
        ranges = activation_ranges(content, images)
        ranges = least_noise_ranges(TensorflowGraph(content), images[:MOST_PROBED], ranges)
        return self._integer(content, ranges, maps)

    def equal_weights(self, images: np.ndarray, *, strength: float) -> Candidate:
        """Equalized for weights with one scale a tensor."""
        statistics = observe(self._content, images, self._equalizable | relu6_tensors(self._content))[1]
        content, maps = equalized(self._content, statistics, weight_gains(self._content, statistics, strength=strength))
        ranges = clipped_ranges(content, images, activation_ranges(content, images))
        return self._integer(content, ranges, maps)

    def _integer(self, content: bytes, ranges: Ranges, maps: dict[str, ChannelMap]) -> Candidate:
        integer = full_integer(content, ranges, self._input_range, weights=self._options.weights)
        return Candidate(content, with_shared_scales(content, integer) if self._clustered else integer, maps)
