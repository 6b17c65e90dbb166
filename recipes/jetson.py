"""NVIDIA Jetson: ONNX for TensorRT.

The processor: a GPU with tensor cores for float16 and int8. TensorRT reads ONNX and builds an engine for the board that
it runs on. It can choose float16 kernels itself (`--fp16`); int8 must be in the file: QuantizeLinear and
DequantizeLinear around each layer, symmetric, without zero points
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html). Without zero points,
a ReLU's output uses only half of int8's steps, so try float16 first: it keeps the accuracy and is fast enough on most
boards.

The model: EfficientNet-Lite2, whose int8 form has no operator that falls back to float. Input and output are float32 in
ONNX.

    edge-cv run jetson --data PHOTOS --out runs/jetson
    trtexec --onnx=runs/jetson/efficientnet_lite2_onnx_float32.onnx --fp16
    trtexec --onnx=runs/jetson/efficientnet_lite2_onnx_int8.onnx --fp16 --int8
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="jetson",
    device=TargetDevice(
        "NVIDIA Jetson", "GPU with tensor cores", "TensorRT, from ONNX", scheme="onnx_int8", target="tensorrt"
    ),
    model=Model("efficientnet_lite2", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32",),
    onnx=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=50),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits("onnx_float32", min_sqnr_db=60.0, min_agreement=1.0),
        Limits("onnx_int8", max_size_ratio=0.35, min_sqnr_db=10.0, min_agreement=0.8, max_top1_drop=0.1),
    ),
)
