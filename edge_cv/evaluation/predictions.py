"""The predictions of several models for the same images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from converters.files import write_atomic


@dataclass(frozen=True)
class Prediction:
    """The predictions of all models for one image.

    Attributes:
        file: the image.
        label: index of its class; None if it is not known.
        top5: for each model's name the five likeliest classes, likeliest first, as (index, probability 0..1).
        labels: indices of all its classes where images may have several labels, else None.
    """

    file: Path
    label: int | None
    top5: dict[str, tuple[tuple[int, float], ...]]
    labels: tuple[int, ...] | None = None


class Predictions(Sequence[Prediction]):
    """A sequence of predictions in the order of the images, which takes 40 bytes for each model and image.

    Attributes:
        names: the models.
        files: the images that could be read.
        labels: indices of their classes `(images,)`, int32; -1 where the class is not known.
        indices: the five likeliest classes `(images, models, 5)`, int32, likeliest first.
        probabilities: their probabilities, of the same shape, float32.
        truth: which classes each image has, bool `(images, classes)`, where images may have several labels, else None.
        outputs: in that case all outputs `(images, models, classes)`, float32, else None.
    """

    def __init__(
        self,
        names: Sequence[str],
        files: Sequence[Path],
        labels: np.ndarray,
        indices: np.ndarray,
        probabilities: np.ndarray,
        truth: np.ndarray | None = None,
        outputs: np.ndarray | None = None,
    ) -> None:
        self.names, self.files = tuple(names), tuple(files)
        self.labels, self.indices, self.probabilities = labels, indices, probabilities
        self.truth, self.outputs = truth, outputs

    def top1(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest class of each image and its probability, each `(images,)`, of the model `name`."""
        column = self.names.index(name)
        return self.indices[:, column, 0], self.probabilities[:, column, 0]

    def save(self, path: str | os.PathLike) -> None:
        """Write the attributes to a compressed .npz file."""
        arrays = {
            "names": np.array(self.names, dtype=np.str_),
            "files": np.array([str(file) for file in self.files], dtype=np.str_),
            "labels": self.labels,
            "indices": self.indices,
            "probabilities": self.probabilities,
        }
        if self.truth is not None and self.outputs is not None:
            arrays |= {"truth": self.truth, "outputs": self.outputs}
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Predictions:
        """The predictions that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            names, files = arrays["names"].tolist(), [Path(file) for file in arrays["files"].tolist()]
            multi_label = [arrays[name] for name in ("truth", "outputs") if name in arrays]
            return cls(names, files, arrays["labels"], arrays["indices"], arrays["probabilities"], *multi_label)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, position: int) -> Prediction: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Prediction, ...]: ...

    def __getitem__(self, position: int | slice) -> Prediction | tuple[Prediction, ...]:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        label = int(self.labels[position])
        pairs = zip(self.indices[position].tolist(), self.probabilities[position].tolist(), strict=True)
        top5 = [tuple(zip(indices, probabilities, strict=True)) for indices, probabilities in pairs]
        return Prediction(
            self.files[position],
            label if label >= 0 else None,
            dict(zip(self.names, top5, strict=True)),
            None if self.truth is None else tuple(np.flatnonzero(self.truth[position]).tolist()),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))  # noqa: B905
