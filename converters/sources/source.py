"""`Source`: the one value that every kind of model becomes before it is converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing

PIXELS_INPUT = "pixels"  # a model whose input has this name takes RGB pixels 0..255


@dataclass(frozen=True, eq=False)
class Source:
    """A classifier to convert.

    Attributes:
        name: the model's name.
        digest: SHA-256, in hex, of its architecture and weights.
        input_name: the name of its one input.
        input_shape: `(height, width, 3)`.
        preprocessing: how a photo becomes its input, if the model declares it.
        call: maps float32 images `(batch, height, width, 3)` to outputs `(batch, classes)`: a TensorFlow function, or
            for a TFLite file a function of arrays.
        batched: whether `call` accepts any batch size, or one image at a time.
        variables: the variables that `call` reads; kept alive while a graph is made from it.
        tflite: the float TFLite file, where that is what was given; None otherwise.
    """

    name: str
    digest: str
    input_name: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing | None
    call: Callable[[Any], Any]
    batched: bool
    variables: tuple[Any, ...] = ()
    tflite: bytes | None = None

    def predict(self, images: np.ndarray, *, batch: int = 4) -> np.ndarray:
        """Compute the model's outputs.

        Args:
            images: `(n, height, width, 3)` in the range that the model takes.
            batch: images at a time, where the model is batched.

        Returns:
            float32 `(n, classes)`.
        """
        batch = batch if self.batched else 1
        rows = [np.asarray(self.call(images[i : i + batch].astype(np.float32))) for i in range(0, len(images), batch)]
        return np.concatenate(rows).astype(np.float32).reshape(len(images), -1)


def default_preprocessing(input_name: str, shape: tuple[int, int, int]) -> Preprocessing | None:
    """The preprocessing that an input's name implies: square pixels for `pixels`, None otherwise."""
    return Preprocessing(shape[0]) if input_name == PIXELS_INPUT and shape[0] == shape[1] else None


def check_input_shape(shape: Any) -> tuple[int, int, int]:
    """`(height, width, 3)` of a model's input shape; InputError when it is not RGB images of one fixed size."""
    sizes = tuple(shape) if shape is not None else ()
    if len(sizes) != 4 or sizes[3] != 3 or not all(isinstance(n, int) and n > 0 for n in sizes[1:3]):
        raise InputError(
            "the model's input must be RGB images of one fixed size, (batch, height, width, 3). "
            f"Received: {_written(sizes)}"
        )
    if sizes[0] not in (None, 1):
        raise InputError(f"the model's batch size must be free or 1. Received: {_written(sizes)}")
    return sizes[1], sizes[2], 3


def check_output_shape(shape: Any) -> None:
    """Raise InputError when a model's output shape is not `(batch, classes)`."""
    sizes = tuple(shape) if shape is not None else ()
    if len(sizes) != 2 or not isinstance(sizes[1], int):
        raise InputError(f"the model's output must be (batch, classes). Received: {_written(sizes)}")


def _written(sizes: tuple) -> str:
    return "(" + ", ".join("free" if n is None else str(n) for n in sizes) + ")"
