"""A browser, on a computer or a phone: a page that runs the model itself; photos never leave the device.

The processor: the model runs in WebAssembly with 128-bit SIMD, through LiteRT.js
(https://ai.google.dev/edge/litert/web), which has the runtime and kernels (XNNPACK) of an app. int8 is the fastest: in
Chromium 156 on two cores of an AMD EPYC, EfficientNet-Lite0 took 20 ms in int8 and 30 ms in float32 with one thread
(Python's runtime: 5 and 9 ms; measured by benchmarks/browser.py), and int8 is a quarter of the download. float16 took
four times as long as float32. LiteRT.js 2.5 accepts float32, int32 and uint8 inputs and outputs and refuses int8; with
io="float32", XNNPACK runs the whole graph.

The model: EfficientNet-Lite0 has no squeeze-and-excitation and no swish, which lose accuracy in int8. The page has the
5.3 MB model and one build of LiteRT.js, 9.4 MB, fetched through npm once. More threads need a server that sends
Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp
(https://web.dev/articles/coop-coep); without them the page runs with one thread. The latency limit below applies to the
machine of the run, not to the browser.

    edge-cv run browser --data PHOTOS --out runs/browser
    python3 -m http.server --directory runs/browser/web         then open http://localhost:8000
"""

from edge_cv.recipe import Data, Limits, Measure, Model, Recipe, TargetDevice

RECIPE = Recipe(
    name="browser",
    device=TargetDevice("Browser", "WebAssembly with SIMD", "LiteRT.js, XNNPACK", package="web"),
    model=Model("efficientnet_lite0", weights="imagenet"),
    data=Data(measure="sample", calibrate="sample_calibration"),
    schemes=("float32", "int8"),
    io="float32",
    measure=Measure(threads=(1,), runs=100),
    limits=(Limits("int8", max_size_bytes=5_500_000, min_agreement=0.8, max_top1_drop=0.1, max_latency_ratio=1.2),),
)
