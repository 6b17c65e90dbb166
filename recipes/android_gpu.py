"""An Android phone's GPU: float16, through LiteRT's GPU delegate.

The processor: GPUs compute in float16, and the delegate does so by default; its operators are those of float networks,
and an int8 file is computed in float all the same (https://ai.google.dev/edge/litert/performance/gpu). So the file has
float16 weights: half of float32's size, and on a CPU, when there is no GPU, they are widened to float32 once. A GPU
earns its place with larger networks: its start and the copies of input and output cost as much for a small one.

The model: EfficientNet-Lite2, the largest of the lite forms that has weights as a package; convolutions, ReLU6 and sums
only, so that the whole graph stays on the GPU. What the delegate would hand back to the CPU is named in the report.

    edge-cv run recipes/android_gpu.py --data PHOTOS --out runs/android_gpu
"""

from edge_cv.recipe import Analysis, Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="android_gpu",
    device=TargetDevice(
        "Android phone's GPU", "Adreno, Mali or Xclipse", "LiteRT, GPU delegate", scheme="float16", target="gpu"
    ),
    model=Model("efficientnet_lite2", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "float16"),
    measure=Measure(threads=(1, 2), runs=50),
    analysis=Analysis(grad_cam=6),
    limits=(Limits("float16", max_size_ratio=0.52, min_sqnr_db=40.0, min_agreement=0.95, max_top1_drop=0.05),),
)
