"""NXP's i.MX 93: Linux on two Cortex-A55, with Arm's NPU Ethos-U65 beside them.

The processor: the NPU multiplies int8 numbers, 256 of them a cycle
(https://developer.arm.com/Processors/Ethos-U65), and is reached from TensorFlow Lite through a delegate
(https://www.linaro.org/blog/direct-kernel-access-to-ethos-u65-npu-on-i-mx9-benchmarks-using-latest-kernel-and-mesa-support).
NXP's own Linux takes a file that Arm's compiler Vela has compiled (NXP, AN13854: NPU Migration Guide from i.MX 8M Plus
to i.MX 93); the run writes it beside the int8 file. What Vela cannot map runs on the CPU. Weights are in DRAM, and Vela
keeps activations in 384 kB of SRAM. Cycles, milliseconds and SRAM in the report are Vela's estimates at 1 GHz, not
measurements; with other memories than those that the report names they differ.

The model: EfficientNet-Lite0 of ImageNet: ReLU6 and no squeeze-and-excitation, so the NPU runs all its operators.

    edge-cv run ethos_u65_imx93 --data PHOTOS --out runs/ethos_u65_imx93
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="ethos_u65_imx93",
    device=TargetDevice(
        "NXP i.MX 93",
        "2 x Cortex-A55 and Ethos-U65-256",
        "TensorFlow Lite with the Ethos-U delegate",
        target="ethos_u",
        compiler="ethos-u65-256",
        clock_mhz=1000,
    ),
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1, 2), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits("int8", max_cycles=20_000_000, max_sram_bytes=393_216, max_cpu_operators=0),
        Limits("int8", min_sqnr_db=20.0, min_agreement=0.9, max_top1_drop=0.05),
    ),
)
