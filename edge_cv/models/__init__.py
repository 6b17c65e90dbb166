"""The architectures, by name: `names`, `build`, `preprocessing`, `describe` and EfficientNet's `compound_scale`.

Every model takes pixels 0..255, float32 `(batch, height, width, channels)`, RGB or grey, under the input name `pixels`,
normalizes them itself, and returns logits `(batch, classes)`.

Each family is one module of this package with `NAMES`, `published(name)`, `preprocessing(name, image_size=None)` and
`network(name, *, classes, image_size, alpha, **options)`. The keyword arguments of `network` are the family's options.
A family may also have `imagenet_file(name, *, alpha, image_size, **options)`, the published file of weights, and
`default_image_size(name, **options)`, if options change the image size of the paper's variant.
Keras is imported by the first `build`, not with this package.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import math
import operator
import os
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, unknown
from edge_cv.models.efficientnet import Scale, compound_scale

if TYPE_CHECKING:
    import keras

    from converters.images.preprocessing import Preprocessing
    from edge_cv.models.downloads import RemoteFile

__all__ = ["Scale", "build", "compound_scale", "describe", "names", "preprocessing"]

IMAGENET_CLASSES = 1000
MIN_IMAGE_SIZE = 32  # pixels: every network halves its input five times
MAX_ALPHA = 8.0
INT8_BYTES_PER_PARAMETER = 1.1  # with scales and biases; measured: 1.00 (AlexNet) to 1.17 (EfficientNet B0)


@functools.cache
def _families() -> dict[str, ModuleType]:
    """The family module of each model name."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return {name: module for module in modules for name in getattr(module, "NAMES", ())}


def _family(name: str) -> ModuleType:
    if name not in names():
        raise unknown("model", name, names())
    return _families()[name]


def names() -> tuple[str, ...]:
    """The name of every architecture."""
    return tuple(_families())


def preprocessing(name: str, image_size: int | None = None) -> Preprocessing:
    """The preprocessing of photos for an architecture.

    Args:
        name: one of `names()`.
        image_size: height and width in pixels; None is the architecture's own.

    Raises:
        InputError: if the name is unknown or the size is out of range.
    """
    return _family(name).preprocessing(name, image_size if image_size is None else _image_size(image_size))


def describe(name: str) -> dict[str, Any]:
    """The published figures of an architecture with 1000 classes. No model is built.

    Args:
        name: one of `names()`.

    Returns:
        `name`, `image_size` in pixels, `parameters`, `macs`, `top1` (0..1), `float32_bytes` and `int8_bytes`
        (estimated sizes of the TFLite files) and `weights` (their source, in words).

    Raises:
        InputError: if the name is unknown.
    """
    from edge_cv.models.weights import origin

    family = _family(name)
    published = family.published(name)
    return {
        "name": name,
        "image_size": published.image_size,
        "parameters": published.parameters,
        "macs": published.macs,
        "top1": published.top1,
        "float32_bytes": 4 * published.parameters,
        "int8_bytes": round(INT8_BYTES_PER_PARAMETER * published.parameters),
        "weights": origin(name, _imagenet_file(family, name, published.image_size, 1.0, {})),
    }


def build(
    name: str,
    *,
    classes: int = IMAGENET_CLASSES,
    image_size: int | tuple[int, ...] | None = None,
    channels: int = 3,
    alpha: float = 1.0,
    weights: str | os.PathLike | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model by its name.

    Args:
        name: one of `names()`.
        classes: number of logits, at least 1.
        image_size: height and width of the input in pixels, at least 32: one number for a square, or `(height, width)`;
            None is the size of the paper's variant.
        channels: 3 for RGB, 1 for grey. Pretrained weights are those of RGB, summed in the first layer.
        alpha: width multiplier in addition to the variant's own; 0 < alpha <= 8, and large enough for 8 channels per
            layer.
        weights: None for random weights; "imagenet" for pretrained weights; or the path of a `.keras` or `.weights.h5`
            file of the same architecture and options. The head is loaded if its size fits (`classes=1000` for
            "imagenet"); otherwise it starts at zeros and a warning is logged. Only arrays are read from files.
        **options: options of the family, such as `dropout` of EfficientNet.

    Returns:
        A model from pixels `(batch, height, width, channels)`, float32 0..255, to logits `(batch, classes)`. Its
        attribute `preprocessing` is the `Preprocessing` for its input.

    Raises:
        InputError: if a name or option is unknown, a value is out of range, or the weights are not available.
    """
    family = _family(name)
    _check_options(name, family, options)
    if image_size is None and hasattr(family, "default_image_size"):
        image_size = family.default_image_size(name, **options)
    sides = _sides(image_size)
    contract = preprocessing(name, None if sides is None else min(sides))
    if sides is not None or channels != 3:
        height, width = sides or (contract.height, contract.width)
        contract = dataclasses.replace(contract, height=height, width=width, channels=channels)
    classes = _whole("classes", classes, at_least=1)
    alpha = _alpha(alpha)
    base = min(contract.height, contract.width)
    file = _imagenet_file(family, name, base, alpha, options) if weights == "imagenet" else None
    if weights == "imagenet":
        _check_published(name, file)

    model = family.network(name, classes=classes, image_size=base, alpha=alpha, **options)
    if weights == "imagenet":
        from edge_cv.models.weights import load_imagenet

        load_imagenet(model, name, file, head=classes == IMAGENET_CLASSES)
    if contract.shape != (base, base, 3):
        from edge_cv.models.input_shape import with_input

        model = with_input(model, contract.shape, keep_weights=weights == "imagenet")
    model.preprocessing = contract
    if weights not in (None, "imagenet"):
        from edge_cv.models.keras_files import load_file

        load_file(model, weights)
    return model


def _sides(image_size: Any) -> tuple[int, int] | None:
    """Height and width of an image size; None stays None."""
    if image_size is None:
        return None
    sides = tuple(image_size) if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(sides) != 2:
        raise InputError(f"image_size must be one number, or (height, width). Received: {image_size!r}")
    return _image_size(sides[0]), _image_size(sides[1])


def _check_published(name: str, file: RemoteFile | None) -> None:
    from edge_cv.models.weights import origin

    if origin(name, file) == "none":
        available = [other for other in names() if describe(other)["weights"] != "none"]
        raise InputError(f'weights="imagenet" must be one of {", ".join(available)}. Received: {name!r}')


def _imagenet_file(
    family: ModuleType, name: str, image_size: int, alpha: float, options: dict[str, Any]
) -> RemoteFile | None:
    """The published file of weights of a network; None for a family without such files, which requires alpha 1."""
    if hasattr(family, "imagenet_file"):
        return family.imagenet_file(name, alpha=alpha, image_size=image_size, **options)
    if alpha != 1.0:
        raise InputError(f'alpha must be 1 with weights="imagenet". Received: alpha={alpha}')
    return None


def _check_options(name: str, family: ModuleType, options: dict[str, Any]) -> None:
    parameters = inspect.signature(family.network).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, [*known, "weights"])


def _whole(what: str, value: Any, *, at_least: int) -> int:
    try:
        if not isinstance(value, bool) and operator.index(value) >= at_least:
            return operator.index(value)
    except TypeError:
        pass
    raise InputError(f"{what} must be a whole number of at least {at_least}. Received: {value!r}")


def _image_size(value: Any) -> int:
    return _whole("image_size (in pixels)", value, at_least=MIN_IMAGE_SIZE)


def _alpha(value: Any) -> float:
    try:
        alpha = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        alpha = math.nan
    if not 0.0 < alpha <= MAX_ALPHA:
        raise InputError(f"alpha must be a number above 0 and at most {MAX_ALPHA:g}. Received: {value!r}")
    return alpha
