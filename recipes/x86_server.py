"""A server or PC with x86-64 cores: int8 with VNNI, as LiteRT and as ONNX.

The processor: since Intel's Cascade Lake (2019) and AMD's Zen 4 (2022), AVX-512 has VNNI, which multiplies and adds
four pairs of int8 numbers in one instruction (https://en.wikipedia.org/wiki/AVX-512#VNNI); XNNPACK and ONNX Runtime
have kernels for it. Without VNNI, int8 is hardly faster than float32, and the report says so. For many requests at
once, run one process per core with one thread each: this gives more images per second than threads do.

The model: EfficientNet-Lite2, the best Lite model whose weights are available as a package. It is also exported as
int8 ONNX for servers that have ONNX Runtime; compare both rows.

    edge-cv run x86_server --data PHOTOS --out runs/x86_server
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="x86_server",
    device=TargetDevice("x86-64 server", "x86-64, AVX-512 with VNNI", "LiteRT, XNNPACK; or ONNX Runtime", target="cpu"),
    model=Model("efficientnet_lite2", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    onnx=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits(
            "int8",
            max_size_bytes=7_500_000,
            min_sqnr_db=20.0,
            min_agreement=0.9,
            max_top1_drop=0.05,
            max_latency_ratio=1.2,
        ),
    ),
)
