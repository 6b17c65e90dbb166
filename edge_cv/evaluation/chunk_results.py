"""The results of one chunk of images, from which an evaluation is summed up.

Each image's figures depend on that image only. The result of an evaluation is therefore the same for any number of
workers and any division into chunks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.decisions import OutputMeaning
from converters.errors import InputError
from converters.files import write_atomic
from edge_cv.evaluation import worker
from edge_cv.evaluation.confidence import TEMPERATURES
from edge_cv.evaluation.worker import Task

if TYPE_CHECKING:
    from edge_cv.data import Sample


@dataclass(frozen=True)
class ChunkResult:
    """The results of `a` models for the `n` readable images of a chunk.

    Attributes:
        reasons: for every image of the chunk None, or why it could not be read.
        indices, probabilities: the five likeliest classes, `(n, a, 5)`.
        outputs: all outputs `(n, a, classes)` where images may have several labels, else None.
        agreed: whether each model decides as the reference does, bool `(n, a)`; all true without a reference.
        losses, scaled: cross-entropy of the true class and probability of the first class with each of `TEMPERATURES`,
            `(n, a, 17)`; zeros for an image without a label.
        signal: sum of the squared reference logits, `(n,)`; zeros without a reference.
        noise: sum of the squared differences from them, `(n, a)`.
        seconds: time spent in inferences, `(a,)`.
    """

    reasons: tuple[str | None, ...]
    indices: np.ndarray
    probabilities: np.ndarray
    outputs: np.ndarray | None
    agreed: np.ndarray
    losses: np.ndarray
    scaled: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    seconds: np.ndarray

    def save(self, path: Path) -> None:
        """Write the attributes to an .npz file."""
        reasons = np.array([reason or "" for reason in self.reasons], np.str_)
        arrays = {name: value for name, value in vars(self).items() if name != "reasons" and value is not None}
        stream = io.BytesIO()
        np.savez(stream, reasons=reasons, **arrays)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> ChunkResult:
        """The result that `save` wrote; InputError for another file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            reasons = tuple(reason or None for reason in arrays.pop("reasons").tolist())
            return cls(reasons, **{"outputs": None, **arrays})
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} must be a partial result of an evaluation; delete its folder. Received: {error}"
            ) from error


def classify_chunk(task: Task, samples: Sequence[Sample]) -> ChunkResult:
    """Decode and classify a chunk, in a worker process."""
    pixels, reasons = worker.decode(task, samples)
    return result_of(task, samples, reasons, *worker.classify(task, pixels, worker.readable(samples, reasons)))


def result_of(
    task: Task,
    samples: Sequence[Sample],
    reasons: tuple[str | None, ...],
    logits: Sequence[np.ndarray],
    seconds: np.ndarray,
) -> ChunkResult:
    """The result of a chunk.

    Args:
        task: the models.
        samples: the chunk.
        reasons: for each sample None, or why it could not be read.
        logits: outputs `(n, outputs)` of each model for the n readable images.
        seconds: time that each model spent in inferences.
    """
    images = worker.readable(samples, reasons)
    multi_label = samples[0].label_set is not None
    meanings = [metadata.meaning for _, metadata in task.artifacts]
    best = [
        top5(
            values if multi_label else meaning.class_outputs(values),
            meaning.probabilities,
            multi_label or (meaning.independent and values.shape[1] > 1),
        )
        for values, meaning in zip(logits, meanings, strict=True)
    ]
    signal, noise = np.zeros(len(images)), np.zeros((len(images), len(logits)))
    agreed = np.ones((len(images), len(logits)), bool)
    if task.reference is not None:
        expected = logits[task.reference].astype(np.float64)
        signal = np.square(expected).sum(axis=1)
        noise = np.stack([np.square(expected - values).sum(axis=1) for values in logits], axis=1)
        agreed = _agreed(task.reference, logits, meanings, images)
    losses, scaled = at_temperatures(meanings, logits, images)
    return ChunkResult(
        reasons,
        indices=np.stack([indices for indices, _ in best], axis=1),
        probabilities=np.stack([probabilities for _, probabilities in best], axis=1),
        outputs=np.stack(logits, axis=1) if multi_label else None,
        agreed=agreed,
        losses=losses,
        scaled=scaled,
        signal=signal,
        noise=noise,
        seconds=seconds,
    )


def _agreed(
    reference: int, outputs: Sequence[np.ndarray], meanings: Sequence[OutputMeaning], images: Sequence[Sample]
) -> np.ndarray:
    """Whether each model decides as the reference does, bool `(n, a)`.

    The decision is the likeliest class where an image has one class. Where it may have several, or none is known and
    the outputs are sigmoids, it is a yes or no of each output.
    """
    single = np.array([image.label is not None for image in images], bool)
    multi_label = np.array([image.label_set is not None for image in images], bool)
    decided = []
    for values, meaning in zip(outputs, meanings, strict=True):
        likeliest = meaning.class_outputs(values).argmax(axis=1)
        each = values > meaning.threshold
        independent = multi_label | (~single & meaning.independent)
        decided.append((likeliest, each, independent))
    expected = decided[reference]
    columns = [
        np.where(independent, (each == expected[1]).all(axis=1), likeliest == expected[0])
        for likeliest, each, independent in decided
    ]
    return np.stack(columns, axis=1)


def at_temperatures(
    meanings: Sequence[OutputMeaning], outputs: Sequence[np.ndarray], images: Sequence[Sample]
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of the true class and probability of the first class for logits divided by each of `TEMPERATURES`.

    Args:
        meanings: of the outputs of the `a` models; several sigmoids are no distribution over classes and get zeros.
        outputs: outputs `(n, outputs)` of each model.
        images: the n images; one without a label gets zeros.

    Returns:
        Two float32 arrays `(n, a, 17)`.
    """
    shape = len(images), len(outputs), len(TEMPERATURES)
    losses, confidences = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    labels = [image.label for image in images if image.label is not None]
    rows = [row for row, image in enumerate(images) if image.label is not None]
    for column, (values, meaning) in enumerate(zip(outputs, meanings, strict=True)):
        if meaning.independent and values.shape[1] > 1:
            continue
        values = meaning.class_outputs(values)
        logits = np.log(values[rows].clip(1e-12)) if meaning.probabilities else values[rows]
        logits = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        true_logits = logits[range(len(rows)), labels]
        for index, temperature in enumerate(TEMPERATURES):
            sums = np.exp(logits / np.float32(temperature)).sum(axis=1)
            losses[rows, column, index] = np.log(sums) - true_logits / temperature
            confidences[rows, column, index] = 1 / sums
    return losses, confidences


def top5(outputs: np.ndarray, are_probabilities: bool, independent: bool) -> tuple[np.ndarray, np.ndarray]:
    """The five largest outputs of each image, likeliest class first, the lower index first among equal ones.

    Args:
        outputs: `(n, classes)`.
        are_probabilities: whether they are probabilities already; else they are logits.
        independent: whether logits become probabilities by the sigmoid; else by the softmax.

    Returns:
        Indices, int32, and probabilities, float32, both `(n, 5)`.
    """
    indices = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    if are_probabilities:
        return indices.astype(np.int32), np.take_along_axis(outputs, indices, axis=1).clip(0, 1).astype(np.float32)
    if independent:
        chosen = np.take_along_axis(outputs, indices, axis=1).astype(np.float64)
        return indices.astype(np.int32), (1 / (1 + np.exp(-chosen.clip(-700)))).astype(np.float32)
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return indices.astype(np.int32), np.take_along_axis(probabilities, indices, axis=1).astype(np.float32)
