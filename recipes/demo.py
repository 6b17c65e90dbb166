"""The demo: EfficientNet-Lite0 with ImageNet weights, float and quantized, compared on 20 real photos.

    edge-cv run demo --out runs/demo          (or: make demo)
    edge-cv run demo --data FOLDER            on your own photos of ImageNet classes

EfficientNet-Lite (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) is EfficientNet
without squeeze-and-excitation and with ReLU6, designed for quantization: 4.65 M parameters, 75.1 % top-1 on ImageNet's
50,000 validation photos in float32. Weights, photos and labels are installed as packages; the run downloads nothing.
"""

from __future__ import annotations

from edge_cv.recipe import Data, Limits, Measure, Model, Recipe

RECIPE = Recipe(
    name="demo",
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "float16", "dynamic_int8", "int8"),
    onnx=("float32",),
    measure=Measure(threads=(1, 2), runs=100, warmup=10),
    limits=(
        # int8 is a quarter of float32; the labels and the metadata add some kilobytes
        Limits("int8", max_size_bytes=5_500_000, max_size_ratio=0.3, min_agreement=0.8, min_sqnr_db=15.0),
        Limits("float16", max_size_ratio=0.52, min_agreement=0.95),
    ),
    notes=(
        "The 20 photos are ImageNet photos of the package foolbox, of 19 of the 1000 classes. They are probably easier "
        "than the validation set, on which the published top-1 of the float model is 75.1 %.",
    ),
)
