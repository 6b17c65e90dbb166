"""Coral's Edge TPU: int8 throughout, by the rules of its compiler.

The processor: it multiplies int8 numbers only. `edgetpu_compiler` maps a graph from its beginning up to the first
unsupported operator; the rest runs on the host's CPU (https://www.coral.ai/docs/edgetpu/models-intro/). Its last
version is for the runtime of TensorFlow 2.5, so operator versions must be old, and a dense layer must have one scale.
About 8 MB of weights fit into its memory; a larger model is transferred again for each image
(https://www.coral.ai/docs/edgetpu/compiler/).

The model: EfficientNet-Lite0: 5.3 MB, with only operators that the compiler maps. The run checks the file against these
rules (`edge-cv check FILE --target edgetpu`). The compiler itself is Google's, for Debian on x86-64:

    edge-cv run coral_edgetpu --data PHOTOS --out runs/coral_edgetpu
    edgetpu_compiler runs/coral_edgetpu/efficientnet_lite0_int8.tflite
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="coral_edgetpu",
    device=TargetDevice(
        "Coral Edge TPU", "Edge TPU, int8 only", "Edge TPU runtime on TensorFlow Lite 2.5", target="edgetpu"
    ),
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1,), runs=100),
    analysis=Analysis(grad_cam=6),
    # 8 MB hold weights and the compiled program
    limits=(Limits("int8", max_size_bytes=6_000_000, min_sqnr_db=20.0, min_agreement=0.9, max_top1_drop=0.05),),
)
