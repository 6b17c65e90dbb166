"""A recipe's model that is a file: a `.keras` or `.h5` file, a float `.tflite` file or a SavedModel folder."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.decisions import class_count
from converters.errors import InputError
from edge_cv.progress import Progress
from edge_cv.recipe import Model, Recipe
from edge_cv.stages import Steps, fingerprint

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from converters.sources import Source

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
RECORD = "model_file"  # the name of the cached step that reads the file

logger = logging.getLogger(__name__)


class FileModel:
    """A model file as it is. It is loaded only when a step needs it.

    Attributes:
        name: `model`, as for a model that the run builds.
        path: the file or folder.
        preprocessing: how a photo becomes the model's input.
        parameters: number of trainable parameters; None if the file does not hold a Keras model.
        outputs: number of outputs.
        classes: number of classes: two for a single output.
        labels: the class names in order; None if they are not known.
        sha256: of the architecture and the weights.
        history: empty; the model was not trained here.
        probe: None, for the same reason.
    """

    name = "model"
    history: tuple[dict[str, Any], ...] = ()
    probe: dict[str, Any] | None = None

    def __init__(self, part: Model, steps: Steps, progress: Progress, *, unsafe: bool = False) -> None:
        """
        Args:
            part: the recipe's model.
            steps: of the run.
            progress: shows the loading.
            unsafe: run the Python code of the file's Lambda layers.

        Raises:
            InputError: the file is missing or cannot be used, or does not declare its preprocessing.
        """
        from converters.images.preprocessing import Preprocessing

        self.path = Path(part.name).expanduser()
        self._fields, self._unsafe, self._progress = part.preprocessing, unsafe, progress
        self._input_size, self._output = part.image_size, part.output
        if not self.path.exists():
            raise InputError(f"the model must be a file that exists. Received: {self.path}")
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path, self.path.with_suffix(".json")]
        chosen = [part.preprocessing, unsafe, part.image_size, part.output]
        self._inputs = [str(self.path.absolute()), fingerprint(files), *chosen]
        recorded = steps.recorded(RECORD, self._inputs)
        self._record = record = recorded[0] if recorded else self._read()
        self.preprocessing: Preprocessing = Preprocessing.from_dict(record["preprocessing"])
        self.parameters: int | None = record["parameters"]
        self.outputs: int = record["classes"]
        self.classes: int = class_count(self.outputs)
        self.labels: list[str] | None = record["labels"]
        self.sha256: str = record["sha256"]

    @property
    def is_keras(self) -> bool:
        """Whether it is a Keras model, which can be trained, compressed and explained."""
        return is_keras_file(self.path)

    @functools.cached_property
    def source(self) -> Source:
        """The model as `converters` takes it."""
        from converters.sources import open_source

        with self._progress(f"loading {self.path}"):
            return open_source(self.path, unsafe=self._unsafe, input_size=self._input_size, output=self._output)

    @functools.cached_property
    def model(self) -> keras.Model:
        """The Keras model, with `preprocessing` as an attribute."""
        model = self._loaded
        model.preprocessing = self.preprocessing
        return model

    @functools.cached_property
    def _loaded(self) -> keras.Model:
        from converters.sources import load, single_image_model
        from converters.sources.source import forward_pass

        model = load(self.path, unsafe=self._unsafe)
        with forward_pass(model.name):
            return single_image_model(model, self._input_size, self._output)

    def check_loss(self, multi_label: bool) -> None:
        """Raise InputError if the Keras model's outputs do not fit the loss of a training.

        Args:
            multi_label: whether an image may have several labels.
        """
        from edge_cv.models.heads import output_meaning

        meaning = output_meaning(self.model)
        if self.outputs > 1 and meaning.probabilities and meaning.independent != multi_label:
            labels, end = ("several labels", "sigmoids") if multi_label else ("one label", "a softmax")
            found = "a softmax" if multi_label else "sigmoids"
            raise InputError(
                f"to train on images with {labels} each, a model file must end in logits or in {end}. "
                f"Received: {self.path}, which ends in {found}"
            )

    def _read(self) -> dict[str, Any]:
        import numpy as np

        source = self.source
        preprocessing = preprocessing_of(source, self._fields)
        if preprocessing is None:
            raise InputError(
                "a model file must declare its preprocessing: give it as Model.preprocessing, such as "
                "{'rule': 'stretch'}, with mean and std unless the model takes pixels 0..255. "
                f"Received: {self.path}"
            )
        model = self._loaded if self.is_keras else None
        return {
            "preprocessing": preprocessing.to_dict(),
            "parameters": None if model is None else sum(math.prod(v.shape) for v in model.trainable_variables),
            "classes": source.predict(np.zeros((1, *source.input_shape), np.float32)).shape[1],
            "labels": labels_of(self.path),
            "sha256": source.digest,
        }

    def save_record(self, steps: Steps) -> None:
        """Record in the run's folder what was read from the file, so that the next run need not load it."""
        steps.cached(RECORD, self._inputs, lambda: (self._record, []))


def is_keras_file(path: Path) -> bool:
    """Whether the path is that of a Keras model file."""
    return path.suffix in KERAS_SUFFIXES


def check_file_model(recipe: Recipe) -> None:
    """Raise InputError if the recipe trains or compresses a model file that is not a Keras model."""
    path = Path(recipe.model.name)
    if recipe.model.is_file and (recipe.fit is not None or recipe.compression()) and not is_keras_file(path):
        raise InputError(f"to train or compress, a model file must be a .keras or .h5 file. Received: {path}")


def check_trainable(model: FileModel) -> None:
    """Raise InputError if the model does not take pixels 0..255, as the training photos are."""
    if not model.preprocessing.takes_pixels:
        raise InputError(
            "a model file to train or compress must take pixels 0..255 and normalize them in a layer of its own, such "
            f"as Rescaling. Received: {model.path}"
        )


def preprocessing_of(source: Source, fields: Mapping[str, Any]) -> Preprocessing | None:
    """How a photo becomes the input of a model that was opened.

    Args:
        source: the model.
        fields: fields of `Preprocessing` that replace those that the model declares.

    Returns:
        The preprocessing; None if the model does not declare it and nothing can be assumed.
    """
    from converters.images.preprocessing import Preprocessing
    from edge_cv import models

    declared = source.preprocessing
    height, width, channels = source.input_shape
    if source.name in models.names() and declared == Preprocessing(height):
        declared = models.preprocessing(source.name, height)  # an architecture of ours crops as its paper does
    if not fields:
        return declared or _assumed(source)
    declared = declared or Preprocessing(height, width=width, channels=channels, rule="stretch")
    return dataclasses.replace(declared, **fields)


def _assumed(source: Source) -> Preprocessing | None:
    """The usual crop for a model that rescales pixels itself; calibration hardly depends on the crop."""
    from converters.float_model import convert_float
    from converters.images.preprocessing import Preprocessing

    height, width, channels = source.input_shape
    if not convert_float(source).takes_pixels:
        return None
    logger.warning("the model does not declare how photos are cropped: the central %dx%d is used", width, height)
    return Preprocessing(height, width=width, channels=channels)


def labels_of(path: Path) -> list[str] | None:
    """The class names in the sidecar of a model file, or in the metadata of a `.tflite` file."""
    from converters import read_metadata
    from converters.record import read_sidecar
    from converters.strict_json import typed
    from converters.tflite.graph import Graph
    from converters.tflite.standard_metadata import read_standard

    try:
        record = read_metadata(path) if path.suffix == ".tflite" else read_sidecar(path)
        if record is not None:
            labels = typed(tuple[str, ...] | None, record.get("labels"), "labels")
        elif path.suffix == ".tflite":
            content = path.read_bytes()
            standard = read_standard(content, Graph(content))
            labels = None if standard is None else standard.labels
        else:
            return None
    except (OSError, InputError):
        return None
    return None if labels is None else list(labels)
