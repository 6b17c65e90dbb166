"""The exported page in Chromium against Python: same top-1 on how many photos, and how long an inference takes.

    python benchmarks/browser.py runs/browser/efficientnet_lite0_int8.tflite --data FOLDER [--split test]

Photos and inferences of both sides are taken in turns of 20, so that what else the machine does falls on both. JPEG
decoders differ by a step of a pixel here and there: photos whose two likeliest classes are close may differ for it.
Needs Debian's chromium and the package playwright.
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
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

TURN = 20


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server; with `isolated` it sends what threads in WebAssembly want."""

    isolated = False

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", default="sample", help="labelled photos, or `sample`")
    parser.add_argument("--split", help="one of its splits")
    parser.add_argument("--threads", action="store_true", help="serve the page so that it may use threads")
    options = parser.parse_args()

    from playwright.sync_api import sync_playwright

    from converters.tflite.runtime import interpreter
    from edge_cv import data
    from edge_cv.deploy.web import export
    from edge_cv.evaluation import describe_environment, evaluate

    Quiet.isolated = options.threads
    source = data.open_samples(options.data, split=options.split)
    evaluation = evaluate({"it": options.artifact}, source)
    predicted = evaluation.predictions.top1("it")[0]
    files = [str(path) for path in evaluation.predictions.files]
    at = interpreter(options.artifact.read_bytes())
    detail = at.get_input_details()[0]
    at.set_tensor(detail["index"], np.random.default_rng(0).integers(0, 256, detail["shape"]).astype(detail["dtype"]))
    here, there, found = [], [], []
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        export(options.artifact, folder)
        handler = functools.partial(Quiet, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.wait_for_selector("body[data-state]", timeout=60_000)
        status = page.inner_text("#status")
        for start in range(0, len(files), TURN):
            page.evaluate("() => document.getElementById('results').replaceChildren()")
            turn = files[start : start + TURN]
            page.set_input_files("#files", turn)
            wanted = "n => document.querySelectorAll('article[data-top1], article[data-error]').length >= n"
            page.wait_for_function(wanted, arg=len(turn), timeout=0)
            cards = page.eval_on_selector_all("article", "cards => cards.map(card => ({...card.dataset}))")[::-1]
            found += [int(card.get("top1", -1)) for card in cards]
            there += [float(card["inferenceMs"]) for card in cards if "inferenceMs" in card]
            for _ in range(TURN):
                began = time.perf_counter()
                at.invoke()
                here.append(1e3 * (time.perf_counter() - began))
        version = browser.version
        browser.close()
        server.shutdown()

    machine = describe_environment()
    same = int((np.array(found) == predicted).sum())
    print(f"{machine['cpu']}, {machine['cores']} cores, Chromium {version}: {status}")
    print(f"top-1 as in Python: {same} of {len(files)} photos")
    for place in np.flatnonzero(np.array(found) != predicted):
        top = evaluation.predictions[place].top5["it"]
        said = f"{top[0][1]:.3f}, then {top[1][1]:.3f}"
        print(f"  {Path(files[place]).name}: {found[place]} for {top[0][0]}; Python: {said}")
    labels = evaluation.predictions.labels
    if (labels >= 0).any():
        own, theirs = (float(np.mean(given == labels)) for given in (np.array(found), predicted))
        print(f"top-1 against the labels: {own:.2%}, Python {theirs:.2%}")
    own, theirs = statistics.median(there), statistics.median(here)
    print(
        f"inference, median of {len(there)}: {own:.2f} ms; Python at one thread {theirs:.2f} ms: {own / theirs:.1f} x"
    )


if __name__ == "__main__":
    main()
