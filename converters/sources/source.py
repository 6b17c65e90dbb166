"""`Source`: the one value that every kind of model becomes before it is converted, and `InputShape`."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import CheckFailed, InputError, unknown
from converters.images.preprocessing import MAX_SIDE, Preprocessing
from converters.memory import MAX_TENSOR_VALUES
from converters.sources.graph_sizes import check_graph
from converters.sources.layer_names import MAX_NAME

PIXELS_INPUT = "pixels"  # a model whose input has this name takes pixels 0..255


@dataclass(frozen=True)
class InputShape:
    """The shape of a model's image input.

    Attributes:
        images: `(height, width, channels)`: 3 channels for RGB, 1 for grey.
        batch: None if it is free.
        without_channels: whether the model itself takes `(batch, height, width)`. Its `Source` and every converted file
            take `(batch, height, width, 1)`.
    """

    images: tuple[int, int, int]
    batch: int | None = None
    without_channels: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """A classifier to convert.

    Attributes:
        name: the model's name.
        digest: SHA-256, in hex, of its architecture and weights.
        input_name: the name of its one input.
        input_shape: `(height, width, channels)`.
        preprocessing: how a photo becomes its input, if the model declares it.
        call: maps float32 images `(batch, height, width, channels)` to outputs `(batch, classes)`: a TensorFlow
            function, or for a TFLite file a function of arrays.
        batched: whether `call` accepts any batch size, or one image at a time.
        variables: the variables that `call` reads; kept alive while a graph is made from it.
        tflite: the float TFLite file, where that is what was given; None otherwise.
        takes_integers: whether the model itself takes whole pixels, such as uint8, and casts them. Its converted files
            take the same numbers as float32.
        in_graph: whether `predict` runs `call` in a graph, as a Keras model's own `predict` does: some layers of Keras
            round integers otherwise when they run eagerly, and an eager model keeps the outputs of all its layers.
        activation: the function from logits to probabilities: `sigmoid` where an image may have several labels; None is
            what the graph says, or softmax.
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
    takes_integers: bool = False
    in_graph: bool = False
    activation: str | None = None

    @property
    def concrete(self) -> Any:
        """`call` for one image as a TensorFlow `ConcreteFunction`, for a model that is not a TFLite file.

        Raises:
            InputError: the model fails, or its tensors are too large to compute.
        """
        return self._traced[0]

    @functools.cached_property
    def _traced(self) -> tuple[Any, int]:
        """`concrete`, and the values of its tensors that are in use at one time."""
        import tensorflow as tf

        spec = tf.TensorSpec((1, *self.input_shape), tf.float32, name=identifier(self.input_name))
        with forward_pass(self.name):
            concrete = tf.function(self.call, input_signature=[spec]).get_concrete_function()
        return concrete, check_graph(concrete.graph, self.name)

    def predict(self, images: np.ndarray, *, batch: int = 4) -> np.ndarray:
        """Compute the model's outputs.

        Args:
            images: `(n, height, width, channels)` in the range that the model takes.
            batch: images at a time, where the model is batched; fewer of large tensors.

        Returns:
            float32 `(n, classes)`.

        Raises:
            InputError: as `concrete`; or the outputs are not finite.
        """
        batch = batch if self.batched else 1
        if self.tflite is None:  # checked before anything runs
            batch = max(1, min(batch, MAX_TENSOR_VALUES // max(1, self._traced[1])))
        images = np.rint(images) if self.takes_integers else images
        call = self.call
        if self.in_graph:
            import tensorflow as tf

            call = tf.function(call)
        with forward_pass(self.name):
            rows = [np.asarray(call(images[i : i + batch].astype(np.float32))) for i in range(0, len(images), batch)]
        outputs = np.concatenate(rows).astype(np.float32).reshape(len(images), -1)
        if not np.isfinite(outputs).all():
            raise InputError(
                f"the model's outputs must be finite. Received: NaN or infinity from {self.name!r}: it divides by 0 or "
                "has numbers beyond float32"
            )
        return outputs


@contextlib.contextmanager
def forward_pass(name: str) -> Iterator[None]:
    """Errors of a model while it computes, such as those of a layer of its author's own, become an InputError.

    Args:
        name: of the model.
    """
    try:
        yield
    except (InputError, CheckFailed, MemoryError):
        raise
    except Exception as error:  # a model is a program: it raises whatever it likes
        raise InputError(f"{name!r} cannot compute its outputs: {reason_of(error)}") from error


def identifier(name: str) -> str:
    """A name of letters, digits and _, as TensorFlow's placeholders and LiteRT's signatures require it."""
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name).lstrip("_")
    return cleaned[:MAX_NAME] or "image"


def reason_of(error: BaseException) -> str:
    """The line of an error that says the most: without the frames and the arguments that Keras and TensorFlow add."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    text = re.sub(r'(?s)^in user code:.*File "[^\n]*, line [^\n]*\n[^\n]*\n', "", text)
    text = re.sub(r"(?s).*Exception encountered[^\n]*\n", "", text)
    text = re.sub(r".*Exception encountered: ", "", text)
    text = re.sub(r"(?s)Arguments received by .*", "", text)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    kind = type(error).__name__
    return (line if line.startswith(kind) else f"{kind}: {line}")[:250] if line else kind


def default_preprocessing(input_name: str, shape: tuple[int, int, int]) -> Preprocessing | None:
    """The preprocessing that an input's name implies: the central part of a photo for `pixels`, None otherwise."""
    height, width, channels = shape
    return Preprocessing(height, width=width, channels=channels) if input_name == PIXELS_INPUT else None


def parse_input_size(given: int | str | tuple[int, ...] | None) -> tuple[int, int] | None:
    """`(height, width)` of an input size: one number for a square, `HEIGHTxWIDTH`, or a pair; None stays None."""
    if given is None:
        return None
    parts: Any = given.lower().split("x") if isinstance(given, str) else given
    try:
        sides = [int(part) for part in parts] if isinstance(parts, list | tuple) else [int(parts)] * 2
    except (TypeError, ValueError):
        sides = []
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2 or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            f"the input size must be one number, or HEIGHTxWIDTH such as 160x120, of 1 to {MAX_SIDE} pixels. "
            f"Received: {given!r}"
        )
    return sides[0], sides[1]


def check_input_shape(shape: Any, input_size: tuple[int, int] | None = None) -> InputShape:
    """The input shape of a model.

    Args:
        shape: as the model declares it; None or -1 is a free length.
        input_size: `(height, width)` for a model whose height or width is free.

    Raises:
        InputError: it is not images, RGB or grey, or its size is free and `input_size` is None, or differs from it.
    """
    sizes = tuple(None if n in (None, -1) else int(n) for n in shape) if shape is not None else ()
    without_channels = len(sizes) == 3
    full = (*sizes, 1) if without_channels else sizes
    if len(full) != 4 or full[3] not in (1, 3):
        raise InputError(
            "the model's input must be RGB images, (batch, height, width, 3), or grey ones, (batch, height, width, 1) "
            f"or (batch, height, width). Received: {_written(sizes)}{_OF_ROWS if len(sizes) == 2 else ''}"
            f"{_CHANNELS_FIRST if len(sizes) == 4 and sizes[1] in (1, 3) else ''}"
        )
    height, width = full[1:3]
    if input_size is None:
        if height is None or width is None:
            raise InputError(
                "the model's input must be images of one fixed size: give it, as --input-size 224 or 160x120 (height x "
                f"width; input_size=(160, 120) in Python). Received: {_written(sizes)}"
            )
        input_size = height, width
    if any(fixed not in (None, given) for fixed, given in zip((height, width), input_size, strict=True)):
        raise InputError(
            f"the input size must be the model's own, {height or 'free'}x{width or 'free'}. "
            f"Received: {input_size[0]}x{input_size[1]}"
        )
    return InputShape((*input_size, full[3]), full[0], without_channels)


_CHANNELS_FIRST = (
    ", channels first; in Keras: keras.Sequential([keras.Input((height, width, 3)), keras.layers.Permute((3, 1, 2)), "
    "model])"
)
_OF_ROWS = "; in Keras: image = keras.Input((height, width)); keras.Model(image, model(keras.layers.Flatten()(image)))"


def check_output_shape(shape: Any) -> None:
    """Raise InputError when a model's output shape is not `(batch, classes)`."""
    sizes = tuple(shape) if shape is not None else ()
    if len(sizes) != 2 or not isinstance(sizes[1], int):
        ones = len(sizes) > 2 and all(size == 1 for size in sizes[1:-1])
        raise InputError(
            f"the model's output must be (batch, classes). Received: {_written(sizes)}"
            + ("; in Keras: keras.Model(model.input, keras.layers.Flatten()(model.output))" if ones else "")
        )


def chosen_output(inputs: Sequence[str], outputs: Sequence[str], output: str | None) -> int:
    """The index of the output to convert.

    Args:
        inputs, outputs: the names of the model's inputs and outputs.
        output: the caller's choice; None where there is one output only.

    Raises:
        InputError: there are several inputs, or several outputs and no choice, or the chosen one does not exist.
    """
    received = f"Received: {len(inputs)} inputs and {len(outputs)} outputs"
    if len(inputs) != 1:
        raise InputError(
            f"the model must have one input and one output. {received} ({', '.join(inputs)}); make all inputs but the "
            "image constants and convert that model, in Keras: image = keras.Input((height, width, 3), batch_size=1); "
            "keras.Model(image, model([image, keras.ops.convert_to_tensor(constant)]))"
        )
    if output is None and len(outputs) != 1:
        raise InputError(
            f"the model must have one input and one output. {received}; choose the output of the classes by its name "
            f"with --output (output=... in Python): {', '.join(outputs)}"
        )
    if output is not None and output not in outputs:
        raise unknown("output of the model", output, outputs)
    return 0 if output is None else list(outputs).index(output)


def _written(sizes: tuple) -> str:
    return "(" + ", ".join("free" if n is None else str(n) for n in sizes) + ")"
