"""The models of edge_cv compared with keras.applications: time to build, and int8 latency with the same converter.

    python benchmarks/zoo.py

Weights and pixels are random; latency depends on neither. Models of edge_cv are faster where a normalization by channel
is folded into the first convolution instead of staying in the graph as two operators.
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()

    import keras

    from converters import Int8, to_tflite
    from edge_cv import models
    from edge_cv.evaluation import describe_environment

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, keras {machine['versions']['keras']}")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3)).astype(np.float32)

    def peer(name: str) -> keras.Model:
        return getattr(keras.applications, PAIRS[name])(
            input_shape=(224, 224, 3), weights=None, classifier_activation=None
        )

    builders = {
        "edge_cv": lambda: models.build("efficientnet_b0"),
        "keras.applications": lambda: peer("efficientnet_b0"),
    }
    seconds = {name: [] for name in builders}
    for _ in range(5):
        for name, build in builders.items():
            start = time.process_time()
            build()
            seconds[name].append(time.process_time() - start)
    ours, theirs = (min(durations[1:]) for durations in seconds.values())
    print(f"building efficientnet_b0, best of 4: {ours:.2f} s, keras.applications {theirs:.2f} s: ", end="")
    print(f"{ours / theirs:.2f} x (limit 1.3)")

    plain = Int8(correction="none", min_sqnr_db=-150)  # no correction or check: the weights are random
    for name in PAIRS:
        # keras.applications normalizes outside of the model, except in V3 and B0
        given = pixels / 127.5 - 1 if name == "mobilenet_v2" else pixels
        files = [
            to_tflite(model, plain, calibration=images).content
            for model, images in ((models.build(name), pixels), (peer(name), given))
        ]
        ours, theirs = medians_ms(files)
        print(f"{name:20} int8 {ours:.3f} ms, keras.applications {theirs:.3f} ms: {ours / theirs:.3f} x (limit 1.02)")


if __name__ == "__main__":
    main()
