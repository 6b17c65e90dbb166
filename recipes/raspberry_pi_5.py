"""Raspberry Pi 5: int8 on four large cores, through XNNPACK.

The processor: Broadcom BCM2712, four Cortex-A76 at 2.4 GHz
(https://www.raspberrypi.com/documentation/computers/processors.html). Its Armv8.2 has the int8 dot product (SDOT) for
which XNNPACK has kernels. It has enough memory for any network here; the limits are time and cooling. Without a fan the
clock falls after minutes of load, so measure for as long as your program runs, and check the reported clock.

The model: EfficientNet-Lite1 at 240 pixels, or Lite0 for more speed. Use two to four threads.

    edge-cv run raspberry_pi_5 --data PHOTOS --out runs/raspberry_pi_5
    edge-cv benchmark runs/raspberry_pi_5/efficientnet_lite1_int8.tflite --threads 1,4 --device ssh://pi@raspberrypi.local
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="raspberry_pi_5",
    device=TargetDevice(
        "Raspberry Pi 5", "4 x Cortex-A76, 2.4 GHz, dot product of int8", "LiteRT, XNNPACK", target="cpu"
    ),
    model=Model("efficientnet_lite1", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits(
            "int8",
            max_size_bytes=6_500_000,
            min_sqnr_db=20.0,
            min_agreement=0.9,
            max_top1_drop=0.05,
            max_latency_ratio=1.2,
        ),
    ),
)
