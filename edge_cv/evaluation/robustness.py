"""Accuracy on corrupted images: the fifteen common corruptions at five severities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError
from edge_cv.intervals import wilson_interval

if TYPE_CHECKING:
    import numpy as np

    from converters.declared import Declaration
    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Sample, Samples
    from edge_cv.evaluation.worker import Task
    from edge_cv.parallel.ray_cluster import RayCluster

SEVERITIES = 5
MAX_CORRUPTIONS = 100


@dataclass(frozen=True)
class Robustness:
    """Top-1 of one model on the same images, clean and corrupted. All shares are 0..1.

    The mean corruption error is 1 - accuracy, averaged over the severities and then over the corruptions. Unlike in
    Hendrycks and Dietterich (2019, https://arxiv.org/abs/1903.12261), each corruption's error is not divided by
    AlexNet's.

    Attributes:
        images: labelled images, each corrupted 15 x 5 times.
        clean: accuracy without corruption.
        clean_ci95: its 95 % interval.
        corruptions: names of the corruptions.
        accuracy: for each corruption the accuracy at severity 1 to 5.
        mean_corruption_error: see above.
        relative_corruption_error: the same minus the error without corruption.
    """

    images: int
    clean: float
    clean_ci95: tuple[float, float]
    corruptions: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]
    mean_corruption_error: float
    relative_corruption_error: float

    def __post_init__(self) -> None:
        if not 0 < len(self.corruptions) <= MAX_CORRUPTIONS or len(self.accuracy) != len(self.corruptions):
            raise InputError(
                f"each of the {len(self.corruptions)} corruptions must have accuracies. Received: {len(self.accuracy)}"
            )
        if any(len(shares) != SEVERITIES for shares in self.accuracy):
            raise InputError(f"a corruption must have an accuracy for each of {SEVERITIES} severities")

    def at_severity(self, severity: int) -> float:
        """Mean accuracy over the corruptions at severity 1 to 5; at 0, accuracy without corruption."""
        if severity == 0:
            return self.clean
        return sum(shares[severity - 1] for shares in self.accuracy) / len(self.accuracy)


def robustness(
    artifacts: Mapping[str, str | os.PathLike],
    source: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    declaration: Declaration | None = None,
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Robustness]:
    """Classify images without and with corruptions, on all cores; each image is decoded once.

    The seed of the corruptions is made from the file's name, so every model gets the same pixels in every run. An image
    takes 76 inferences of each model and, at 224 pixels, about 0.6 s of one core for the corruptions.

    Args:
        artifacts, preprocessing, declaration, workers, cluster, on_progress: as in `evaluate`.
        source: the images; those without a label are ignored.
        limit: number of images to take, evenly spaced. Default: all.

    Returns:
        The figures of each model, by name.

    Raises:
        InputError: as `evaluate`; no image has a label; the model's input is smaller than 32 pixels; the package with
            the corruptions is not installed.
    """
    import numpy as np

    from converters.declared import NOTHING
    from edge_cv.evaluation import inference

    check_measurable(source)
    samples = source.select(np.flatnonzero(source.labels >= 0)).take(limit)
    results, _ = inference.run(
        _classify_corrupted,
        artifacts,
        samples,
        preprocessing,
        declaration=declaration or NOTHING,
        chunk=1,  # an image takes as long as 76
        workers=workers,
        cluster=cluster,
        on_progress=on_progress,
    )
    hits = np.concatenate(results)  # (images, models, 76)
    if not len(hits):
        raise InputError(f"no photo of {source.name} can be read")
    return {name: _robustness_of(hits[:, column]) for column, name in enumerate(artifacts)}


def _robustness_of(hits: np.ndarray) -> Robustness:
    """The figures of one model from its hits, bool `(images, 76)`."""
    from edge_cv.data.corruptions import NAMES

    shares = hits.mean(axis=0)
    clean, corrupted = float(shares[0]), shares[1:].reshape(len(NAMES), SEVERITIES)
    error = float((1 - corrupted).mean())
    return Robustness(
        images=len(hits),
        clean=clean,
        clean_ci95=wilson_interval(int(hits[:, 0].sum()), len(hits)),
        corruptions=NAMES,
        accuracy=tuple(map(tuple, corrupted.tolist())),
        mean_corruption_error=error,
        relative_corruption_error=error - (1 - clean),
    )


def check_measurable(source: Samples) -> None:
    """Raise InputError if `robustness` would: no image has a label, or the package with the corruptions is missing."""
    from edge_cv.data.corruptions import check_installed

    check_installed()
    if source.multi_label or (source.labels < 0).all():
        raise InputError(
            "images must have one label each to measure accuracy on corrupted images. "
            f"Received: {len(source)} without one in {source.name}"
        )


def _classify_corrupted(task: Task, samples: Sequence[Sample]) -> np.ndarray:
    """Whether each readable image is classified correctly, bool `(images, models, 76)`: clean, then corrupted."""
    import zlib

    import numpy as np

    from edge_cv.data.corruptions import NAMES, corrupt
    from edge_cv.evaluation import worker

    pixels, reasons = worker.decode(task, samples)
    images = worker.readable(samples, reasons)
    hits = np.zeros((len(images), len(task.artifacts), 1 + len(NAMES) * SEVERITIES), bool)
    for index, image in enumerate(images):
        seed = zlib.crc32(os.fsencode(image.path.name))
        versions = [corrupt(pixels[index], name, 1 + level, seed=seed) for name in NAMES for level in range(SEVERITIES)]
        outputs, _ = worker.classify(task, np.stack([pixels[index], *versions]), [image] * (1 + len(versions)))
        for column, (values, (_, metadata)) in enumerate(zip(outputs, task.artifacts, strict=True)):
            hits[index, column] = metadata.meaning.class_outputs(values).argmax(axis=1) == image.label
    return hits
