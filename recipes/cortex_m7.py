"""A microcontroller with a Cortex-M7, such as STM32H743: TensorFlow Lite for Microcontrollers, without files or heap.

The processor: up to 480 MHz, 2 MB of flash, 1 MB of RAM, of which 512 kB are contiguous
(https://www.st.com/en/microcontrollers-microprocessors/stm32h743-753.html). Its DSP extension multiplies two pairs of
int16 at once; CMSIS-NN's int8 kernels use it (https://arxiv.org/abs/1801.06601). Weights are read directly from flash.
Activations are in one block of RAM, the arena, whose size is fixed when the program is built. The run computes flash
and arena size from the file, and writes the file as a C array,
with its operators, its constants, the preprocessing of photos in C and an example main.cc.

The model: MobileNet with width 0.25 at 96 pixels, as in the Visual Wake Words paper (https://arxiv.org/abs/1906.05721),
whose memory limit is 250 kB. It is trained here, on your photos or on scikit-learn's digits.

    edge-cv run cortex_m7 --data PHOTOS --out runs/cortex_m7
"""

from edge_cv.recipe import Analysis, Augment, Data, Fit, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="cortex_m7",
    device=TargetDevice(
        "Cortex-M7 microcontroller",
        "Cortex-M7 with DSP extension",
        "TensorFlow Lite for Microcontrollers, CMSIS-NN",
        target="micro",
        package="c_array",
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
    limits=(Limits("int8", max_size_bytes=400_000, max_arena_bytes=250_000, min_agreement=0.97, max_top1_drop=0.01),),
    notes=("scikit-learn's handwritten digits: real, but small; the figures show the chain, not your task.",),
)
