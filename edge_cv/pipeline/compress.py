"""Compress a trained model file: each stage is converted to int8 and evaluated beside the dense model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.packages import require
from edge_cv.folder_lock import holds
from edge_cv.pipeline import steps
from edge_cv.pipeline.file_model import FileModel, check_file_model, check_trainable
from edge_cv.pipeline.inputs import CalibrationImages, open_photos
from edge_cv.pipeline.model import CompressedModel, Convertible, build_or_train, compressed_models
from edge_cv.pipeline.rows import evaluated_row
from edge_cv.pipeline.stage_losses import DENSE, warnings_of_stages
from edge_cv.pipeline.steps import EvaluationResult, Job, ModelFile
from edge_cv.progress import Progress, silent
from edge_cv.recipe import Analysis, Data, Fit, Model, Output, Recipe
from edge_cv.stages import Steps

if TYPE_CHECKING:
    from edge_cv.report import Row

CALIBRATION_IMAGES = 100
SCHEMES = ("float32", "int8")


@dataclass(frozen=True)
class Compressed:
    """A compressed model file.

    Attributes:
        rows: of the dense float32 and int8 files, then one for each stage.
        warnings: sentences on the stages that cost more accuracy than they should, by the name of the row.
    """

    rows: tuple[Row, ...]
    warnings: dict[str, tuple[str, ...]]


@holds("out_dir")
def compress_file(
    model: str | os.PathLike,
    data: str,
    out_dir: str | os.PathLike,
    parts: dict[str, Any],
    fit: Fit,
    *,
    preprocessing: dict[str, Any] | None = None,
    input_size: str | None = None,
    output: str | None = None,
    unsafe: bool = False,
    progress: Progress = silent,
) -> Compressed:
    """Compress a model file; evaluate the int8 file of each stage beside the dense model.

    Args:
        model: a `.keras` or `.h5` file whose model takes pixels 0..255.
        data: labelled photos, by name or folder: some to fine-tune on, others to evaluate on.
        out_dir: folder for the models and the files; a second run resumes there.
        parts: the stages, by the names of their fields in `edge_cv.recipe.Recipe`.
        fit: its batch size, augmentation and seed are used.
        preprocessing: fields of `Preprocessing` that replace those that the model declares.
        input_size: height and width for a model whose input has no fixed size: `224`, or `160x120` (height x width).
        output: the name of the output of the classes, for a model with several.
        unsafe: run the Python code of the file's Lambda layers.
        progress: shows what is being done.

    Returns:
        The rows and the warnings; the files are in `out_dir`.

    Raises:
        InputError: before anything is trained, for what cannot be done.
    """
    from converters.sources import parse_input_size
    from edge_cv.evaluation.predictions import Predictions

    path = Path(model)
    recipe = Recipe(
        name=path.stem.lstrip(".") or "model",
        model=Model(
            str(path.absolute()),
            image_size=parse_input_size(input_size),
            preprocessing=preprocessing or {},
            output=output,
        ),
        data=Data(measure=data, calibrate=None, calibration_images=CALIBRATION_IMAGES),
        schemes=SCHEMES,
        analysis=Analysis(grad_cam=0),
        **parts,
    )
    require("compressing", *recipe.extras())
    check_file_model(recipe)
    job = Job(recipe, Steps(Path(out_dir)), progress)
    file_model = FileModel(recipe.model, job.steps, progress, unsafe=unsafe)
    check_trainable(file_model)
    recipe, photos = open_photos(recipe, file_model)
    dense = build_or_train(recipe, photos, job.steps, progress, file_model=file_model)
    compressed = compressed_models(recipe, photos, dense, job.steps, progress, settings=fit)
    calibration = CalibrationImages(photos.calibration, dense.preprocessing, progress)
    models: dict[Output, Convertible] = {Output(DENSE, "tflite", scheme): dense for scheme in SCHEMES}
    models |= {Output(made.name, "tflite", "int8"): made for made in compressed}
    files = [steps.convert(job, source, output, calibration) for output, source in models.items()]
    evaluation = steps.evaluate(job, files, photos.test, dense.preprocessing)
    predictions = Predictions.load(job.steps.folder / steps.PREDICTIONS)
    return Compressed(
        tuple(_row(file, models[file.output], evaluation) for file in files),
        warnings_of_stages([file.output for file in files], predictions),
    )


def _row(file: ModelFile, model: Convertible, evaluation: EvaluationResult) -> Row:
    return evaluated_row(
        file.output,
        file.path,
        evaluation.scores[file.name],
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        gzip_bytes=file.gzip_bytes,
        parameters=model.parameters,
        macs=file.macs,
        total_sparsity=_total_sparsity(model),
    )


def _total_sparsity(model: Convertible) -> float:
    from edge_cv.compression.pruning import total_sparsity

    return model.stage.total_sparsity if isinstance(model, CompressedModel) else total_sparsity(model.model)
