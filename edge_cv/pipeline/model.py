"""The model of a run: built, or trained, and saved in the run's folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.files import beside, write_atomic
from edge_cv.pipeline.file_model import FileModel, check_trainable
from edge_cv.pipeline.inputs import samples_key, training_photos
from edge_cv.pipeline.training import OnEpoch, TrainingRun, batches_of, built, import_keras
from edge_cv.progress import Progress
from edge_cv.recipe import FIELDS_WITHOUT_EFFECT, Fit, Output, Recipe
from edge_cv.stages import Steps, fingerprint

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from converters.sources import Source
    from edge_cv.compression.compression_stages import StageResult
    from edge_cv.data.split import Splits

TRAINING = "training"  # the folder of checkpoints and logs, within the run's


class RunModel:
    """A Keras model in the run's folder. It is built or loaded only when a step needs it.

    Attributes:
        name: of the file, without `.keras`.
        preprocessing: how a photo becomes the model's input.
        parameters: number of trainable parameters.
        labels: the class names in order; None if they are not known.
        sha256: of the file.
        history: one entry an epoch of its training; empty for a model that was not trained here.
        probe: the fields of the report's `ProbeResult`; None without a linear probe.
        notes: sentences about the training, for the report.
        activation: `sigmoid` where an image may have several labels, else None; see `Source`.
    """

    def __init__(self, name: str, steps: Steps, inputs: Any, make: Callable[[], tuple[Any, dict[str, Any]]]) -> None:
        """
        Args:
            name: of the file and of the cached step.
            steps: of the run.
            inputs: what the model depends on, as JSON values.
            make: builds the model; returns it with the values to record about it (`labels`, `history`).
        """
        from converters.images.preprocessing import Preprocessing

        self.name = name
        self.path = steps.folder / f"{name}.keras"
        self._make = make
        self._made: keras.Model | None = None
        record, files = steps.cached(name, inputs, self._work)
        self.preprocessing: Preprocessing = Preprocessing.from_dict(record["preprocessing"])
        self.parameters: int = record["parameters"]
        self.labels: list[str] | None = record["labels"]
        self.history: list[dict[str, Any]] = record["history"]
        self.probe: dict[str, Any] | None = record.get("probe")
        self.notes: list[str] = record.get("notes", [])
        self.activation: str | None = record.get("activation")
        self.sha256 = files[self.path.name]

    def _work(self) -> tuple[Any, list[Path]]:
        model, recorded = self._make()
        record = {
            "file": self.path.name,
            "name": model.name,
            "preprocessing": model.preprocessing.to_dict(),
            "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
            "labels": None,
            "history": [],
            "probe": None,
            "notes": [],
            **recorded,
        }
        with beside(self.path) as temporary:
            model.save(temporary)
        write_atomic(self.path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
        self._made = model
        return record, [self.path]

    @functools.cached_property
    def source(self) -> Source:
        """The model as `converters` takes it."""
        from converters.sources import open_source

        return dataclasses.replace(open_source(self.model), activation=self.activation)

    @functools.cached_property
    def model(self) -> keras.Model:
        """The Keras model."""
        from converters.sources import load

        return self._made if self._made is not None else load(self.path)


@dataclass(frozen=True)
class CompressedModel:
    """The model that a stage of compression made. It is converted and measured like the dense model.

    Attributes:
        stage: the result of the stage.
        dense: the model that was compressed.
    """

    stage: StageResult
    dense: DenseModel

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def sha256(self) -> str:
        return self.stage.sha256

    @property
    def parameters(self) -> int | None:
        return self.stage.parameters

    @property
    def preprocessing(self) -> Preprocessing:
        return self.dense.preprocessing

    @property
    def labels(self) -> list[str] | None:
        return self.dense.labels

    @functools.cached_property
    def source(self) -> Source:
        """The model as `converters` takes it."""
        from converters.sources import open_source

        activation = None if isinstance(self.dense, FileModel) else self.dense.activation
        return dataclasses.replace(open_source(self.stage.model), activation=activation)


DenseModel = RunModel | FileModel
Convertible = DenseModel | CompressedModel


def build_or_train(
    recipe: Recipe,
    photos: Splits,
    steps: Steps,
    progress: Progress,
    *,
    file_model: FileModel | None = None,
    on_epoch: OnEpoch | None = None,
) -> DenseModel:
    """The recipe's model: trained if the recipe has a part `fit`, else built, or the file as it is.

    Args:
        recipe: names the model and how it is trained.
        photos: by use.
        steps: of the run.
        progress: shows what is being done.
        file_model: the recipe's model if that is a file.
        on_epoch: called with each epoch's figures of a training.

    Raises:
        InputError: the model cannot be built or trained.
    """
    if file_model is not None:
        file_model.save_record(steps)
        file_model.labels = file_model.labels or _class_names(photos, file_model.classes)
    if recipe.fit is not None:
        return _train(recipe, recipe.fit, photos, steps, progress, file_model, on_epoch)
    return file_model if file_model is not None else _build(recipe, steps, progress)


def _class_names(photos: Splits, classes: int) -> list[str] | None:
    """The photos' class names, if there are as many as the model has outputs."""
    names = (photos.test if photos.train is None else photos.train).classes
    return list(names) if len(names) == classes else None


def _build(recipe: Recipe, steps: Steps, progress: Progress) -> RunModel:
    from edge_cv.models import IMAGENET_CLASSES

    classes = recipe.model.classes or IMAGENET_CLASSES

    def make() -> tuple[Any, dict[str, Any]]:
        with progress(f"building {recipe.model.name}"):
            import_keras().utils.set_random_seed(Fit().seed)  # of random weights, and of what its dropout draws
            return built(recipe.model, classes), {"labels": _imagenet_names(classes)}

    return RunModel("model", steps, _inputs(recipe), make)


def _train(
    recipe: Recipe,
    settings: Fit,
    photos: Splits,
    steps: Steps,
    progress: Progress,
    file_model: FileModel | None,
    on_epoch: OnEpoch | None,
) -> RunModel:
    train = training_photos(photos)
    if file_model is not None:
        check_trainable(file_model)
    how = recipe.to_dict()["fit"]
    for name in FIELDS_WITHOUT_EFFECT:
        del how[name]
    inputs = [_inputs(recipe, file_model), [samples_key(train), samples_key(photos.validation)], how]
    # The key depends on the inputs only: a newer version of this program resumes a training that an older one began.
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def make() -> tuple[Any, dict[str, Any]]:
        job = TrainingRun(recipe, settings, photos, steps.folder / TRAINING / key, progress, file_model, on_epoch)
        return job.train()

    return RunModel("model", steps, inputs, make)


def compressed_models(
    recipe: Recipe,
    photos: Splits,
    dense: DenseModel,
    steps: Steps,
    progress: Progress,
    *,
    settings: Fit | None = None,
) -> tuple[CompressedModel, ...]:
    """The models that the recipe's stages of compression make, in order; none for a recipe without a stage.

    Args:
        recipe: names the stages.
        photos: by use.
        dense: the model to compress.
        steps: of the run.
        progress: shows what is being done.
        settings: the batches to fine-tune on; None is the recipe's `fit`.
    """
    if not recipe.compression():
        return ()
    from edge_cv.compression.compression_stages import compress

    if isinstance(dense, FileModel):
        check_trainable(dense)
    settings = settings or recipe.fit or Fit()
    batches, _ = batches_of(photos, settings, dense.preprocessing)
    key = [
        samples_key(training_photos(photos)),
        [asdict(settings.augment), settings.seed, settings.batch_size, settings.balance],
    ]
    results = compress(
        dense.model,
        batches,
        steps.folder,
        channel_prune=recipe.channel_prune,
        prune=recipe.prune,
        cluster=recipe.cluster,
        qat=recipe.qat,
        key=key,
        progress=progress,
    )
    return tuple(CompressedModel(result, dense) for result in results)


def model_of_output(
    recipe: Recipe, dense: DenseModel, compressed: Sequence[CompressedModel]
) -> dict[Output, Convertible]:
    """The model that each of the recipe's outputs is converted from, in the order of the report's rows."""
    by_stage: dict[str, Convertible] = {"": dense}
    by_stage.update({model.name: model for model in compressed})
    return {output: by_stage[output.stage] for output in recipe.outputs()}


def _inputs(recipe: Recipe, file_model: FileModel | None = None) -> dict[str, Any]:
    from edge_cv.models.keras_files import check_path

    inputs: dict[str, Any] = {"model": recipe.to_dict()["model"]}
    if file_model is not None:
        inputs["file"] = file_model.sha256
    teacher = None if recipe.fit is None else recipe.fit.teacher
    for part in (recipe.model, *(() if teacher is None else (teacher.model,))):
        if part.weights not in (None, "imagenet"):
            inputs.setdefault("weights", []).append(fingerprint([check_path(part.weights)]))
    return inputs


def _imagenet_names(classes: int) -> list[str] | None:
    from edge_cv.data import imagenet_labels
    from edge_cv.models import IMAGENET_CLASSES

    return [label.name for label in imagenet_labels()] if classes == IMAGENET_CLASSES else None
