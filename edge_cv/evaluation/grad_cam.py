"""Grad-CAM: maps of the parts of an image that raise the logit of a class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from converters.images.preprocessing import Preprocessing
    from edge_cv.data import Samples
    from edge_cv.evaluation.predictions import Predictions

PICTURE_PIXELS = 160
_OPACITY = 0.75  # of the strongest part of a map


@dataclass(frozen=True)
class Overlay:
    """An image with the map of one class over it.

    Attributes:
        name: name of the class.
        jpeg: the picture.
    """

    name: str
    jpeg: bytes


@dataclass(frozen=True)
class Explained:
    """An image and the maps that explain the model's prediction.

    Attributes:
        photo: the file's name.
        label, answer: names of the true and of the predicted class.
        probability: of the predicted class, 0..1.
        jpeg: the cropped and resized image.
        overlays: for the predicted class, and for the true class if it is another.
    """

    photo: str
    label: str
    answer: str
    probability: float
    jpeg: bytes
    overlays: tuple[Overlay, ...]


def grad_cam(model: Any, images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Maps of the image regions that raise the logit of a class.

    The channels of the last feature map are summed, weighted by the mean gradient of the logit in each, and negative
    values become 0. Source: Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via
    gradient-based localization, https://arxiv.org/abs/1610.02391.

    Args:
        model: a functional Keras 3 model, or a built Sequential, on the TensorFlow or the JAX backend.
        images: `(n, height, width, channels)` in the model's input range.
        classes: index of the class for each image, `(n,)`.

    Returns:
        float32 `(n, rows, columns)` in 0..1, in the size of the last feature map. The largest value of each map is 1;
        a map is all 0 if nothing raises the logit.

    Raises:
        InputError: the model has no feature map with rows and columns, or runs on another backend.
    """
    import keras
    import numpy as np

    features = _last_feature_map(model)
    extractor, head = keras.Model(model.inputs[0], features), keras.Model(features, model.outputs[0])
    maps = extractor(np.asarray(images, np.float32), training=False)
    chosen, signs = np.asarray(classes, np.int32), np.ones(len(images), np.float32)
    if model.outputs[0].shape[-1] == 1:  # one output rises towards class 1 and falls towards class 0
        chosen, signs = np.zeros_like(chosen), np.where(chosen == 1, 1, -1).astype(np.float32)
    gradients = np.asarray(_gradients(head, maps, chosen), np.float32) * signs[:, None, None, None]
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((weights * keras.ops.convert_to_numpy(maps)).sum(axis=-1), 0)
    peaks = heat.max(axis=(1, 2), keepdims=True)
    return (heat / np.where(peaks > 0, peaks, 1)).astype(np.float32)


def worth_explaining(predictions: Predictions, name: str, misses: int, hits: int) -> list[int]:
    """Select images to explain: a model's most confident misses first, then hits at even intervals.

    If there are fewer misses than requested, more hits are selected.

    Args:
        predictions: of an evaluation.
        name: the model.
        misses, hits: number of each.

    Returns:
        Indices into the predictions.
    """
    import numpy as np

    predicted, probabilities = predictions.top1(name)
    labels = predictions.labels
    wrong = np.flatnonzero((labels >= 0) & (predicted != labels))
    chosen = wrong[np.argsort(-probabilities[wrong], kind="stable")][:misses]
    right = np.flatnonzero((labels >= 0) & (predicted == labels))
    count = min(len(right), hits + misses - len(chosen))
    return [*chosen.tolist(), *(right[i * len(right) // count].item() for i in range(count))]


def explain(
    model: Any,
    preprocessing: Preprocessing,
    predictions: Predictions,
    name: str,
    indices: Sequence[int],
    names: Sequence[str],
    source: Samples,
) -> tuple[Explained, ...]:
    """Images with the maps of a model's predicted class and, if that is wrong, of the true class.

    Args:
        model: the Keras model from which the model `name` was converted; its maps are shown.
        preprocessing: crop, size and input range of the model.
        predictions: of an evaluation.
        name: the evaluated model.
        indices: the images, as indices into the predictions; each has a label.
        names: of all classes.
        source: the evaluated images.

    Returns:
        One value for each image.
    """
    import numpy as np

    from edge_cv.data import load_pixels, places_by_path

    predicted, probabilities = predictions.top1(name)
    labels, files = predictions.labels, [predictions.files[index] for index in indices]
    places = places_by_path(source, files)
    pixels = [load_pixels(places[file], preprocessing) for file in files]
    shown = [
        (image, c)
        for image, index in enumerate(indices)
        for c in dict.fromkeys((int(predicted[index]), int(labels[index])))
    ]
    if not shown:
        return ()
    inputs = preprocessing.to_input(np.stack([pixels[image] for image, _ in shown]))
    overlays: list[list[Overlay]] = [[] for _ in indices]
    for (image, c), heat in zip(shown, grad_cam(model, inputs, [c for _, c in shown]), strict=True):
        overlays[image].append(Overlay(names[c], _jpeg(overlaid(pixels[image], heat))))
    return tuple(
        Explained(
            photo=files[image].name,
            label=names[labels[index]],
            answer=names[predicted[index]],
            probability=float(min(1.0, probabilities[index])),
            jpeg=_jpeg(pixels[image]),
            overlays=tuple(overlays[image]),
        )
        for image, index in enumerate(indices)
    )


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image under a map: grey where the map is 0, from violet to yellow where it rises to 1.

    Args:
        pixels: uint8 `(height, width, channels)`.
        heat: `(rows, columns)` in 0..1; it is resized to the image.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    from converters.images.preprocessing import as_rgb

    size = pixels.shape[1], pixels.shape[0]
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = as_rgb(pixels).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    opacity = _OPACITY * large[..., None]
    return np.rint(grey[..., None] * (1 - opacity) + 255 * colormaps["plasma"](large)[..., :3] * opacity).astype(
        np.uint8
    )


def _last_feature_map(model: Any) -> Any:
    """The model's last tensor with rows and columns, `(batch, rows, columns, channels)`."""
    for layer in reversed(model.layers):
        tensor = layer.output
        shape = getattr(tensor, "shape", ())
        if len(shape) == 4 and all(isinstance(n, int) and n > 1 for n in shape[1:3]):
            return tensor
    raise InputError(
        f"the model must have a feature map with rows and columns for Grad-CAM. Received: {model.name}, which has none"
    )


def _gradients(head: Any, maps: Any, classes: np.ndarray) -> Any:
    """The gradient of the logit of each image's class with respect to its feature map, of the shape of `maps`."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits = head(maps, training=False)
            score = tf.reduce_sum(tf.gather(logits, classes, axis=1, batch_dims=1))
        return tape.gradient(score, maps)
    if backend == "jax":
        import jax

        variables = [[v.value for v in of] for of in (head.trainable_variables, head.non_trainable_variables)]

        def score(maps: Any) -> Any:
            logits, _ = head.stateless_call(*variables, maps, training=False)
            return jax.numpy.take_along_axis(logits, classes[:, None], axis=1).sum()

        return jax.grad(score)(maps)
    raise InputError(f"Keras's backend must be tensorflow or jax for Grad-CAM. Received: KERAS_BACKEND={backend}")


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    from converters.images.preprocessing import as_rgb

    image = Image.fromarray(as_rgb(pixels))
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
