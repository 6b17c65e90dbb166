"""The models that `make android` builds the app with and tests it on: EfficientNet-Lite0, int8 for the phone.

    edge-cv run android_demo/recipe.py --out runs/android

The float file is made beside it, for the tests on the JVM; at 18.6 MB it would be most of the app. recipes/pixel.py
chooses models for a phone; this one is what is needed and no more.
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
