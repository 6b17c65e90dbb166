"""Where a Keras model looks: the parts of a photo that raise the logit of a class, as Grad-CAM finds them."""

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
    from edge_cv.evaluation.accuracy import Predictions

PICTURE_PIXELS = 160
_OPACITY = 0.75  # of the strongest part of a map


@dataclass(frozen=True)
class Overlay:
    """A photo under the map of one class.

    Attributes:
        name: of the class.
        jpeg: the picture.
    """

    name: str
    jpeg: bytes


@dataclass(frozen=True)
class Explained:
    """A photo and what the model's answer rests on.

    Attributes:
        photo: the file's name.
        label, answer: the names of the true class and of the one that came first.
        probability: of the answer, 0..1.
        jpeg: the part of the photo that the model saw.
        overlays: for the answer, and for the true class where that is another.
    """

    photo: str
    label: str
    answer: str
    probability: float
    jpeg: bytes
    overlays: tuple[Overlay, ...]


def grad_cam(model: Any, images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Maps of what raises a class's logit.

    Each channel of the last feature map counts as much as the logit's mean gradient in it; what lowers the logit is cut
    off. Source: Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via gradient-based
    localization, https://arxiv.org/abs/1610.02391.

    Args:
        model: a functional Keras 3 model, or a built Sequential, on the TensorFlow or the JAX backend.
        images: `(n, height, width, 3)` in the range that the model takes.
        classes: the class to explain in each image, `(n,)`.

    Returns:
        float32 `(n, rows, columns)` in 0..1, of the size of the last feature map; the largest value of each map is 1,
        unless nothing raises the logit: then all are 0.

    Raises:
        InputError: the model has no feature map with rows and columns, or runs on another backend.
    """
    import keras
    import numpy as np

    features = _last_feature_map(model)
    body, head = keras.Model(model.inputs[0], features), keras.Model(features, model.outputs[0])
    maps = body(np.asarray(images, np.float32), training=False)
    gradients = np.asarray(_gradients(head, maps, np.asarray(classes, np.int32)), np.float32)
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    found = np.maximum((weights * keras.ops.convert_to_numpy(maps)).sum(axis=-1), 0)
    peaks = found.max(axis=(1, 2), keepdims=True)
    return (found / np.where(peaks > 0, peaks, 1)).astype(np.float32)


def worth_explaining(predictions: Predictions, name: str, misses: int, hits: int) -> list[int]:
    """Which photos to explain: an artifact's most confident misses first, then hits spread evenly over the photos.

    Where there are fewer misses, more hits take their place.

    Args:
        predictions: of an evaluation.
        name: the artifact.
        misses, hits: how many of each.

    Returns:
        The places of the photos among the predictions.
    """
    import numpy as np

    answers, probabilities = predictions.answers(name)
    labels = predictions.labels
    wrong = np.flatnonzero((labels >= 0) & (answers != labels))
    chosen = wrong[np.argsort(-probabilities[wrong], kind="stable")][:misses]
    right = np.flatnonzero((labels >= 0) & (answers == labels))
    count = min(len(right), hits + misses - len(chosen))
    return [*chosen.tolist(), *(right[i * len(right) // count].item() for i in range(count))]


def explain(
    model: Any,
    preprocessing: Preprocessing,
    predictions: Predictions,
    name: str,
    places: Sequence[int],
    names: Sequence[str],
    source: Samples,
) -> tuple[Explained, ...]:
    """Photos with the maps of an artifact's answer and, where that is wrong, of the true class.

    Args:
        model: the Keras model that the artifact was made from: its maps are shown.
        preprocessing: what part of a photo it sees, and the range that it takes.
        predictions: of an evaluation.
        name: the artifact that answered.
        places: which photos, each with a label.
        names: of all the classes.
        source: the photos that were evaluated.

    Returns:
        One value a photo.
    """
    import numpy as np

    from edge_cv.data import load_pixels, places_by_path

    answers, probabilities = predictions.answers(name)
    labels = predictions.labels
    photos = places_by_path(source, (predictions.files[place] for place in places))
    pixels = [load_pixels(photos[predictions.files[place]], preprocessing) for place in places]
    shown = [(n, c) for n, place in enumerate(places) for c in dict.fromkeys((int(answers[place]), int(labels[place])))]
    if not shown:
        return ()
    inputs = preprocessing.to_input(np.stack([pixels[n] for n, _ in shown]))
    overlays: list[list[Overlay]] = [[] for _ in places]
    for (n, c), heat in zip(shown, grad_cam(model, inputs, [c for _, c in shown]), strict=True):
        overlays[n].append(Overlay(names[c], _jpeg(overlaid(pixels[n], heat))))
    return tuple(
        Explained(
            photo=predictions.files[place].name,
            label=names[labels[place]],
            answer=names[answers[place]],
            probability=float(min(1.0, probabilities[place])),
            jpeg=_jpeg(pixels[n]),
            overlays=tuple(overlays[n]),
        )
        for n, place in enumerate(places)
    )


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The photo, grey where the map is 0 and in colours from violet to yellow the more it comes near 1.

    Args:
        pixels: uint8 `(height, width, 3)`.
        heat: `(rows, columns)` in 0..1, which is resized to the photo.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import numpy as np
    from matplotlib import colormaps
    from PIL import Image

    size = pixels.shape[1], pixels.shape[0]
    large = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = pixels.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    opacity = _OPACITY * large[..., None]
    return np.rint(grey[..., None] * (1 - opacity) + 255 * colormaps["plasma"](large)[..., :3] * opacity).astype(
        np.uint8
    )


def _last_feature_map(model: Any) -> Any:
    """The last tensor of the model that has rows and columns: `(batch, rows, columns, channels)`."""
    for layer in reversed(model.layers):
        tensor = layer.output
        shape = getattr(tensor, "shape", ())
        if len(shape) == 4 and all(isinstance(n, int) and n > 1 for n in shape[1:3]):
            return tensor
    raise InputError(f"Grad-CAM needs a feature map with rows and columns. Received: {model.name}, which has none")


def _gradients(head: Any, maps: Any, classes: np.ndarray) -> Any:
    """How the logit of each image's class changes with its feature map, of the shape of `maps`."""
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
    raise InputError(f"Grad-CAM needs Keras's TensorFlow or JAX backend. Received: KERAS_BACKEND={backend}")


def _jpeg(pixels: np.ndarray) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
