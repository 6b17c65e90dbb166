"""Raspberry Pi Zero 2 W: int8 at a smaller image size, on small cores with little memory.

The processor: RP3A0, four Cortex-A53 at 1 GHz with 512 MB
(https://www.raspberrypi.com/documentation/computers/processors.html). They have no int8 dot product. An int8 network is
still faster than a float one, because four times as many weights fit into the caches and into each load, but by less
than on newer cores. The latency depends on the multiply-accumulates, which grow with the square of the image's side.

The model: EfficientNet-Lite0 at 192 instead of 224 pixels, with 0.73 times the multiply-accumulates. On 400 ImageNet
photos its float top-1 was 86.25 % against 89.00 % (81.50 % at 160). Install ai-edge-litert on 64-bit Raspberry Pi OS.

    edge-cv run raspberry_pi_zero_2 --data PHOTOS --out runs/raspberry_pi_zero_2
    edge-cv benchmark runs/raspberry_pi_zero_2/efficientnet_lite0_int8.tflite --threads 1,4 --device ssh://pi@zero2.local
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="raspberry_pi_zero_2",
    device=TargetDevice("Raspberry Pi Zero 2 W", "4 x Cortex-A53, 1 GHz, 512 MB", "LiteRT, XNNPACK", target="cpu"),
    model=Model("efficientnet_lite0", weights="imagenet", image_size=192),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits(
            "int8",
            max_size_bytes=5_500_000,
            min_sqnr_db=18.0,
            min_agreement=0.85,
            max_top1_drop=0.05,
            max_latency_ratio=1.2,
        ),
    ),
)
