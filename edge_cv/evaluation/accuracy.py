"""What artifacts answer on labelled photos: top-1, top-5, agreement with a reference and what is left of its logits.

Each photo's figures are computed for itself, in worker processes (see `inference`), and summed in the source's order:
the result is the same for any number of workers.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from converters.files import write_atomic
from converters.images.preprocessing import Preprocessing
from converters.parity import ratio_db
from edge_cv.evaluation import inference
from edge_cv.evaluation.confidence import TEMPERATURES, Temperature, temperature_of
from edge_cv.evaluation.scores import Score, wilson_interval

if TYPE_CHECKING:
    from edge_cv.data import Sample, Samples
    from edge_cv.evaluation.remote import Adb, Ssh
    from edge_cv.parallel.ray_cluster import RayCluster


@dataclass(frozen=True)
class Prediction:
    """What every artifact said about one photo.

    Attributes:
        file: the photo.
        label: its true class, an index into the model's outputs; None when nobody said.
        top5: for each artifact's name the five likeliest classes, best first, as (index, probability 0..1).
        labels: its true classes, where a photo may show several.
    """

    file: Path
    label: int | None
    top5: dict[str, tuple[tuple[int, float], ...]]
    labels: tuple[int, ...] | None = None


class Predictions(Sequence[Prediction]):
    """The predictions in the source's order: a tuple to its users, 40 bytes an artifact and photo in memory.

    Attributes:
        names: of the artifacts.
        files: the photos that could be read.
        labels: their classes `(photos,)`, int32; -1 where nobody said.
        indices: classes `(photos, artifacts, 5)`, int32, likeliest first.
        probabilities: theirs, of the same shape, float32.
        truth: where a photo may show several classes, which it does: bool `(photos, classes)`; else None.
        outputs: then every artifact's `(photos, artifacts, classes)`, float32; else None.
    """

    def __init__(
        self,
        names: Sequence[str],
        files: Sequence[Path],
        labels: np.ndarray,
        indices: np.ndarray,
        probabilities: np.ndarray,
        truth: np.ndarray | None = None,
        outputs: np.ndarray | None = None,
    ) -> None:
        self.names, self.files = tuple(names), tuple(files)
        self.labels, self.indices, self.probabilities = labels, indices, probabilities
        self.truth, self.outputs = truth, outputs

    def answers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The first class of each photo and its probability, each `(photos,)`, as artifact `name` has them."""
        column = self.names.index(name)
        return self.indices[:, column, 0], self.probabilities[:, column, 0]

    def save(self, path: str | os.PathLike) -> None:
        """Write them as a compressed .npz: the attributes, by their names."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            names=np.array(self.names, dtype=np.str_),
            files=np.array([str(file) for file in self.files], dtype=np.str_),
            labels=self.labels,
            indices=self.indices,
            probabilities=self.probabilities,
            **({} if self.truth is None else {"truth": self.truth, "outputs": self.outputs}),
        )
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """The predictions that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            names, files = arrays["names"].tolist(), [Path(file) for file in arrays["files"].tolist()]
            several = [arrays[name] for name in ("truth", "outputs") if name in arrays]
            return cls(names, files, arrays["labels"], arrays["indices"], arrays["probabilities"], *several)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position):
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        label = int(self.labels[position])
        pairs = zip(self.indices[position].tolist(), self.probabilities[position].tolist(), strict=True)
        top5 = [tuple(zip(indices, probabilities, strict=True)) for indices, probabilities in pairs]
        return Prediction(
            self.files[position],
            label if label >= 0 else None,
            dict(zip(self.names, top5, strict=True)),
            None if self.truth is None else tuple(np.flatnonzero(self.truth[position]).tolist()),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905

    __hash__ = None


@dataclass(frozen=True)
class Evaluation:
    """How several artifacts did on the same photos.

    Attributes:
        images: photos that were classified.
        skipped: (file, why) of each photo that could not be read.
        scores: one for each artifact, by its name, in the order they were given.
        predictions: one for each classified photo, in the source's order.
        runtimes: what ran each artifact, e.g. "ai-edge-litert 2.3.0 XNNPACK".
        temperatures: what would make each artifact's confidences right, by its name; None where nothing can be said.
        error: why not all photos were classified, where a device went away in the middle.
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
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    device: Ssh | Adb | None = None,
    journal: str | os.PathLike | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Classifies the source's photos with every artifact, on all cores, decoding each photo once.

    An artifact is a .tflite or .onnx file with one input `(1, height, width, 3)`, RGB, and one output of logits. The
    range of its input is what its metadata says; without metadata it is `preprocessing.to_input`'s. Among equal logits
    (frequent in int8) the lower class comes first. Probabilities are the softmax of the dequantized logits, or
    the sigmoid where photos may show several classes. Only then all outputs are kept, else no more than five a photo.

    Args:
        artifacts: files by the names that the results will have.
        source: the photos. Labels are indices into the artifacts' outputs; photos without one, or with several, do not
            count for `top1` and `top5`.
        preprocessing: how a photo is resized and cropped. Default: as the artifacts' metadata say.
        reference: the name of the artifact that the others are compared with.
        limit: take only so many of the photos, spread evenly over the source.
        workers, cluster: how many processes, and where, as `inference.run` has them.
        device: where the artifacts run. Default: here. The photos are decoded here in any case.
        journal: a folder where what a device answered is kept until all of it is there; the next call goes on from it.
        on_progress: called with the numbers of photos done and of all photos, in this process.

    Returns:
        The evaluation; of the photos that were done and with an `error` where a device went away in the middle.

    Raises:
        InputError: an artifact cannot be read or run or takes no RGB image, the artifacts do not fit one another, a
            label is outside the outputs, no photo can be read, a device fails before anything was done.
    """
    photos = labelled_photos(source, limit)
    if device is not None:
        from edge_cv.evaluation.remote import evaluating

        folder = None if journal is None else Path(journal)
        results, runtimes, error = evaluating.run(
            device,
            _result,
            artifacts,
            photos,
            preprocessing,
            reference=reference,
            journal=folder,
            on_progress=on_progress,
        )
        done = sum(len(result.reasons) for result in results)
        evaluation = _summary(photos.select(np.arange(done)), tuple(artifacts), reference, results, runtimes)
        return replace(evaluation, error=error)
    results, runtimes = inference.run(
        _classify,
        artifacts,
        photos,
        preprocessing,
        reference=reference,
        workers=workers,
        cluster=cluster,
        on_progress=on_progress,
    )
    return _summary(photos, tuple(artifacts), reference, results, runtimes)


def labelled_photos(source: Samples, limit: int | None) -> Samples:
    """Those photos of the source that are measured on."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more. Received: {limit}")
    return source.take(limit)


def _summary(
    photos: Samples,
    names: tuple[str, ...],
    reference: str | None,
    results: Sequence[ChunkResult],
    runtimes: dict[str, str],
) -> Evaluation:
    reasons = [reason for result in results for reason in result.reasons]  # None for a photo that was read
    skipped = tuple((str(photos.path(index)), why) for index, why in enumerate(reasons) if why is not None)
    kept = np.array([index for index, why in enumerate(reasons) if why is None], np.int64)
    if not len(kept):
        raise InputError(f"no photo can be read: {skipped[0][1]} (and {len(skipped) - 1} more)")
    indices = np.concatenate([result.indices for result in results])
    probabilities = np.concatenate([result.probabilities for result in results])
    signal_sum = _ordered_sum([result.signal for result in results])
    noise_sum = _ordered_sum([result.noise for result in results])
    seconds = np.sum([result.seconds for result in results], axis=0)

    read = photos.select(kept)
    labels = np.full(len(kept), -1, np.int32) if read.multi_label else read.labels
    labelled = labels >= 0
    trials = int(labelled.sum())
    scores = {}
    for column, name in enumerate(names):
        hits = indices[labelled, column] == labels[labelled, None]
        top1_hits, top5_hits = int(hits[:, 0].sum()), int(hits.any(axis=1).sum())
        agreed = None
        if reference is not None:
            agreed = int((indices[:, column, 0] == indices[:, names.index(reference), 0]).sum())
        scores[name] = Score(
            images=len(kept),
            top1=top1_hits / trials if trials else None,
            top5=top5_hits / trials if trials else None,
            top1_ci95=wilson_interval(top1_hits, trials) if trials else None,
            agreement=None if agreed is None else agreed / len(kept),
            agreement_ci95=None if agreed is None else wilson_interval(agreed, len(kept)),
            sqnr_db=_sqnr_db(float(signal_sum), float(noise_sum[column])),
            seconds_per_image=float(seconds[column]) / len(kept),
        )
    losses, scaled = (np.concatenate([getattr(r, name) for r in results])[labelled] for name in ("losses", "scaled"))
    temperatures = {
        name: temperature_of(losses[:, column], scaled[:, column], indices[labelled, column, 0] == labels[labelled])
        for column, name in enumerate(names)
    }
    predictions = Predictions(names, list(read.paths()), labels, indices, probabilities)
    if read.multi_label:
        predictions.outputs = np.concatenate([result.outputs for result in results])
        predictions.truth = np.zeros((len(kept), predictions.outputs.shape[2]), bool)
        predictions.truth[:, : len(read.classes)] = read.labels[:, : predictions.truth.shape[1]]
    return Evaluation(len(kept), skipped, scores, predictions, runtimes, temperatures)


def _sqnr_db(signal: float, noise: float) -> float | None:
    """None without a reference (no signal) and for the reference's own logits (no noise)."""
    return ratio_db(signal, noise) if signal > 0 and noise > 0 else None


def _ordered_sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The sum over photos; numpy adds in an order that depends on the length only, never on the chunks."""
    return np.concatenate(parts).sum(axis=0)


@dataclass(frozen=True)
class ChunkResult:
    """For the n photos of a chunk that could be read, and a artifacts.

    Attributes:
        reasons: for every photo of the chunk why it could not be read, or None.
        indices, probabilities: the five likeliest classes, `(n, a, 5)`.
        outputs: all the outputs `(n, a, classes)` where photos may show several classes, else None.
        losses, scaled: cross-entropy of the true class and probability of the first at each of `TEMPERATURES`,
            `(n, a, 17)`; zeros for a photo without a label.
        signal: sum of the squared reference logits, `(n,)`; zeros without a reference.
        noise: sum of the squared differences from them, `(n, a)`.
        seconds: time in inferences, `(a,)`.
    """

    reasons: tuple[str | None, ...]
    indices: np.ndarray
    probabilities: np.ndarray
    outputs: np.ndarray | None
    losses: np.ndarray
    scaled: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    seconds: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the attributes as an .npz; a reason that is None as empty text."""
        reasons = np.array([reason or "" for reason in self.reasons], np.str_)
        arrays = {name: value for name, value in vars(self).items() if name != "reasons" and value is not None}
        stream = io.BytesIO()
        np.savez(stream, reasons=reasons, **arrays)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> ChunkResult:
        """What `save` wrote; raises InputError where it is something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            reasons = tuple(reason or None for reason in arrays.pop("reasons").tolist())
            return cls(reasons, **{"outputs": None, **arrays})
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} must be a part of an evaluation: delete its folder. Received: {error}") from error


def _classify(task: inference.Task, photos: Sequence[Sample]) -> ChunkResult:
    pixels, reasons = inference.decode(task, photos)
    read = [photo for photo, reason in zip(photos, reasons, strict=True) if reason is None]
    return _result(task, photos, reasons, *inference.classify(task, pixels, read))


def _result(
    task: inference.Task,
    photos: Sequence[Sample],
    reasons: tuple[str | None, ...],
    logits: Sequence[np.ndarray],
    seconds: np.ndarray,
) -> ChunkResult:
    read = [photo for photo, reason in zip(photos, reasons, strict=True) if reason is None]
    several = photos[0].label_set is not None
    best = [_top5(v, metadata.probabilities, several) for v, (_, metadata) in zip(logits, task.artifacts, strict=True)]
    signal_sums, noise_sums = np.zeros(len(read)), np.zeros((len(read), len(logits)))
    if task.reference is not None:
        expected = logits[task.reference].astype(np.float64)
        signal_sums = np.square(expected).sum(axis=1)
        noise_sums = np.stack([np.square(expected - values).sum(axis=1) for values in logits], axis=1)
    return ChunkResult(
        reasons,
        np.stack([indices for indices, _ in best], axis=1),
        np.stack([probabilities for _, probabilities in best], axis=1),
        np.stack(logits, axis=1) if several else None,
        *_scaled(task, logits, read),
        signal_sums,
        noise_sums,
        seconds,
    )


def _scaled(
    task: inference.Task, outputs: Sequence[np.ndarray], photos: Sequence[Sample]
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of the true class and probability of the first, for outputs divided by each of `TEMPERATURES`."""
    shape = len(photos), len(outputs), len(TEMPERATURES)
    losses, confidences = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rows = [row for row, photo in enumerate(photos) if photo.label is not None]
    labels = [photos[row].label for row in rows]
    for column, (values, (_, metadata)) in enumerate(zip(outputs, task.artifacts, strict=True)):
        logits = np.log(values[rows].clip(1e-12)) if metadata.probabilities else values[rows]
        logits = logits - logits.max(axis=1, keepdims=True, initial=-np.inf)
        own = logits[range(len(rows)), labels]
        for place, temperature in enumerate(TEMPERATURES):
            sums = np.exp(logits / np.float32(temperature)).sum(axis=1)
            losses[rows, column, place] = np.log(sums) - own / temperature
            confidences[rows, column, place] = 1 / sums
    return losses, confidences


def _top5(outputs: np.ndarray, are_probabilities: bool, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices and probabilities `(n, 5)` of the five largest of outputs `(n, classes)`; ties by the index."""
    indices = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    if are_probabilities:
        return indices.astype(np.int32), np.take_along_axis(outputs, indices, axis=1).clip(0, 1).astype(np.float32)
    if several:
        chosen = np.take_along_axis(outputs, indices, axis=1).astype(np.float64)
        return indices.astype(np.int32), (1 / (1 + np.exp(-chosen.clip(-700)))).astype(np.float32)
    powers = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return indices.astype(np.int32), np.take_along_axis(probabilities, indices, axis=1).astype(np.float32)
