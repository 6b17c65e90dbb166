"""Channel pruning: remove the least important channels, so that a smaller and faster dense model remains.

`channel_graph` finds the channels that depend on each other, `channel_selection` chooses among them, and
`channel_removal` rebuilds the model. The papers are named there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import InputError
from edge_cv.compression.channel_graph import ChannelGraph
from edge_cv.compression.channel_removal import without_channels
from edge_cv.compression.channel_selection import select_channels
from edge_cv.compression.channel_sensitivity import channel_sensitivity
from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.reconstruction import reconstruct
from edge_cv.progress import silent

if TYPE_CHECKING:
    import keras
    import numpy as np

    from edge_cv.data.input_pipeline.batches import Batches
    from edge_cv.progress import Progress
    from edge_cv.recipe import ChannelPrune

LATENCY_RUNS = 60  # single inferences per candidate
LATENCY_STEPS = 6  # bisections of the share of MACs


def remove_channels(
    model: keras.Model, keep: float, *, importance: str | np.ndarray = "batch_norm", exclude: Sequence[str] = ()
) -> keras.Model:
    """Remove the least important channels until the MACs fall to a share of the original. Nothing is trained.

    If all removed channels are zero, the outputs stay equal.

    Args:
        model: a Keras 3 model; it is not changed.
        keep: share of multiply-accumulates that may remain, above 0 and under 1.
        importance: `batch_norm` or `l1`, see `ChannelPrune`; or the result of `channel_sensitivity`.
        exclude: patterns of names of layers that keep all their output channels.

    Returns:
        The smaller model.

    Raises:
        InputError: if the share cannot be reached, there is nothing to remove, or the model is not supported.
    """
    graph = ChannelGraph(model, exclude)
    return without_channels(model, graph, select_channels(graph, keep, importance, model.name))


def channel_prune(
    model: keras.Model,
    part: ChannelPrune,
    batches: Batches,
    *,
    teacher: keras.Model | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> keras.Model:
    """Remove channels, reconstruct the outputs of the remaining ones, and fine-tune the smaller model.

    Args:
        model: a Keras 3 model; it is not changed.
        part: the target, the measure of importance and the excluded layers.
        batches: images for fine-tuning.
        teacher: model for distillation; None is `model`.
        folder: where the fine-tuning saves its state, and from which it resumes.
        progress: reports the steps.

    Returns:
        The smaller model.

    Raises:
        InputError: as `remove_channels`, or if the target latency cannot be reached.
    """
    importance = _importance(model, part, batches, progress)
    keep = _keep_for_latency(model, part, importance, progress) if part.target == "latency" else part.keep
    graph = ChannelGraph(model, part.exclude)
    removed = select_channels(graph, keep, importance, model.name)
    smaller = without_channels(model, graph, removed)
    kept = {name: graph.kept_positions(layer.outputs, removed) for name, layer in graph.layers.items()}
    reconstruct(smaller, model, batches, kept=kept, progress=progress)
    fine_tune(
        smaller,
        batches,
        part.fine_tuning,
        steps=part.steps(len(batches)),
        teacher=teacher or model,
        folder=folder,
        title="fine-tuning without the removed channels",
        progress=progress,
    )
    if not part.fine_tuning.freeze_statistics:
        update_statistics(smaller, batches)
    return smaller


def _importance(
    model: keras.Model, part: ChannelPrune, batches: Batches, progress: Progress | None
) -> str | np.ndarray:
    if part.importance != "sensitivity":
        return part.importance
    with (progress or silent)("measuring how much the outputs depend on each channel"):
        return channel_sensitivity(model, ChannelGraph(model, part.exclude), batches)


def _keep_for_latency(
    model: keras.Model, part: ChannelPrune, importance: str | np.ndarray, progress: Progress | None
) -> float:
    """Bisect for the largest share of MACs whose measured latency is within the part's share of the original."""
    from converters import to_tflite

    low, high = 0.0, 1.0
    reached: float | None = None
    with tempfile.TemporaryDirectory() as folder, (progress or silent)("searching for the share of MACs") as update:
        dense = Path(folder, "dense.tflite")
        dense.write_bytes(to_tflite(model, "float32").content)
        for step in range(LATENCY_STEPS):
            share = part.keep if step == 0 else (low + high) / 2
            try:
                smaller = remove_channels(model, share, importance=importance, exclude=part.exclude)
            except InputError:
                if step == 0 or high - low < 0.05:
                    raise
                low = share
                continue
            if _latency_ratio(dense, smaller) <= part.keep:
                low = reached = share
            else:
                high = share
            update(step + 1, LATENCY_STEPS)
    if reached is None:
        raise InputError(f"ChannelPrune.keep={part.keep:g} of the latency could not be reached on this machine")
    return reached


def _latency_ratio(dense: Path, smaller: keras.Model) -> float:
    """Median latency of a smaller model relative to the dense one, measured alternately with one thread."""
    from converters import to_tflite
    from edge_cv.evaluation import measure_in_turns

    candidate = dense.with_name("candidate.tflite")
    candidate.write_bytes(to_tflite(smaller, "float32").content)
    measured = measure_in_turns({"dense": dense, "candidate": candidate}, threads=(1,), runs=LATENCY_RUNS)
    return measured["candidate"].latency[0].p50_ms / measured["dense"].latency[0].p50_ms
