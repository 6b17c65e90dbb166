"""All compression stages in order. A stage is skipped when nothing that it depends on has changed.

channel pruning -> pruning -> clustering -> quantization-aware training
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.files import beside
from edge_cv.progress import Progress, silent
from edge_cv.recipe import ChannelPrune, Prune, Qat, WeightClustering, check_together
from edge_cv.stages import Steps

if TYPE_CHECKING:
    import keras

    from converters.schemes import Int8, Int8FromQat
    from edge_cv.data.input_pipeline.batches import Batches

    Ranges = dict[str, tuple[float, float]]
    # Compresses a model: called with the model, the stage's part of the recipe and the batches.
    Compressor = Callable[..., tuple[keras.Model, Ranges | None]]


@dataclass(frozen=True)
class StageResult:
    """The model of one compression stage.

    Attributes:
        name: `channel_pruned`, `pruned`, `clustered` or `qat`.
        path: the `.keras` file.
        sha256: SHA-256 of the file.
        parameters: number of trainable parameters.
        sparsity: share of zeros, 0..1, in each convolution and dense layer.
        total_sparsity: share of zeros, 0..1, in all these layers together.
        ranges: ranges from quantization-aware training, for `Int8FromQat`; None for the other stages.
        history: of the fine-tuning, see `edge_cv.training.Fitted`, with the `sparsity` of a model that is being pruned;
            empty for a stage by tfmot.
    """

    name: str
    path: Path
    sha256: str
    parameters: int
    sparsity: dict[str, float]
    total_sparsity: float
    ranges: Ranges | None = None
    history: tuple[dict[str, Any], ...] = ()

    @functools.cached_property
    def model(self) -> keras.Model:
        """The model, loaded from its file."""
        from converters.sources import load

        return load(self.path)

    @property
    def int8(self) -> Int8 | Int8FromQat:
        """The int8 scheme that preserves the stage's result: trained ranges, and zeros that stay zero."""
        return self.int8_with("int8")

    def int8_with(self, io: str) -> Int8 | Int8FromQat:
        """The int8 scheme with another type of input and output, see `Int8.io`."""
        from converters.schemes import Int8, Int8FromQat

        if self.ranges is not None:
            return Int8FromQat(self.ranges, io=io)
        return Int8(io=io, correction="gptq" if self.name == "channel_pruned" else "bias")


def compress(
    model: keras.Model,
    batches: Batches,
    folder: str | os.PathLike,
    *,
    channel_prune: ChannelPrune | None = None,
    prune: Prune | None = None,
    cluster: WeightClustering | None = None,
    qat: Qat | None = None,
    key: Any = None,
    progress: Progress = silent,
) -> tuple[StageResult, ...]:
    """Compress a model in one or more stages. Each stage continues with the model of the previous one.

    Args:
        model: a Keras 3 model from pixels `(batch, height, width, 3)` to logits or probabilities; it is not changed.
        batches: images for fine-tuning.
        folder: where to write the models. A second run reuses the stages that it contains.
        channel_prune: settings of channel pruning; None skips the stage.
        prune: settings of magnitude pruning; None skips the stage.
        cluster: settings of weight clustering; None skips the stage.
        qat: settings of quantization-aware training; None skips the stage.
        key: JSON value that identifies the batches. The stages run again when it changes.
        progress: reports the steps.

    Returns:
        The result of each stage, in order.

    Raises:
        InputError: before any training, if no stage is given, or a stage does not support the model or another stage.
    """
    parts: tuple[tuple[str, Any, Compressor], ...] = (
        ("channel_pruned", channel_prune, _channel_prune),
        ("pruned", prune, _prune),
        ("clustered", cluster, _cluster),
        ("qat", qat, _qat),
    )
    selected = [(name, part, compressor) for name, part, compressor in parts if part is not None]
    if not selected:
        raise InputError("compress needs one of channel_prune, prune, cluster and qat. Received: None for all of them")
    check_together(prune=prune, cluster=cluster, qat=qat)
    check(model, channel_prune=channel_prune, prune=prune, cluster=cluster, qat=qat)
    steps, source = Steps(Path(folder)), _digest(model)
    results: list[StageResult] = []
    for name, part, compressor in selected:
        path = steps.folder / f"{name}.keras"
        inputs = {"model": source, "part": asdict(part), "data": key}
        folder = _training_folder(path, inputs)
        work = functools.partial(
            _run_stage,
            compressor,
            results[-1] if results else model,
            part,
            batches,
            path,
            progress,
            teacher=model,
            folder=folder,
        )
        result, files = steps.cached(f"compress_{name}", inputs, work)
        ranges = result["ranges"] and {tensor: tuple(ends) for tensor, ends in result["ranges"].items()}
        result |= {"ranges": ranges, "history": tuple(result["history"])}
        results.append(StageResult(name=name, path=path, sha256=files[path.name], **result))
        source = results[-1].sha256
    return tuple(results)


def check(
    model: keras.Model,
    *,
    channel_prune: ChannelPrune | None = None,
    prune: Prune | None = None,
    cluster: WeightClustering | None = None,
    qat: Qat | None = None,
) -> None:
    """Raise InputError if a stage does not support the model. This takes seconds and runs before the first stage."""
    from edge_cv.compression.channels import remove_channels
    from edge_cv.compression.keras_graph import check_float, functional_form
    from edge_cv.compression.pruning import prunable
    from edge_cv.compression.tfmot_engine import check_tfmot

    functional_form(model)
    check_float(model)
    if channel_prune is not None and channel_prune.target == "macs":
        # whether the share can be reached hardly depends on the ranking, and this one needs no images
        remove_channels(model, channel_prune.keep, importance="l1", exclude=channel_prune.exclude)
    for part in (prune, cluster):
        if part is not None:
            prunable(model, part.exclude)
    if any(part is not None and part.engine == "tfmot" for part in (prune, cluster, qat)):
        check_tfmot(model)


def _run_stage(
    compressor: Compressor,
    source: keras.Model | StageResult,
    part: Any,
    batches: Batches,
    path: Path,
    progress: Progress,
    *,
    teacher: keras.Model,
    folder: Path,
) -> tuple[dict[str, Any], list[Path]]:
    """Compress a model and save it; returns the record of the stage and the files that it wrote."""
    from edge_cv.compression.pruning import sparsity, total_sparsity

    model = source.model if isinstance(source, StageResult) else source
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f"{path.stem}.*.training"):  # of other settings
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    compressed, ranges = compressor(model, part, batches, teacher=teacher, folder=folder, progress=progress)
    with beside(path) as temporary:
        compressed.save(temporary)
    history = _history(folder)
    shutil.rmtree(folder, ignore_errors=True)
    record = {
        "parameters": sum(math.prod(variable.shape) for variable in compressed.trainable_variables),
        "sparsity": sparsity(compressed),
        "total_sparsity": total_sparsity(compressed),
        "ranges": ranges,
        "history": history,
    }
    return record, [path]


def _history(folder: Path) -> list[dict[str, Any]]:
    """The history of the training in a folder; empty if there was none."""
    from edge_cv.training import checkpoint
    from edge_cv.training.loop import CHECKPOINT

    loaded = checkpoint.load(folder / CHECKPOINT)
    return [] if loaded is None else loaded.state["history"]


def _channel_prune(model: Any, part: ChannelPrune, batches: Batches, **options: Any) -> tuple[Any, None]:
    from edge_cv.compression.channels import channel_prune

    return channel_prune(model, part, batches, **options), None


def _prune(model: Any, part: Prune, batches: Batches, **options: Any) -> tuple[Any, None]:
    from edge_cv.compression.pruning import prune

    return prune(model, part, batches, **options), None


def _cluster(model: Any, part: WeightClustering, batches: Batches, **options: Any) -> tuple[Any, None]:
    from edge_cv.compression.clustering import cluster

    return cluster(model, part, batches, **options), None


def _qat(model: Any, part: Qat, batches: Batches, **options: Any) -> tuple[Any, Ranges]:
    from edge_cv.compression.qat import quantization_aware

    trained = quantization_aware(model, part, batches, **options)
    return trained.model, trained.ranges


def _training_folder(path: Path, inputs: Any) -> Path:
    """The training folder of a stage. Its name contains what the stage depends on: no other training resumes there."""
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return path.with_suffix(f".{key}.training")


def _digest(model: keras.Model) -> str:
    from converters.sources import open_source

    return open_source(model).digest
