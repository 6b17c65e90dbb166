"""The exported web page in Chromium compared with Python: agreement of top-1 and time of an inference.

    python benchmarks/browser.py runs/browser/efficientnet_lite0_int8.tflite --data FOLDER [--split test]

Both sides take turns of 20 photos and inferences, so that other load affects both alike. JPEG decoders differ by one
step in some pixels, which may change the top-1 of photos whose two likeliest classes are close. The benchmark needs
Debian's chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

TURN = 20


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server; `isolated` sends the headers that threads in WebAssembly require."""

    isolated = False

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_) -> None:
        pass


@dataclass
class Results:
    """What both sides measured: the page's top-1 of each photo, and the durations of inferences in milliseconds."""

    predicted: list[int] = field(default_factory=list)
    page_ms: list[float] = field(default_factory=list)
    python_ms: list[float] = field(default_factory=list)
    version: str = ""
    status: str = ""


def compare(artifact: Path, files: list[str], threads: bool) -> Results:
    """Classify the photos in the exported page, in turns with inferences in Python."""
    from playwright.sync_api import sync_playwright

    from converters.tflite.runtime import interpreter
    from edge_cv.deploy.web import export

    model, results = interpreter(artifact.read_bytes()), Results()
    detail = model.get_input_details()[0]
    pixels = np.random.default_rng(0).integers(0, 256, detail["shape"]).astype(detail["dtype"])
    model.set_tensor(detail["index"], pixels)
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    Quiet.isolated = threads
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        export(artifact, folder)
        handler = functools.partial(Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("body[data-state]", timeout=60_000)
        results.status, results.version = page.inner_text("#status"), browser.version
        for start in range(0, len(files), TURN):
            _classify_in_page(page, files[start : start + TURN], results)
            for _ in range(TURN):
                began = time.perf_counter()
                model.invoke()
                results.python_ms.append(1e3 * (time.perf_counter() - began))
        browser.close()
        server.shutdown()
    return results


def _classify_in_page(page: Any, files: list[str], results: Results) -> None:
    page.evaluate("() => document.getElementById('results').replaceChildren()")
    page.set_input_files("#files", files)
    finished = "n => document.querySelectorAll('article[data-top1], article[data-error]').length >= n"
    page.wait_for_function(finished, arg=len(files), timeout=0)
    cards = page.eval_on_selector_all("article", "cards => cards.map(card => ({...card.dataset}))")[::-1]
    results.predicted += [int(card.get("top1", -1)) for card in cards]
    results.page_ms += [float(card["inferenceMs"]) for card in cards if "inferenceMs" in card]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", default="sample", help="labelled photos, or `sample`")
    parser.add_argument("--split", help="one of the splits of the data")
    parser.add_argument("--threads", action="store_true", help="allow threads in WebAssembly")
    options = parser.parse_args()

    from edge_cv import data
    from edge_cv.evaluation import describe_environment, evaluate

    predictions = evaluate({"it": options.artifact}, data.open_samples(options.data, split=options.split)).predictions
    files = [str(path) for path in predictions.files]
    results = compare(options.artifact, files, options.threads)
    in_page, in_python, labels = np.array(results.predicted), predictions.top1("it")[0], predictions.labels

    machine = describe_environment()
    print(f"{machine['cpu']}, {machine['cores']} cores, Chromium {results.version}: {results.status}")
    print(f"top-1 as in Python: {int((in_page == in_python).sum())} of {len(files)} photos")
    for index in np.flatnonzero(in_page != in_python).tolist():
        first, second = predictions[index].top5["it"][:2]
        probabilities = f"{first[1]:.3f}, then {second[1]:.3f}"
        print(f"  {Path(files[index]).name}: {in_page[index]} for {first[0]}; Python: {probabilities}")
    if (labels >= 0).any():
        page_top1, python_top1 = (float(np.mean(classes == labels)) for classes in (in_page, in_python))
        print(f"top-1 against the labels: {page_top1:.2%}, Python {python_top1:.2%}")
    page_ms, python_ms = statistics.median(results.page_ms), statistics.median(results.python_ms)
    print(
        f"inference, median of {len(results.page_ms)}: {page_ms:.2f} ms; "
        f"Python with one thread {python_ms:.2f} ms: {page_ms / python_ms:.1f} x"
    )


if __name__ == "__main__":
    main()
