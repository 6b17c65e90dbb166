"""SavedModels as they are exported from training: at random, in mixed precision, or quantized by Keras."""

from __future__ import annotations

import numpy as np
import pytest
from source_refusal import refused

from converters import to_tflite
from converters.sources import open_source
from converters.tflite.runtime import predict


def test_a_saved_model_that_answers_at_random_is_refused_with_the_remedy(tmp_path, pixels):
    import keras
    from keras import layers

    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2)(layers.RandomFlip("horizontal")(layers.Rescaling(1 / 255)(image)))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)), name="flip")
    model.export(tmp_path / "flip", verbose=False)
    refused(tmp_path / "flip", r"answers at random: the same photo.*model\.save\('x\.keras'\), and convert that")
    model.save(tmp_path / "flip.keras")  # as the message advises
    images = pixels[:4].astype(np.float32)
    outputs = predict(to_tflite(tmp_path / "flip.keras", "float32").content, images)
    np.testing.assert_allclose(outputs, np.asarray(model(images, training=False)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_a_saved_model_of_mixed_precision_converts_in_float32(policy, small_network, pixels, tmp_path):
    import keras

    plain = small_network(lambda layers, x: layers.Rescaling(1 / 255)(x))
    keras.config.set_dtype_policy(policy)
    try:
        small_network(lambda layers, x: layers.Rescaling(1 / 255)(x)).export(tmp_path / "mixed", verbose=False)
    finally:
        keras.config.set_dtype_policy("float32")
    images = pixels[:4].astype(np.float32)
    expected = np.asarray(plain(images, training=False))
    np.testing.assert_allclose(open_source(tmp_path / "mixed").predict(images), expected, atol=0.01)
    outputs = predict(to_tflite(tmp_path / "mixed", "float32", calibration=pixels).content, images)
    np.testing.assert_allclose(outputs, expected, atol=0.01)


def test_a_saved_model_that_keras_quantized_is_recognized(small_network, tmp_path):
    model = small_network()
    model.quantize("int8")
    model.export(tmp_path / "q", verbose=False)
    refused(tmp_path / "q", r"float weights.*int8, as after Keras's model\.quantize")
