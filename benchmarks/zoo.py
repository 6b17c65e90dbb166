"""Our networks against keras.applications' own: time to build, and int8 latency through the same converter.

    python benchmarks/zoo.py

Random weights and random pixels: latency depends on neither. Where ours is faster, it is because a normalization by
channel is absorbed into the first convolution instead of staying in the graph as two operators.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from in_turns import medians_ms

PAIRS = {
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "efficientnet_b0": "EfficientNetB0",
}


def main() -> None:
    import keras

    from converters import Int8, to_tflite
    from edge_cv import models
    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, keras {machine['versions']['keras']}")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype(np.float32)

    def theirs(name: str) -> keras.Model:
        return getattr(keras.applications, PAIRS[name])(
            input_shape=(224, 224, 3), weights=None, classifier_activation=None
        )

    built = {"ours": lambda: models.build("efficientnet_b0"), "theirs": lambda: theirs("efficientnet_b0")}
    seconds = {who: [] for who in built}
    for _ in range(5):
        for who, build in built.items():
            start = time.process_time()
            build()
            seconds[who].append(time.process_time() - start)
    own, peer = (min(s[1:]) for s in seconds.values())
    print(f"building efficientnet_b0, best of 4: {own:.2f} s, keras.applications {peer:.2f} s: ", end="")
    print(f"{own / peer:.2f} x (limit 1.3)")

    plain = Int8(correction="none", min_sqnr_db=-150)  # random weights: only the graph counts
    for name in PAIRS:
        given = pixels / 127.5 - 1 if name == "mobilenet_v2" else pixels  # theirs normalizes outside, except V3 and B0
        files = [
            to_tflite(model, plain, calibration=images).content
            for model, images in ((models.build(name), pixels), (theirs(name), given))
        ]
        own, peer = medians_ms(files)
        print(f"{name:20} int8 {own:.3f} ms, keras.applications {peer:.3f} ms: {own / peer:.3f} x (limit 1.02)")


if __name__ == "__main__":
    main()
