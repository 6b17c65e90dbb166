"""The models of `make android`: EfficientNet-Lite0, int8 for the app and float32 for its tests.

    edge-cv run android_demo/recipe.py --out runs/android

The float file has 18.6 MB and is not part of the app; the tests on the JVM use it. recipes/pixel.py is the recipe for a
phone; this one makes only what the build needs.
"""

from __future__ import annotations

from edge_cv.recipe import Data, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="android",
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    measure=Measure(threads=(1,), runs=20, warmup=5),
    device=TargetDevice("Android phone", "arm64", "TensorFlow Lite, XNNPACK", package="android"),
)
