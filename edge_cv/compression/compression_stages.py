"""The stages of compression in their order, each skipped when nothing that it depends on has changed.

channel pruning -> pruning -> clustering -> quantization-aware training
"""

from __future__ import annotations

import functools
import math
import os
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

    from converters.schemes import Scheme
    from edge_cv.data.input_pipeline.batches import Batches


@dataclass(frozen=True)
class StageResult:
    """What one stage made.

    Attributes:
        name: `channel_pruned`, `pruned`, `clustered` or `qat`.
        path: the model's `.keras` file.
        sha256: of that file.
        parameters: that can be trained.
        sparsity: the share of zeros, 0..1, in each convolution and dense layer.
        total_sparsity: the same of all these layers' weights together.
        ranges: what quantization-aware training learned, for `Int8FromQat`; None for the other stages.
    """

    name: str
    path: Path
    sha256: str
    parameters: int
    sparsity: dict[str, float]
    total_sparsity: float
    ranges: dict[str, tuple[float, float]] | None = None

    @functools.cached_property
    def model(self) -> keras.Model:
        """The model, read from its file."""
        from converters.sources import load

        return load(self.path)

    @property
    def int8(self) -> Scheme:
        """How the model is made int8 without losing what the stage won: learned ranges, and zeros that stay zero."""
        return self.int8_with("int8")

    def int8_with(self, io: str) -> Scheme:
        """The same with another input and output."""
        from converters.schemes import Int8, Int8FromQat

        if self.ranges is not None:
            return Int8FromQat(self.ranges, io=io)
        return Int8(io=io, correction="rounding" if self.name == "channel_pruned" else "bias")


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
    """Compress a model, in the order of the arguments, each stage beginning with what the one before it made.

    Args:
        model: a Keras 3 model from pixels to logits or probabilities; it stays as it is.
        batches: the images to fine-tune on.
        folder: for the models; a second run goes on from what is there.
        channel_prune, prune, cluster, qat: the stages to go through.
        key: what the batches depend on, as JSON takes it; a stage is done again when it changes.
        progress: told what is being done.

    Returns:
        What each stage made.

    Raises:
        InputError: before anything is trained, when a stage cannot be done with this model or with another stage.
    """
    parts = (
        ("channel_pruned", channel_prune, _channel_pruned),
        ("pruned", prune, _pruned),
        ("clustered", cluster, _clustered),
        ("qat", qat, _quantization_aware),
    )
    chosen = [(name, part, make) for name, part, make in parts if part is not None]
    if not chosen:
        raise InputError("to compress, name at least one of channel_prune, prune, cluster and qat. Received: none")
    check_together(prune=prune, cluster=cluster, qat=qat)
    check(model, channel_prune=channel_prune, prune=prune, cluster=cluster, qat=qat)
    steps, before, done = Steps(Path(folder)), _digest(model), []
    for name, part, make in chosen:
        source = done[-1] if done else None
        path = steps.folder / f"{name}.keras"
        work = functools.partial(_work, make, source or model, part, batches, path, progress, teacher=model)
        inputs = {"model": before, "part": asdict(part), "data": key}
        result, files = steps.cached(f"compress_{name}", inputs, work)
        ranges = result["ranges"] and {tensor: tuple(ends) for tensor, ends in result["ranges"].items()}
        done.append(StageResult(name=name, path=path, sha256=files[path.name], **(result | {"ranges": ranges})))
        before = done[-1].sha256
    return tuple(done)


def check(
    model: keras.Model,
    *,
    channel_prune: ChannelPrune | None = None,
    prune: Prune | None = None,
    cluster: WeightClustering | None = None,
    qat: Qat | None = None,
) -> None:
    """Raise InputError for what a stage would refuse, in seconds instead of after the stages before it."""
    from edge_cv.compression.channels import remove_channels
    from edge_cv.compression.pruning import prunable
    from edge_cv.compression.qat import check_float
    from edge_cv.compression.tf_keras_bridge import cross

    check_float(model)
    if channel_prune is not None and channel_prune.target == "macs":
        remove_channels(model, channel_prune.keep, importance=channel_prune.importance, exclude=channel_prune.exclude)
    for part in (prune, cluster):
        if part is not None:
            prunable(model, part.exclude)
    if prune is not None or cluster is not None or qat is not None:
        cross(model)


Make = Callable[..., "tuple[keras.Model, dict[str, tuple[float, float]] | None]"]


def _work(
    make: Make, source: Any, part: Any, batches: Batches, path: Path, progress: Progress, *, teacher: Any
) -> tuple[Any, list[Path]]:
    from edge_cv.compression.pruning import sparsity, total_sparsity

    model = source.model if isinstance(source, StageResult) else source
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint.npz")
    made, ranges = make(model, part, batches, teacher=teacher, checkpoint=checkpoint, progress=progress)
    with beside(path) as temporary:
        made.save(temporary)
    parameters = sum(math.prod(variable.shape) for variable in made.trainable_variables)
    said = {"parameters": parameters, "sparsity": sparsity(made), "total_sparsity": total_sparsity(made)}
    return said | {"ranges": ranges}, [path]


def _channel_pruned(model: Any, part: ChannelPrune, batches: Batches, **options: Any) -> Any:
    from edge_cv.compression.channels import channel_prune

    return channel_prune(model, part, batches, **options), None


def _pruned(model: Any, part: Prune, batches: Batches, **options: Any) -> Any:
    from edge_cv.compression.pruning import prune

    return prune(model, part, batches, **options), None


def _clustered(model: Any, part: WeightClustering, batches: Batches, **options: Any) -> Any:
    from edge_cv.compression.clustering import cluster

    return cluster(model, part, batches, **options), None


def _quantization_aware(model: Any, part: Qat, batches: Batches, **options: Any) -> Any:
    from edge_cv.compression.qat import quantization_aware

    trained = quantization_aware(model, part, batches, **options)
    return trained.model, trained.ranges


def _digest(model: keras.Model) -> str:
    from converters.sources import open_source

    return open_source(model).digest
