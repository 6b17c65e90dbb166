"""A browser, on a computer or a telephone: the page of this recipe runs the model itself, and photos never leave it.

    edge-cv run recipes/browser.py --out runs/browser
    python3 -m http.server --directory runs/browser/web         then open http://localhost:8000

RECIPE_TEXT
"""

from __future__ import annotations

from edge_cv.recipe import Data, Limits, Measure, Model, Recipe

RECIPE = Recipe(
    name="browser",
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    io="float32",
    web="int8",
    measure=Measure(threads=(1,), runs=100),
    limits=(Limits("int8", max_size_bytes=5_500_000, min_agreement=0.8, max_top1_drop=0.1, max_latency_ratio=0.9),),
)
