"""How much of an artifact's accuracy is left on corrupted photos: the fifteen common corruptions at five severities."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import InputError
from edge_cv.evaluation.scores import wilson_interval

if TYPE_CHECKING:
    import numpy as np

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Sample, Samples
    from edge_cv.evaluation.inference import Task
    from edge_cv.parallel.ray_cluster import RayCluster

SEVERITIES = 5


@dataclass(frozen=True)
class Robustness:
    """Top-1 of one artifact on the same photos, clean and corrupted. All shares are 0..1.

    The mean corruption error is 1 - accuracy, averaged over the severities and then over the corruptions. Hendrycks and
    Dietterich (2019, https://arxiv.org/abs/1903.12261) divide each corruption's error by AlexNet's first; this one is
    not divided.

    Attributes:
        images: labelled photos, each corrupted 15 x 5 times.
        clean: accuracy on them as they are.
        clean_ci95: its 95 % interval.
        corruptions: their names.
        accuracy: for each corruption the accuracy at severity 1 to 5.
        mean_corruption_error: see above.
        relative_corruption_error: the same less the error on the clean photos: what the corruptions cost.
    """

    images: int
    clean: float
    clean_ci95: tuple[float, float]
    corruptions: tuple[str, ...]
    accuracy: tuple[tuple[float, ...], ...]
    mean_corruption_error: float
    relative_corruption_error: float

    def __post_init__(self) -> None:
        if not self.corruptions or len(self.accuracy) != len(self.corruptions):
            raise InputError(f"each of the {len(self.corruptions)} corruptions must have its accuracies")
        if any(len(shares) != SEVERITIES for shares in self.accuracy):
            raise InputError(f"a corruption must have an accuracy for each of {SEVERITIES} severities")

    def at_severity(self, severity: int) -> float:
        """Mean accuracy over the corruptions at severity 1 to 5; the clean one at 0."""
        if severity == 0:
            return self.clean
        return sum(shares[severity - 1] for shares in self.accuracy) / len(self.accuracy)


def robustness(
    artifacts: Mapping[str, str | os.PathLike],
    source: Samples,
    preprocessing: Preprocessing | None = None,
    *,
    limit: int | None = None,
    workers: int | None = None,
    cluster: RayCluster | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Robustness]:
    """Classifies photos clean and corrupted, on all cores, decoding each once.

    The corruptions are drawn from a seed made of the file's name: every artifact sees the same pixels, in every run. A
    photo takes 76 inferences of each artifact and, at 224 pixels, some 0.6 s of a core for the corruptions.

    Args:
        artifacts, preprocessing, workers, cluster, on_progress: as `evaluate` takes them.
        source: the photos; those without a label are left out.
        limit: take only so many of them, spread evenly over the source.

    Returns:
        The figures of each artifact, by its name.

    Raises:
        InputError: as `evaluate`; no photo has a label; the model's input is smaller than 32 pixels; the package that
            corrupts is not installed.
    """
    import numpy as np

    from edge_cv.data.corruptions import NAMES
    from edge_cv.evaluation import inference

    check_measurable(source)
    photos = source.select(np.flatnonzero(source.labels >= 0)).take(limit)
    results, _ = inference.run(
        _classify_corrupted,
        artifacts,
        photos,
        preprocessing,
        chunk=1,  # a photo takes as long as 76
        workers=workers,
        cluster=cluster,
        on_progress=on_progress,
    )
    hits = np.concatenate(results)  # (photos, artifacts, 1 + corruptions x severities)
    if not len(hits):
        raise InputError(f"no photo of {source.name} can be read")
    found = {}
    for column, name in enumerate(artifacts):
        shares = hits[:, column].mean(axis=0)
        clean, corrupted = float(shares[0]), shares[1:].reshape(len(NAMES), SEVERITIES)
        error = float((1 - corrupted).mean())
        found[name] = Robustness(
            images=len(hits),
            clean=clean,
            clean_ci95=wilson_interval(int(hits[:, column, 0].sum()), len(hits)),
            corruptions=NAMES,
            accuracy=tuple(map(tuple, corrupted.tolist())),
            mean_corruption_error=error,
            relative_corruption_error=error - (1 - clean),
        )
    return found


def check_measurable(source: Samples) -> None:
    """Raise InputError where `robustness` could not measure: no photo has a label, or a package is missing."""
    from edge_cv.data.corruptions import check_installed

    check_installed()
    if source.multi_label or (source.labels < 0).all():
        raise InputError(
            "photos must have a label each to measure accuracy under corruptions. "
            f"Received: {len(source)} without one in {source.name}"
        )


def _classify_corrupted(task: Task, photos: Sequence[Sample]) -> np.ndarray:
    """Whether each photo that can be read is recognized, bool `(photos, artifacts, 76)`: clean, then corrupted."""
    import zlib

    import numpy as np

    from edge_cv.data.corruptions import NAMES, corrupt
    from edge_cv.evaluation import inference

    pixels, reasons = inference.decode(task, photos)
    read = [photo for photo, reason in zip(photos, reasons, strict=True) if reason is None]
    hits = np.zeros((len(read), len(task.artifacts), 1 + len(NAMES) * SEVERITIES), bool)
    for place, photo in enumerate(read):
        seed = zlib.crc32(photo.path.name.encode())
        versions = [corrupt(pixels[place], name, 1 + level, seed=seed) for name in NAMES for level in range(SEVERITIES)]
        outputs, _ = inference.classify(task, np.stack([pixels[place], *versions]), [photo] * (1 + len(versions)))
        hits[place] = [values.argmax(axis=1) == photo.label for values in outputs]
    return hits
