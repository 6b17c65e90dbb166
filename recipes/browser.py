"""A browser, on a computer or a telephone: a page that runs the model itself; photos never leave the machine.

The processor: the model runs in WebAssembly, by LiteRT.js (https://ai.google.dev/edge/litert/web): the same runtime and
the same kernels (XNNPACK) as in an app, in SIMD of 128 bits. int8 is what runs fast: in Chromium 156 on two cores of an
AMD EPYC, EfficientNet-Lite0 took 20 ms in int8 and 30 ms in float32 at one thread (Python's runtime: 5 and 9 ms;
benchmarks/browser.py measures it), and int8 is a quarter of the download. float16 took four times as long as float32.
LiteRT.js 2.5 takes float32, int32 and uint8 at the ends of a model and refuses int8: hence io="float32", with which
XNNPACK runs the whole graph.

The model: EfficientNet-Lite0 has no squeeze-and-excitation and no swish, which int8 keeps badly. To its 5.3 MB comes
one build of LiteRT.js, 9.4 MB, through npm, once. More threads need a server that sends Cross-Origin-Opener-Policy:
same-origin and Cross-Origin-Embedder-Policy: require-corp (https://web.dev/articles/coop-coep); without them the page
runs at one thread. The latency limit below is this machine's, not the browser's.

    edge-cv run recipes/browser.py --data PHOTOS --out runs/browser
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
