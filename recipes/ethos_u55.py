"""A microcontroller with an Ethos-U55: a Cortex-M55 and Arm's NPU, which multiplies int8 numbers.

The processor: the NPU does 32 to 256 multiply-accumulates a cycle (https://developer.arm.com/Processors/Ethos-U55);
this recipe takes 256, at 500 MHz, the clock of Arm's own estimates. Arm's compiler Vela turns the file into commands of
the NPU (https://pypi.org/project/ethos-u-vela); what it cannot map runs on the Cortex-M55 with CMSIS-NN. There are no
files and no heap: the compiled file is written as a C array, with its only operator, its constants, the preprocessing
of photos in C and an example main.cc. Cycles, milliseconds and SRAM in the report are Vela's estimates, not
measurements; Vela assumes the memories that the report names.

The model: MobileNet with width 0.25 at 96 pixels, as in the Visual Wake Words paper (https://arxiv.org/abs/1906.05721).
Convolutions, ReLU6 and the dense layer run on the NPU whole. It is trained here, on your photos or on scikit-learn's
digits. Without a board, `--quick` shows the chain:

    edge-cv run ethos_u55 --data PHOTOS --out runs/ethos_u55
"""

from edge_cv.recipe import Analysis, Augment, Data, Fit, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="ethos_u55",
    device=TargetDevice(
        "Ethos-U55 microcontroller",
        "Cortex-M55 and Ethos-U55-256",
        "TensorFlow Lite for Microcontrollers, Ethos-U driver",
        target="ethos_u",
        package="c_array",
        compiler="ethos-u55-256",
        clock_mhz=500,
    ),
    model=Model("mobilenet_v1", image_size=96, alpha=0.25, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None, calibration_images=200),
    fit=Fit(
        epochs=20,
        learning_rate=0.1,
        warmup_epochs=2,
        batch_norm_momentum=0.9,
        # a mirrored digit is another sign; for photos: --set fit.augment.flip=0.5
        augment=Augment(crop_scale=(0.7, 1.0), crop_ratio=(0.9, 1.1), flip=0.0, label_smoothing=0.1),
    ),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1,), runs=100),
    analysis=Analysis(grad_cam=6),
    limits=(
        Limits("int8", max_cycles=1_000_000, max_sram_bytes=250_000, max_cpu_operators=0),
        Limits("int8", max_size_bytes=400_000, min_agreement=0.97, max_top1_drop=0.01),
    ),
    notes=("scikit-learn's handwritten digits: real, but small; the figures show the chain, not your task.",),
)
