"""The linear probe beside a fine-tuned model: both on the same test photos, which chose neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from edge_cv.intervals import wilson_interval
from edge_cv.pipeline.inputs import training_photos
from edge_cv.progress import Progress
from edge_cv.recipe import Fit

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Samples
    from edge_cv.data.input_pipeline.batches import EvaluationBatches
    from edge_cv.data.split import Splits
    from edge_cv.training.probe import Probe


@dataclass(frozen=True)
class PipelineProbe:
    """A probe on the untrained features of a run's model.

    Attributes:
        probe: the fitted probe.
        hits, images: test photos that it classifies correctly, and all that have a label.
        test: these photos.
    """

    probe: Probe
    hits: int
    images: int
    test: EvaluationBatches

    def record(self, model: keras.Model | None) -> dict[str, Any]:
        """The fields of `ProbeResult`, as JSON values.

        Args:
            model: the fine-tuned model, which is evaluated on the same photos; None if the probe itself is the model.
        """
        from edge_cv.training.features import compute_logits, count_hits

        probe = self.probe
        hits = None if model is None else count_hits(*compute_logits(model, self.test))[0]
        return {
            "images": self.images,
            "top1": self.hits / self.images,
            "top1_ci95": list(wilson_interval(self.hits, self.images)),
            "fine_tuned": None if hits is None else hits / self.images,
            "fine_tuned_ci95": None if hits is None else list(wilson_interval(hits, self.images)),
            "cross_validated": probe.cross_validated,
            "cross_validated_ci95": probe.cross_validated_ci95 and list(probe.cross_validated_ci95),
            "training_images": probe.images,
            "inverse_penalty": probe.inverse_penalty,
            "seconds": round(probe.seconds, 1),
        }


def fit_pipeline_probe(
    model: keras.Model, photos: Splits, settings: Fit, preprocessing: Preprocessing, progress: Progress
) -> PipelineProbe | None:
    """Fit the linear probe that the settings ask for, and give the model's head its weights if they say so.

    Args:
        model: with pretrained features; only its head is changed, and only by `start` and `only`.
        photos: by use.
        settings: `probe` decides what happens.
        preprocessing: of the model.
        progress: shows the steps.

    Returns:
        The probe; None without `settings.probe`, or if a probe that is only compared cannot be fitted.

    Raises:
        InputError: the probe is part of the model and cannot be fitted.
    """
    if settings.probe is None:
        return None
    from edge_cv.training.probe import MOST_IMAGES, assign_probe, check_installed, fit_probe, split_for_probe

    train, test = training_photos(photos).take(MOST_IMAGES), photos.test.take(MOST_IMAGES)
    try:
        check_installed()
        split = split_for_probe(model)
        _check_labels(train, test)
    except InputError as error:
        if settings.probe != "compare":
            raise
        with progress("linear probe") as update:
            update(1, 1, f"left out: {error}")
        return None
    with progress("fitting a linear probe on the frozen features") as update:
        probe = fit_probe(split, _batches(train, preprocessing), seed=settings.seed)
        batches = _batches(test, preprocessing)
        hits, images = probe.hits(split, batches)
        low, high = wilson_interval(hits, images)
        update(1, 1, f"{hits / images:.1%} ({100 * low:.1f} to {100 * high:.1f}) of {images} test photos")
    if settings.probe != "compare":
        assign_probe(split, probe)
    return PipelineProbe(probe, hits, images, batches)


def _check_labels(train: Samples, test: Samples) -> None:
    if train.multi_label or test.multi_label:
        raise InputError("a linear probe needs one label an image. Received: several")
    if (test.labels < 0).all():
        raise InputError("a linear probe needs labelled test photos. Received: none with a label")


def _batches(samples: Samples, preprocessing: Preprocessing) -> EvaluationBatches:
    from edge_cv.data.input_pipeline.batches import evaluation_batches

    return evaluation_batches(samples, preprocessing, 32)
