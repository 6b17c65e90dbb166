"""Weights and the forward pass of AlexNet as torchvision defines it, for the tests."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def torchvision_arrays(width: float, classes: int) -> dict[str, np.ndarray]:
    """Random arrays with the names and shapes of torchvision's AlexNet, its widths scaled."""
    rng = np.random.default_rng(7)
    c1, c2, c3, c4, c5, hidden = (int(width * n) for n in (64, 192, 384, 256, 256, 4096))
    shapes = {
        "features.0": (c1, 3, 11, 11),
        "features.3": (c2, c1, 5, 5),
        "features.6": (c3, c2, 3, 3),
        "features.8": (c4, c3, 3, 3),
        "features.10": (c5, c4, 3, 3),
        "classifier.1": (hidden, c5 * 36),
        "classifier.4": (hidden, hidden),
        "classifier.6": (classes, hidden),
    }
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{name}.weight"] = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    return arrays


def torchvision_forward(arrays: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """AlexNet as torchvision defines it, from pixels 0..255 `(batch, size, size, 3)`."""
    x = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = x.astype(np.float32)
    for index, stride, padding, pool in ((0, 4, 2, 1), (3, 1, 2, 1), (6, 1, 1, 0), (8, 1, 1, 0), (10, 1, 1, 1)):
        kernel = arrays[f"features.{index}.weight"].transpose(2, 3, 1, 0)
        x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, stride, "VALID") + arrays[f"features.{index}.bias"]).numpy()
        if pool:
            x = tf.nn.max_pool2d(x, 3, 2, "VALID").numpy()
    x = x.transpose(0, 3, 1, 2)  # NCHW from here on, the order in which torch flattens
    steps = [(i * x.shape[2] // 6, -(-(i + 1) * x.shape[2] // 6)) for i in range(6)]
    x = np.stack([np.stack([x[:, :, a:b, c:d].mean(axis=(2, 3)) for c, d in steps], -1) for a, b in steps], -2)
    x = x.reshape(len(x), -1)
    for index in (1, 4, 6):
        x = x @ arrays[f"classifier.{index}.weight"].T + arrays[f"classifier.{index}.bias"]
        x = np.maximum(x, 0) if index != 6 else x
    return x
