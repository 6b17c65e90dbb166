"""An Android phone's GPU: float16, through LiteRT's GPU delegate.

The processor: GPUs compute in float16, and the delegate does so by default. Its operators are those of float networks;
it computes an int8 file in float (https://ai.google.dev/edge/litert/performance/gpu). The file therefore has float16
weights, half the size of float32; on a CPU they are converted to float32 once. A GPU pays off with larger networks: for
a small one its start and the copies of input and output take as long as the computation.

The model: EfficientNet-Lite2, the largest Lite model whose weights are available as a package. It has convolutions,
ReLU6 and additions only, so the whole graph stays on the GPU. The report names the operators that the delegate would
leave to the CPU.

    edge-cv run android_gpu --data PHOTOS --out runs/android_gpu
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
