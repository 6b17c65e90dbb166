"""The network of a run: built, trained where the recipe says so, and saved in the run's folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.files import beside, write_atomic
from edge_cv.progress import Progress
from edge_cv.recipe import Fit, Model, Recipe
from edge_cv.stages import Stages, fingerprint

if TYPE_CHECKING:
    from converters.images.preprocessing import Preprocessing
    from edge_cv.compression.compress import StageResult
    from edge_cv.data import Photo, Samples
    from edge_cv.data.split import Splits

TRAINING = "training"  # the folder of checkpoints and logs, within the run's


class RunModel:
    """A Keras model in the run's folder, which is built or loaded only when a stage needs it.

    Attributes:
        name: of the file, without `.keras`.
        preprocessing: what it sees of a photo.
        parameters: that can be trained.
        labels: its class names in order, where they are known.
        sha256: of the file.
        history: of its training, an entry an epoch; empty for one that was not trained here.
    """

    def __init__(
        self,
        name: str,
        stages: Stages,
        inputs: Any,
        make: Callable[[], tuple[Any, dict[str, Any]]],
    ) -> None:
        """
        Args:
            name: of the file and of the stage.
            stages: of the run.
            inputs: what the network depends on, as JSON takes it.
            make: the model and what there is to say of it (`labels`, `history`), when it has to be made.
        """
        from converters.images.preprocessing import Preprocessing

        self.name = name
        self.path = stages.folder / f"{name}.keras"
        self._make = make
        self._made: Any = None
        record, files = stages.once(name, inputs, self._work)
        self.preprocessing = Preprocessing.from_dict(record["preprocessing"])
        self.parameters: int = record["parameters"]
        self.labels: list[str] | None = record["labels"]
        self.history: list[dict[str, Any]] = record["history"]
        self.sha256 = files[self.path.name]

    def _work(self) -> tuple[Any, list[Path]]:
        model, said = self._make()
        record = {
            "file": self.path.name,
            "name": model.name,
            "preprocessing": model.preprocessing.to_dict(),
            "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
            "labels": None,
            "history": [],
            **said,
        }
        with beside(self.path) as temporary:
            model.save(temporary)
        write_atomic(self.path.with_suffix(".json"), json.dumps(record, indent=2) + "\n")
        self._made = model
        return record, [self.path]

    @functools.cached_property
    def source(self) -> Any:
        """The model as `converters` takes it."""
        from converters.sources.source import open_source

        return open_source(self.model)

    @functools.cached_property
    def model(self) -> Any:
        """The Keras model."""
        from converters.sources.source import load

        return self._made if self._made is not None else load(self.path)


def of(
    recipe: Recipe,
    shares: Splits,
    stages: Stages,
    progress: Progress,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> RunModel:
    """The recipe's network: trained where the recipe has a part `fit` (which `on_epoch` hears of), else as built."""
    if recipe.fit is None:
        return _untrained(recipe, stages, progress)
    return _trained(recipe, shares, stages, progress, on_epoch)


def _untrained(recipe: Recipe, stages: Stages, progress: Progress) -> RunModel:
    def make() -> tuple[Any, dict[str, Any]]:
        with progress(f"building {recipe.model.name}"):
            return _built(recipe.model, recipe.model.classes), {"labels": _imagenet_names(recipe.model.classes)}

    return RunModel("model", stages, _inputs(recipe), make)


def _trained(recipe: Recipe, shares: Splits, stages: Stages, progress: Progress, on_epoch: Any) -> RunModel:
    settings = recipe.fit
    how = recipe.to_dict()["fit"]
    del how["checkpoint_seconds"]  # which changes nothing of the result
    inputs = [_inputs(recipe), [samples_key(shares.train), samples_key(shares.validation)], how]
    # Of the inputs alone: a newer version of this program goes on with a training that an older one began.
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def make() -> tuple[Any, dict[str, Any]]:
        keras = _import_keras()

        from edge_cv.training import fit
        from edge_cv.training.devices import all_devices, join_hosts

        join_hosts()
        with progress(f"building {recipe.model.name}"):
            keras.utils.set_random_seed(settings.seed)
            model = _built(recipe.model, len(shares.train.classes))
            teacher = None
            if settings.teacher is not None:
                teacher = _built(settings.teacher.model, len(shares.train.classes))
        if recipe.compression() and keras.backend.backend() == "tensorflow":  # what compresses needs TensorFlow
            from edge_cv.compression.compress import check

            with progress("checking that it can be compressed so"):
                check(model, **recipe.compression())
        with all_devices() as devices:
            if settings.batch_size % devices.hosts:
                raise InputError(
                    f"fit.batch_size must be a multiple of the {devices.hosts} hosts. Received: {settings.batch_size}"
                )
            batches, validation = batches_of(shares, settings, model.preprocessing, devices.host_index, devices.hosts)
        fitted = fit(
            model,
            batches,
            settings,
            validation=validation,
            teacher=teacher,
            class_counts=_class_counts(shares.train),
            folder=stages.folder / TRAINING / key,
            progress=progress,
            on_epoch=on_epoch,
        )
        return model, {"labels": list(shares.train.classes), "history": list(fitted.history)}

    return RunModel("model", stages, inputs, make)


@dataclass(frozen=True)
class CompressedModel:
    """What a stage of compression made of a network; it is converted and measured as that is.

    Attributes:
        made: what the stage made.
        dense: the network that it was made of.
    """

    made: StageResult
    dense: RunModel

    @property
    def name(self) -> str:
        return self.made.name

    @property
    def sha256(self) -> str:
        return self.made.sha256

    @property
    def parameters(self) -> int:
        return self.made.parameters

    @property
    def preprocessing(self) -> Preprocessing:
        return self.dense.preprocessing

    @property
    def labels(self) -> list[str] | None:
        return self.dense.labels

    @functools.cached_property
    def source(self) -> Any:
        """The model as `converters` takes it."""
        from converters.sources.source import open_source

        return open_source(self.made.model)


def compressed(
    recipe: Recipe, shares: Splits, dense: RunModel, folder: Path, progress: Progress
) -> tuple[CompressedModel, ...]:
    """What the recipe's stages of compression make of its network, one after the other; nothing where it has none."""
    parts = recipe.compression()
    if not parts:
        return ()
    from edge_cv.compression.compress import compress

    settings = recipe.fit or Fit()
    batches, _ = batches_of(shares, settings, dense.preprocessing)
    fields = recipe.to_dict()["fit"] or {}
    key = [samples_key(shares.train), [fields.get(n) for n in ("augment", "seed", "batch_size", "balance")]]
    made = compress(dense.model, batches, folder, key=key, progress=progress, **parts)
    return tuple(CompressedModel(one, dense) for one in made)


def batches_of(
    shares: Splits, settings: Fit, preprocessing: Any, host_index: int = 0, hosts: int = 1
) -> tuple[Any, Any]:
    """Training and validation batches of one host."""
    from edge_cv.data.input_pipeline.batches import evaluation_batches, sample_batches

    batch_size = settings.batch_size // hosts
    batches = sample_batches(
        shares.train,
        image_size=preprocessing.image_size,
        batch_size=batch_size,
        seed=settings.seed,
        augment=settings.augment,
        balanced=settings.balance == "sampling",
        shard_index=host_index,
        shard_count=hosts,
    )
    return batches, evaluation_batches(shares.validation, preprocessing, batch_size)


def photos_key(photos: Sequence[Photo]) -> Any:
    """What tells these photos from others: their files' sizes and times, labels and parts."""
    # An archive's photos are told apart by their names, and by what the archive is as a whole.
    files = fingerprint(sorted({Path(getattr(photo.place, "path", photo.file)) for photo in photos}))
    return files, [(str(photo.file), photo.label, photo.labels, photo.box, photo.flip) for photo in photos]


@functools.lru_cache(maxsize=4)
def samples_key(samples: Samples) -> Any:
    """`photos_key` of samples, which several stages of a run depend on; it looks at every file, so once."""
    from edge_cv.data import photos_of

    return photos_key(photos_of(samples).photos)


def _inputs(recipe: Recipe) -> dict[str, Any]:
    inputs: dict[str, Any] = {"model": recipe.to_dict()["model"]}
    teacher = None if recipe.fit is None else recipe.fit.teacher
    for part in (recipe.model, *(() if teacher is None else (teacher.model,))):
        if part.weights not in (None, "imagenet") and Path(part.weights).is_file():
            inputs.setdefault("weights", []).append(fingerprint([Path(part.weights)]))
    return inputs


def _built(part: Model, classes: int) -> Any:
    from edge_cv import models

    _import_keras()
    model = models.build(
        part.name, classes=classes, image_size=part.image_size, alpha=part.alpha, weights=part.weights, **part.options
    )
    model.preprocessing = dataclasses.replace(model.preprocessing, **part.preprocessing)
    return model


def _import_keras() -> Any:
    """Keras, and before it TensorFlow without its remarks, where Keras would load it."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        from converters.native_logs import import_tensorflow

        import_tensorflow()
    import keras

    return keras


def _class_counts(samples: Samples) -> Sequence[int] | None:
    from edge_cv.data import class_counts

    return None if samples.multi_label else class_counts(samples).tolist()


def _imagenet_names(classes: int) -> list[str] | None:
    from edge_cv.data import imagenet_labels
    from edge_cv.models import IMAGENET_CLASSES

    return [label.name for label in imagenet_labels()] if classes == IMAGENET_CLASSES else None
