"""Makes two small untrained models with 16-bit activations, for the tests on the JVM.

    python android_demo/golden/make_small.py FOLDER

`small_int16x8.tflite` is edge_cv's, with float32 input and output: TensorFlow Lite 2.16.1 has no kernel from int8
to int16. `small_int16.tflite` comes from TensorFlow's converter, with int16 input and output and no metadata; its
sidecar is written by hand.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

SIDE, CLASSES = 32, 10


def make(folder: Path) -> None:
    import keras
    import tensorflow as tf

    from converters import Int16x8, to_tflite
    from converters.images.preprocessing import Preprocessing

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), name="pixels"),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )
    images = np.random.default_rng(0).integers(0, 256, (32, SIDE, SIDE, 3)).astype(np.float32)
    preprocessing = Preprocessing(SIDE)
    labels = [f"class {i}" for i in range(CLASSES)]
    conversion = to_tflite(model, Int16x8(io="float32"), calibration=images, labels=labels, preprocessing=preprocessing)
    conversion.save(folder / "small_int16x8.tflite")

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [wide]
    converter.inference_input_type = converter.inference_output_type = tf.int16
    content = converter.convert()
    (folder / "small_int16.tflite").write_bytes(content)
    record = {"name": "small", "scheme": "int16", "labels": labels, "preprocessing": {"image_size": SIDE}}
    record |= {"file": "small_int16.tflite", "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "small_int16.json").write_text(json.dumps(record))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
