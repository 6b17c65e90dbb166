"""The choice among candidate integer files: the first that clearly beats the plain one on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from converters.calibration import HELD_OUT, held_out
from converters.parity import sqnr_db
from converters.quantization.gptq import correct
from converters.quantization.walk import bytes_per_image
from converters.tflite.channels import ChannelMap
from converters.tflite.graph import Graph
from converters.tflite.runtime import predict

METHODS = ("gptq", "bias", "none")  # the most accurate first
MIN_IMAGES = 2 * HELD_OUT  # with fewer, one image would decide: the plain file is returned
MEMORY_BYTES = 1_000_000_000  # of activations held at once; models with larger ones are corrected on fewer images
# The least gain over the plain file: MARGIN_DB, and more where few images measure it. A smaller gain may be chance and
# a loss on other images. Where correction works, it gains about 5 dB.
MARGIN_DB, MARGIN_OF_FEW_DB = 1.5, 4.0
HOPELESS_DB = 1.0  # a candidate that is worse than the plain file by more, before correction, is not corrected
DAMPINGS = (4.0, 16.0)  # tried in this order
THOROUGH_DAMPINGS = (4.0, 16.0, 64.0)  # all tried


@dataclass(frozen=True)
class Candidate:
    """An integer file, and the float graph that it was made from. Tensors are matched by name.

    Attributes:
        float_content: the float graph.
        content: the integer file; its input tensor's scale and zero point define its input's integers.
        channels: how equalization mapped the float graph's channels, by name of tensor.
    """

    float_content: bytes
    content: bytes
    channels: Mapping[str, ChannelMap] = field(default_factory=dict)


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
        thorough: whether all of `THOROUGH_DAMPINGS` are tried as well.

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
    best: tuple[float, bytes, Candidate] | None = None
    for place, make in enumerate(candidates):
        if best is not None and place >= compared:
            break
        candidate = plain if make is candidates[-1] else make(given)
        if candidate.content in seen or score(candidate.content) < least - HOPELESS_DB:
            continue
        seen.add(candidate.content)
        dampings = THOROUGH_DAMPINGS if thorough else DAMPINGS
        for correction, factor in _corrections(method, dampings if damping is None else (damping,)):
            content = _corrected(candidate, given, correction, factor)
            reached = score(content)
            if reached > (enough if best is None else best[0]):
                best = reached, content, candidate
            if best is not None and not (thorough and correction == "gptq"):
                break
    if best is not None:
        return best[1:]
    plain = candidates[-1](inputs)
    return plain.content, plain


def _corrections(method: str, dampings: Sequence[float]) -> list[tuple[str, float | None]]:
    """The corrections to try, with GPTQ's damping, from `method` to weaker ones."""
    corrections: list[tuple[str, float | None]] = [("gptq", factor) for factor in dampings]
    corrections += [("bias", None), ("none", None)]
    return [pair for pair in corrections if METHODS.index(pair[0]) >= METHODS.index(method)]


def _corrected(candidate: Candidate, inputs: np.ndarray, correction: str, damping: float | None) -> bytes:
    if correction == "none":
        return candidate.content
    images = inputs[: max(1, MEMORY_BYTES // bytes_per_image(Graph(candidate.float_content)))]
    return correct(candidate.float_content, candidate.content, images, damping=damping)
