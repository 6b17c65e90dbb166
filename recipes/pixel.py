"""Google Pixel and similar Android phones: int8 on the CPU, through XNNPACK.

The processor: arm64 with large and small cores. Since the Cortex-A76, in phones of 2019, one instruction (SDOT)
multiplies and adds four pairs of int8 numbers; in float32 it is one pair. XNNPACK, LiteRT's default, has kernels for
it, with one weight scale per channel, as in the files made here
(https://blog.tensorflow.org/2021/09/faster-quantized-inference-with-xnnpack.html). One or two threads on large cores
are the usual choice; more threads also use the small cores and heat the phone.

The model: EfficientNet-Lite0 has no squeeze-and-excitation and no swish, which are slow in int8, and ends its blocks
with ReLU6 (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).

The run copies the int8 file to the models of the Android app in android_demo. The second command adds float32, so that
the app can switch between the two.

    edge-cv run pixel --data PHOTOS --out runs/pixel
    edge-cv run pixel --data PHOTOS --out runs/pixel --set device.scheme=float32
    edge-cv benchmark runs/pixel/efficientnet_lite0_int8.tflite --device adb
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="pixel",
    device=TargetDevice(
        "Google Pixel", "arm64, dot product of int8", "LiteRT, XNNPACK", target="cpu", package="android"
    ),
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits(
            "int8",
            max_size_bytes=5_500_000,
            min_sqnr_db=20.0,
            min_agreement=0.9,
            max_top1_drop=0.05,
            max_latency_ratio=1.2,
        ),
    ),
)
