"""Write litert_torch.npz: a small MobileNetV2 as litert-torch converts it, images, and what PyTorch computes for them.

In an environment of its own:

    pip install litert-torch==0.10.0 torch==2.14.1 torchvision==0.29.2
    python tests/golden/make_litert_torch.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2


def network() -> nn.Module:
    """A classifier of five classes with seeded weights, which are not trivial."""
    torch.manual_seed(0)
    model = MobileNetV2(num_classes=5, width_mult=0.25, inverted_residual_setting=[[1, 8, 1, 1], [3, 8, 2, 2]])
    model.features[-1] = nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
    model.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 2 / module.weight[0].numel() ** 0.5)
    return model.eval()


if __name__ == "__main__":
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (24, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    pixels = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    model = network()
    with torch.no_grad():  # logits that depend on the image more than on the bias
        outputs = model(pixels)
        model.classifier[1].weight *= 3 / outputs.std(0)[:, None]
        model.classifier[1].bias.copy_((model.classifier[1].bias - outputs.mean(0)) * 3 / outputs.std(0))
        logits = model(pixels).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        litert_torch.convert(model, (pixels[:1],)).export(str(file))
        content = np.frombuffer(file.read_bytes(), np.uint8)
    np.savez_compressed(Path(__file__).with_name("litert_torch.npz"), content=content, images=images, logits=logits)
    print(logits)
