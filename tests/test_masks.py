"""Masked attention in int8: the mask does not widen the range of the logits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from operator_kinds import images

from converters import Int8, Int16x8, to_tflite
from converters.parity import sqnr_db
from converters.tflite.layers import layer_errors
from converters.tflite.runtime import predict

PLAIN = Int8(equalization=False, ranges="minmax", correction="none")
LATER = np.triu(np.ones((1, 16, 16), bool), 1)


def adding(low: float) -> Any:
    return lambda logits: logits + np.where(LATER, low, 0).astype(np.float32)


def writing(low: float) -> Any:
    from keras import ops

    return lambda logits: ops.where(LATER, np.float32(low), logits)


def by_windows(logits: Any) -> Any:
    from keras import ops

    windows = ops.reshape(logits, (-1, 1, 16, 16)) + np.where(LATER, -100, 0.5).astype(np.float32)
    return ops.reshape(windows, (-1, 16, 16))


FORMS = {
    "keras": None,
    "added": lambda: adding(-1e9),
    "added_infinity": lambda: adding(-np.inf),
    "added_by_windows": lambda: by_windows,
    "none": lambda: lambda logits: logits,
    "written": lambda: writing(-3.4e38),
    "written_infinity": lambda: writing(-np.inf),
}


@functools.cache
def attention(form: str) -> Any:
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 8, 8)(layers.Rescaling(1 / 127.5, -1)(image))
    tokens = layers.LayerNormalization()(layers.Reshape((16, 8))(x))
    mask = FORMS[form]
    if mask is None:
        attended = layers.MultiHeadAttention(2, 4)(tokens, tokens, use_causal_mask=True)
    else:
        query, key, value = (layers.Dense(8)(tokens) for _ in range(3))
        logits = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
        attended = ops.matmul(layers.Softmax()(mask()(logits)), value)
    return keras.Model(image, layers.Dense(10)(layers.Flatten()(tokens + attended)))


@functools.cache
def converted(form: str, scheme: Any = PLAIN) -> tuple[float, Any]:
    """The SQNR of the attention's conversion on its calibration images, in dB, and the conversion."""
    model, photos = attention(form), images()
    expected = np.asarray(model(photos, training=False))
    conversion = to_tflite(model, scheme, calibration=photos)
    return sqnr_db(expected, predict(conversion.content, photos, pixel_offset=conversion.pixel_offset)), conversion


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"none"}))
def test_a_mask_leaves_the_logits_their_steps(form):
    reached, conversion = converted(form)
    assert reached > converted("none")[0] - 1
    integer, total = conversion.metadata["operators"].values()
    assert integer == total


def test_what_a_mask_hides_is_no_error_of_the_layer():
    errors = layer_errors(
        to_tflite(attention("added"), "float32").content, converted("added")[1].content, images(), pixel_offset=-128
    )
    before_softmax = next(place for place, error in enumerate(errors) if error.operator == "SOFTMAX") - 1
    assert errors[before_softmax].operator == "ADD"
    assert errors[before_softmax].sqnr_db > 20
    assert errors[before_softmax].saturated < 0.01


def test_a_mask_leaves_int16_activations_their_steps():
    assert converted("added", Int16x8())[0] > converted("none", Int16x8())[0] - 1
