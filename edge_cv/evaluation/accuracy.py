"""Accuracy of models on labelled images: top-1, top-5, agreement with a reference and SQNR of the logits.

A model is a .tflite or .onnx file with one input `(1, height, width, 3)`, RGB, and one output. Its input range is the
one in its metadata, else that of the caller's preprocessing. Among equal logits, which are frequent in int8, the lower
class is first. Probabilities are the softmax of the dequantized logits, or the sigmoid where images may have several
labels; only then are all outputs kept, else the five likeliest classes of each image. A single output decides between
two classes, at a probability of 0.5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.declared import NOTHING, Declaration
from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.parity import ratio_db
from edge_cv.evaluation import inference
from edge_cv.evaluation.chunk_results import ChunkResult, classify_chunk
from edge_cv.evaluation.confidence import Temperature, temperature_of
from edge_cv.evaluation.predictions import Predictions
from edge_cv.evaluation.remote import evaluating
from edge_cv.evaluation.runner_events import check_runtime
from edge_cv.evaluation.scores import Score
from edge_cv.intervals import wilson_interval

if TYPE_CHECKING:
    from edge_cv.data import Samples
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.parallel.ray_cluster import RayCluster


@dataclass(frozen=True)
class Evaluation:
    """The results of several models on the same images.

    Attributes:
        images: classified images.
        skipped: (file, reason) of each image that could not be read.
        scores: the score of each model, by name, in the order of the models.
        predictions: one for each classified image, in the order of the source.
        runtimes: the program that ran each model, such as "ai-edge-litert 2.3.0 XNNPACK".
        temperatures: the temperature that calibrates each model's confidence, by name; None where none can be fitted.
        error: why not all images were classified, if a device disconnected; else None.
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    scores: dict[str, Score]
    predictions: Predictions = field(repr=False)
    runtimes: dict[str, str]
    temperatures: dict[str, Temperature | None] = field(default_factory=dict)
    error: str | None = None


def evaluate(
    artifacts: Mapping[str, str | os.PathLike],
    source: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    reference: str | None = None,
    declaration: Declaration = NOTHING,
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    device: Ssh | Adb | None = None,
    journal: str | os.PathLike | None = None,
    runtime: str = "interpreter",
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classify images with several models, on all cores; each image is decoded once.

    Args:
        artifacts: model files, by the names that the results will have.
        source: the images. Labels are indices into the models' outputs. Images without a label, or with several, do not
            count for `top1` and `top5`.
        preprocessing: crop and size of the images. Default: those in the models' metadata.
        reference: name of the model that the others are compared with.
        declaration: what the caller says about files that do not declare it.
        limit: number of images to take, evenly spaced. Default: all.
        workers, cluster: number and place of the worker processes, as in `inference.run`.
        device: where the models run; the images are decoded on this machine in any case. Default: this machine.
        journal: a folder that keeps a device's results until all are complete. The next call resumes from there.
        runtime: as in `inference.run`.
        on_progress: called in this process with the numbers of finished and of all images.

    Returns:
        The evaluation. If a device disconnected, it holds the images finished until then, and an `error`.

    Raises:
        InputError: a model cannot be read or run or takes no RGB image, the models do not match one another, a label
            is not an index into the outputs, no image can be read, or a device fails before any image is finished.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more. Received: {limit}")
    samples, names, error = source.take(limit), tuple(artifacts), None
    if device is None:
        results, runtimes = inference.run(
            classify_chunk,
            artifacts,
            samples,
            preprocessing,
            reference=reference,
            declaration=declaration,
            workers=workers,
            cluster=cluster,
            runtime=runtime,
            on_progress=on_progress,
        )
    else:
        check_runtime(runtime, map(Path, artifacts.values()), here=False)
        results, runtimes, error = evaluating.run(
            device,
            artifacts,
            samples,
            preprocessing,
            reference=reference,
            declaration=declaration,
            journal=None if journal is None else Path(journal),
            on_progress=on_progress,
        )
        samples = samples.select(np.arange(sum(len(result.reasons) for result in results)))
    return replace(_evaluation(samples, names, reference, results, runtimes), error=error)


def _evaluation(
    samples: Samples,
    names: tuple[str, ...],
    reference: str | None,
    results: Sequence[ChunkResult],
    runtimes: dict[str, str],
) -> Evaluation:
    reasons = [reason for result in results for reason in result.reasons]  # None for a readable image
    skipped = tuple((str(samples.path(index)), reason) for index, reason in enumerate(reasons) if reason is not None)
    kept = [index for index, reason in enumerate(reasons) if reason is None]
    if not kept:
        raise InputError(f"no photo can be read: {skipped[0][1]} (and {len(skipped) - 1} more)")
    predictions = _predictions(samples.select(np.array(kept)), names, results)
    return Evaluation(
        len(kept),
        skipped,
        _scores(predictions, reference, results),
        predictions,
        runtimes,
        _temperatures(predictions, results),
    )


def _predictions(samples: Samples, names: tuple[str, ...], results: Sequence[ChunkResult]) -> Predictions:
    indices = np.concatenate([result.indices for result in results])
    probabilities = np.concatenate([result.probabilities for result in results])
    files = list(samples.paths())
    if not samples.multi_label:
        return Predictions(names, files, samples.labels, indices, probabilities)
    outputs = np.concatenate([result.outputs for result in results if result.outputs is not None])
    truth = np.zeros((len(samples), outputs.shape[2]), bool)
    truth[:, : len(samples.classes)] = samples.labels[:, : truth.shape[1]]
    return Predictions(names, files, np.full(len(samples), -1, np.int32), indices, probabilities, truth, outputs)


def _scores(predictions: Predictions, reference: str | None, results: Sequence[ChunkResult]) -> dict[str, Score]:
    images, labels = len(predictions), predictions.labels
    labelled = labels >= 0
    trials = int(labelled.sum())
    signal = _ordered_sum([result.signal for result in results])
    noise = _ordered_sum([result.noise for result in results])
    seconds = np.sum([result.seconds for result in results], axis=0)
    scores = {}
    for column, name in enumerate(predictions.names):
        hits = predictions.indices[labelled, column] == labels[labelled, None]
        top1_hits, top5_hits = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
        agreed = None
        if reference is not None:
            agreed = int(sum(result.agreed[:, column].sum() for result in results))
        scores[name] = Score(
            images=images,
            top1=top1_hits / trials if trials else None,
            top5=top5_hits / trials if trials else None,
            top1_ci95=wilson_interval(top1_hits, trials) if trials else None,
            agreement=None if agreed is None else agreed / images,
            agreement_ci95=None if agreed is None else wilson_interval(agreed, images),
            sqnr_db=_sqnr_db(float(signal), float(noise[column])),
            seconds_per_image=float(seconds[column]) / images,
        )
    return scores


def _temperatures(predictions: Predictions, results: Sequence[ChunkResult]) -> dict[str, Temperature | None]:
    labelled = predictions.labels >= 0
    losses = np.concatenate([result.losses for result in results])[labelled]
    scaled = np.concatenate([result.scaled for result in results])[labelled]
    right = predictions.indices[labelled, :, 0] == predictions.labels[labelled, None]
    return {
        name: temperature_of(losses[:, column], scaled[:, column], right[:, column])
        for column, name in enumerate(predictions.names)
    }


def _sqnr_db(signal: float, noise: float) -> float | None:
    """None without a reference (no signal) and for logits that equal the reference's (no noise)."""
    return ratio_db(signal, noise) if signal > 0 and noise > 0 else None


def _ordered_sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum over images; numpy's order of addition depends on their number only, not on the chunks."""
    return np.concatenate(parts).sum(axis=0)
