"""Rockchip RK3588 (Orange Pi 5, Rock 5): an NPU of three cores that computes in float16 and int8.

The processor: the NPU does 6 TOPS in int8 (https://www.rock-chips.com/a/en/products/RK35_Series/2022/0926/1660.html)
and reads files that Rockchip's compiler RKNN-Toolkit2 has made (https://github.com/airockchip/rknn-toolkit2). The
compiler reads float ONNX and writes float16; with `--set device.quantize=True` it quantizes to int8 itself, on the
calibration photos. It is installed once, in an environment of its own: `edge-cv compile --install rknn`. The report
has the compiler's count of cycles of one core, the operators that stay on the CPU, and the answers of the compiler's
simulator on 100 photos. Nothing of it is measured on a board; the compiler names no clock, so there are no
milliseconds.

The model: EfficientNet-Lite0 of ImageNet: ReLU6 and no squeeze-and-excitation, so the NPU runs all its convolutions.

    edge-cv compile --install rknn
    edge-cv run rk3588 --data PHOTOS --out runs/rk3588
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="rk3588",
    device=TargetDevice(
        "Rockchip RK3588",
        "4 x Cortex-A76, 4 x Cortex-A55, NPU of three cores",
        "RKNN runtime, from ONNX",
        scheme="onnx_float32",
        compiler="rk3588",
    ),
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32",),
    onnx=("float32",),
    measure=Measure(threads=(1, 2), runs=50),
    analysis=Analysis(grad_cam=6),
    limits=(Limits("onnx_float32", min_agreement=1.0, max_cpu_operators=3, min_simulated_agreement=0.95),),
)
