"""Small classifiers of 32x32 RGB images in three classes, in each kind of file that users bring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _old(config: Any, version: str) -> Any:
    """A configuration as Keras before 2.13 wrote it; before 2.4 functional models were of the class Model."""
    if isinstance(config, dict):
        left_out = ("module", "registered_name", "build_config")
        config = {key: _old(value, version) for key, value in config.items() if key not in left_out}
        if config.get("class_name") == "Functional" and version < "2.4":
            config["class_name"] = "Model"
        return config
    return [_old(value, version) for value in config] if isinstance(config, list) else config


def save_keras_2(model: Any, path: Path, version: str = "2.15.0") -> Path:
    """Save a tf_keras model as an `.h5` file of that version of Keras."""
    import h5py

    model.save(path, save_format="h5")
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(_old(json.loads(file.attrs["model_config"]), version)).encode()
        file.attrs["keras_version"] = version.encode()
    return path


def small_features(layers: Any, x: Any) -> Any:
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.LeakyReLU()(layers.DepthwiseConv2D(3, padding="same")(x))
    return layers.SeparableConv2D(8, 3, activation="hard_sigmoid")(x)


def keras_2_model(front: Callable[[Any], Any] | None = None) -> Any:
    """A tf_keras classifier of three classes with layers that Keras 3 configures or computes otherwise."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    image = tf_keras.Input((32, 32, 3))
    x = tf_keras.layers.Rescaling(1 / 255)(image) if front is None else front(image)
    x = tf_keras.layers.GlobalAveragePooling2D()(small_features(tf_keras.layers, x))
    return tf_keras.Model(image, tf_keras.layers.Dense(3, activation="softmax")(x), name="two")


def teachable_machine() -> Any:
    """A model in the form of Teachable Machine's: Sequential models of a functional model and of dense layers."""
    import tf_keras

    tf_keras.utils.set_random_seed(2)
    layers = tf_keras.layers
    image = tf_keras.Input((32, 32, 3))
    features = tf_keras.Model(image, small_features(layers, image), name="model1")
    head = [
        layers.Dense(10, activation="relu", input_shape=(8,)),
        layers.Dense(3, activation="softmax", use_bias=False),
    ]
    return tf_keras.Sequential(
        [
            tf_keras.Sequential([features, layers.GlobalAveragePooling2D()], name="sequential_1"),
            tf_keras.Sequential(head, name="sequential_3"),
        ]
    )


def keras_3_model(
    front: Callable[[Any], Any] | None = None, behind: Callable[[Any], Any] | None = None, name: str = "three"
) -> Any:
    """A Keras 3 classifier: a rescaling, or `front`, then convolutions, then `behind`."""
    import keras

    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    x = small_features(keras.layers, keras.layers.Rescaling(1 / 255)(image) if front is None else front(image))
    x = keras.layers.GlobalAveragePooling2D()(x if behind is None else behind(x))
    return keras.Model(image, keras.layers.Dense(3)(x), name=name)


def in_precision(policy: str, make: Callable[[], Any]) -> Any:
    """A Keras 3 model made under a dtype policy."""
    import keras

    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


def plain_keras_2_model(name: str = "plain") -> Any:
    """A tf_keras classifier of images in -1..1 with layers that tensorflow-model-optimization supports."""
    import tf_keras

    tf_keras.utils.set_random_seed(2)
    layers = tf_keras.layers
    image = tf_keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.Conv2D(8, 1, activation="relu")(x)])
    return tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name=name)


def normalized_images(count: int = 24) -> np.ndarray:
    """Seeded images in -1..1, float32 `(count, 32, 32, 3)`: smooth colours under noise."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(-1, 1, (count, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 0.1, coarse.shape), -1, 1).astype(np.float32)


def fake_quantized() -> Any:
    """A tf_keras classifier under tfmot's quantize_model, trained for a few steps on `normalized_images`."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    model = tfmot.quantization.keras.quantize_model(plain_keras_2_model("aware"))
    model.compile(tf_keras.optimizers.Adam(0.02), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.concatenate([normalized_images()] * 4)
    model.fit(images, images.mean((1, 2)).argmax(1), epochs=25, batch_size=24, verbose=0)
    return model


def channels_first() -> Any:
    """A tf_keras classifier of images with channels first, as PyTorch's models take them."""
    import tf_keras

    tf_keras.utils.set_random_seed(5)
    image = tf_keras.Input((3, 32, 32), batch_size=1)
    x = tf_keras.layers.Conv2D(8, 3, strides=2, activation="relu")(tf_keras.layers.Permute((2, 3, 1))(image / 255.0))
    return tf_keras.Model(image, tf_keras.layers.Dense(3)(tf_keras.layers.GlobalAveragePooling2D()(x)))
