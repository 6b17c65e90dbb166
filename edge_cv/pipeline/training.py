"""Training of a run's model: the network, the linear probe, the folds, and `fit`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.decisions import SIGMOID
from converters.errors import InputError
from edge_cv.pipeline.file_model import FileModel
from edge_cv.pipeline.folds import cross_validate, small_validation_note
from edge_cv.pipeline.inputs import training_photos
from edge_cv.pipeline.probe import fit_pipeline_probe
from edge_cv.progress import Progress
from edge_cv.recipe import Fit, Model, Recipe

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Samples
    from edge_cv.data.input_pipeline.batches import EvaluationBatches, SampleBatches
    from edge_cv.data.split import Splits
    from edge_cv.training import Fitted

OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingRun:
    """Everything that a training in a run's folder depends on.

    Attributes:
        recipe: names the model.
        settings: the recipe's part `fit`.
        photos: by use.
        folder: of checkpoints and logs.
        progress: shows what is being done.
        file_model: the recipe's model if that is a file.
        on_epoch: called with each epoch's figures.
    """

    recipe: Recipe
    settings: Fit
    photos: Splits
    folder: Path
    progress: Progress
    file_model: FileModel | None
    on_epoch: OnEpoch | None

    def train(self) -> tuple[keras.Model, dict[str, Any]]:
        """Train the model, beside its linear probe.

        Returns:
            The model, and the values to record about it: `labels`, `history`, `probe` and `notes`.
        """
        settings, photos, progress = self.settings, self.photos, self.progress
        with progress(f"building {self.recipe.model.name}"):
            import_keras()  # first, so that TensorFlow's native logs are suppressed
            from edge_cv.training.devices import join_hosts

            join_hosts()
            model = self._network()
        if self.file_model is not None:
            self.file_model.check_loss(training_photos(photos).multi_label)
        _check_compression(self.recipe, model, progress)
        recorded: dict[str, Any] = {
            "labels": list(training_photos(photos).classes),
            "activation": SIGMOID if training_photos(photos).multi_label else None,
        }
        probe = fit_pipeline_probe(model, photos, settings, model.preprocessing, progress)
        if probe is not None and settings.probe == "only":
            return model, {**recorded, "probe": probe.record(None)}
        if settings.folds is None:
            notes = small_validation_note(photos)
        else:
            notes = [cross_validate(photos, settings.folds, settings.seed, self._train_fold, progress)]
        fitted = self._fit(model, photos, self.folder, self.on_epoch)
        record = None if probe is None else probe.record(model)
        return model, {**recorded, "history": list(fitted.history), "probe": record, "notes": notes}

    def _network(self) -> keras.Model:
        """The model before its training."""
        import keras

        keras.utils.set_random_seed(self.settings.seed)
        if self.file_model is not None:
            return self.file_model.model
        return built(self.recipe.model, len(training_photos(self.photos).classes))

    def _train_fold(self, photos: Splits, number: int) -> Fitted:
        """Train a new model on the photos of one fold."""
        import keras

        model = self._network()
        if self.file_model is not None:
            model = keras.models.clone_model(model)
            model.set_weights(self.file_model.model.get_weights())
            model.preprocessing = self.file_model.preprocessing
        if self.settings.probe == "start":
            fit_pipeline_probe(model, photos, self.settings, model.preprocessing, self.progress)
        return self._fit(model, photos, self.folder / f"fold{number + 1}", None)

    def _fit(self, model: keras.Model, photos: Splits, folder: Path, on_epoch: OnEpoch | None) -> Fitted:
        import keras

        from edge_cv.training import fit

        settings, train = self.settings, training_photos(photos)
        keras.utils.set_random_seed(settings.seed)  # whatever was trained, or resumed, before
        teacher = None if settings.teacher is None else built(settings.teacher.model, len(train.classes))
        batches, validation = _batches_of_this_host(photos, settings, model.preprocessing)
        return fit(
            model,
            batches,
            settings,
            validation=validation,
            teacher=teacher,
            class_counts=_class_counts(train),
            folder=folder,
            progress=self.progress,
            on_epoch=on_epoch,
        )


def _check_compression(recipe: Recipe, model: keras.Model, progress: Progress) -> None:
    """Raise InputError before the training if the model cannot be compressed by the recipe's stages."""
    import keras

    if recipe.compression() and keras.backend.backend() == "tensorflow":  # compression needs TensorFlow
        from edge_cv.compression.compression_stages import check

        with progress("checking that the model can be compressed"):
            check(
                model,
                channel_prune=recipe.channel_prune,
                prune=recipe.prune,
                cluster=recipe.cluster,
                qat=recipe.qat,
            )


def _batches_of_this_host(
    photos: Splits, settings: Fit, preprocessing: Preprocessing
) -> tuple[SampleBatches, EvaluationBatches]:
    from edge_cv.training.devices import all_devices

    with all_devices() as devices:
        if settings.batch_size % devices.hosts:
            raise InputError(
                f"fit.batch_size must be a multiple of the {devices.hosts} hosts. Received: {settings.batch_size}"
            )
        return batches_of(photos, settings, preprocessing, devices.host_index, devices.hosts)


def batches_of(
    photos: Splits, settings: Fit, preprocessing: Preprocessing, host_index: int = 0, hosts: int = 1
) -> tuple[SampleBatches, EvaluationBatches]:
    """Training and validation batches of one host."""
    from edge_cv.data.input_pipeline.batches import evaluation_batches, sample_batches

    if photos.validation is None:
        raise InputError("a run that trains must have validation photos. Received: none")
    batch_size = settings.batch_size // hosts
    batches = sample_batches(
        training_photos(photos),
        image_size=(preprocessing.height, preprocessing.width),
        channels=preprocessing.channels,
        batch_size=batch_size,
        seed=settings.seed,
        augment=settings.augment,
        balanced=settings.balance == "sampling",
        shard_index=host_index,
        shard_count=hosts,
    )
    return batches, evaluation_batches(photos.validation, preprocessing, batch_size)


def built(part: Model, classes: int) -> Any:
    """The network that the part describes, with its weights."""
    from edge_cv import models

    import_keras()
    model = models.build(
        part.name,
        classes=classes,
        image_size=part.image_size,
        channels=part.channels,
        alpha=part.alpha,
        weights=part.weights,
        **part.options,
    )
    model.preprocessing = dataclasses.replace(model.preprocessing, **part.preprocessing)
    return model


def import_keras() -> Any:
    """Import Keras; if its backend is TensorFlow, import that first with its native logs suppressed."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        from converters.native_logs import import_tensorflow

        import_tensorflow()
    import keras

    return keras


def _class_counts(samples: Samples) -> Sequence[int] | None:
    from edge_cv.data import class_counts

    return None if samples.multi_label or not (samples.labels >= 0).any() else class_counts(samples).tolist()
