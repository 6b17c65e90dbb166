"""The choice among candidate integer files: the first that clearly beats the plain one on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from converters.calibration import HELD_OUT, held_out
from converters.memory import return_freed_memory
from converters.parity import sqnr_db
from converters.quantization.gptq import correct
from converters.quantization.walk import bytes_per_image
from converters.tflite.channels import ChannelMap
from converters.tflite.graph import WEIGHTED, Graph
from converters.tflite.runtime import predict

METHODS = ("gptq", "bias", "none")  # the most accurate first
MIN_IMAGES = 2 * HELD_OUT  # with fewer, one image would decide: the plain file is returned
MEMORY_BYTES = 1_200_000_000  # of activations held at once; models with larger ones are corrected on fewer images
# The least gain over the plain file: MARGIN_DB, and more where few images measure it. A smaller gain may be chance and
# a loss on other images. Where correction works, it gains about 5 dB.
MARGIN_DB, MARGIN_OF_FEW_DB = 1.5, 4.0
# A candidate that is worse than the plain file by more, before correction, is only corrected with thorough effort.
HOPELESS_DB = 1.0
# How much better a later candidate than the best so far must be, or how much worse mirror images: less may be chance.
CLEARLY_DB = 0.7
DAMPINGS = (4.0, 16.0)  # tried in this order
MIRRORED_DAMPING = 24.0  # of the images and their mirror images
MOST_RATIO = 256  # of the scales of a layer's input and weights to that of its output, in XNNPACK


@dataclass(frozen=True)
class Candidate:
    """An integer file, and the float graph that it was made from. Tensors are matched by name.

    Attributes:
        float_content: the float graph.
        content: the integer file; its input tensor's scale and zero point define its input's integers.
        channels: how equalization mapped the float graph's channels, by name of tensor; None where they are mixed.
    """

    float_content: bytes
    content: bytes
    channels: Mapping[str, ChannelMap | None] = field(default_factory=dict)


def best_candidate(
    candidates: Sequence[Callable[[np.ndarray], Candidate]],
    inputs: np.ndarray,
    *,
    method: str,
    damping: float | None,
    compared: int = 1,
    thorough: bool = False,
) -> tuple[bytes, Candidate]:
    """The first file that clearly beats the plain one on held-out images, or the best of several that do.

    Args:
        candidates: each makes a file of the same model from images; the most promising first, the plain one last.
        inputs: `(n, height, width, 3)` float32, the float graphs' input.
        method: the strongest correction that is tried: `gptq` (weights and biases), `bias` or `none`.
        damping: GPTQ's Hessian damping, see `correct`; None tries `DAMPINGS`.
        compared: how many of the first candidates are all tried, so that the best of them is taken.
        thorough: whether the chosen candidate is made again with all images and their mirror images; without these
            where they are clearly worse on the held-out images.

    Returns:
        The file, and the candidate that it was made from: corrected by the method or by a weaker one, or the plain
        file, made with all images. Operators, scales and size are the candidate's.
    """
    if len(inputs) < MIN_IMAGES:
        plain = candidates[-1](inputs)
        return plain.content, plain
    measured = held_out(len(inputs))
    given = inputs[~measured]
    plain = candidates[-1](given)
    reference = predict(plain.float_content, inputs[measured])

    def score(content: bytes) -> float:
        return sqnr_db(reference, predict(content, inputs[measured]))

    least = score(plain.content)
    enough = least + MARGIN_DB + MARGIN_OF_FEW_DB / measured.sum()
    seen = set()
    best: _Best | None = None
    for place, make in enumerate(candidates):
        if best is not None and place >= compared:
            break
        candidate = plain if make is candidates[-1] else make(given)
        if candidate.content in seen or not _is_accepted(candidate.content):
            continue
        if not thorough and score(candidate.content) < least - HOPELESS_DB:
            continue
        seen.add(candidate.content)
        for correction in _corrections(method, damping):
            content = _corrected(candidate, given, *correction)
            reached = score(content)
            if reached > (enough if best is None else best.score + CLEARLY_DB):
                best = _Best(reached, content, candidate, make, *correction)
            if best is not None:
                break
    if best is None:
        plain = candidates[-1](inputs)
        return plain.content, plain
    if thorough:
        mirrored = best.method, MIRRORED_DAMPING if damping is None else damping
        reached = score(_corrected(best.candidate, with_mirror_images(given), *mirrored))
        worse = reached < best.score - CLEARLY_DB
        images = inputs if worse else with_mirror_images(inputs)
        return_freed_memory()
        candidate = best.make(images)
        if _is_accepted(candidate.content):
            return _corrected(candidate, images, *((best.method, best.damping) if worse else mirrored)), candidate
    return best.content, best.candidate


@dataclass(frozen=True)
class _Best:
    """A corrected file, its SQNR on the held-out images, and how it was made."""

    score: float
    content: bytes
    candidate: Candidate
    make: Callable[[np.ndarray], Candidate]
    method: str
    damping: float | None


def with_mirror_images(images: np.ndarray) -> np.ndarray:
    """An even number of images, then their mirror images: the places of both are even, or odd."""
    even = images[: len(images) // 2 * 2]
    return np.concatenate([even, even[:, :, ::-1]])


def _is_accepted(content: bytes) -> bool:
    """Whether the runtime takes the scales of a file's layers: XNNPACK refuses a larger ratio, other kernels abort.

    Equalization makes it where channels are all but constant, as in networks of random weights.
    """
    graph = Graph(content)
    for operator in graph.operators():
        ends = [graph.quantization(tensor) for tensor in (*operator.inputs[:2], operator.outputs[0])]
        if operator.name in WEIGHTED and all(end is not None for end in ends):
            of_input, of_weights, of_output = (np.asarray(end[0], np.float64).max() for end in ends if end is not None)
            if of_input * of_weights >= MOST_RATIO * of_output:
                return False
    return True


def _corrections(method: str, damping: float | None) -> list[tuple[str, float | None]]:
    """The methods to try, from `method` to weaker ones, each with GPTQ's damping."""
    dampings = DAMPINGS if damping is None else (damping,)
    corrections = [*(("gptq", factor) for factor in dampings), ("bias", None), ("none", None)]
    return [c for c in corrections if METHODS.index(c[0]) >= METHODS.index(method)]


def _corrected(candidate: Candidate, inputs: np.ndarray, method: str, damping: float | None) -> bytes:
    if method == "none":
        return candidate.content
    most = max(1, MEMORY_BYTES // bytes_per_image(Graph(candidate.float_content)))
    damping = damping if method == "gptq" else None
    return correct(candidate.float_content, candidate.content, inputs[:most], damping=damping)
