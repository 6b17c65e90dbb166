"""Reports for the tests of `edge_cv.report`, and readers of its page."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from edge_cv.evaluation.latency import Latency
from edge_cv.recipe import Output
from edge_cv.report import PhotoResult, Report, Row

HOST = "AMD EPYC 7B13, 2 cores"
HOSTILE = "<script>alert('x')</script>\"'&{{ 617*3 }}$\\frac"


def tflite(scheme: str, stage: str = "") -> Output:
    return Output(stage, "tflite", scheme)


FLOAT32, INT8 = tflite("float32"), tflite("int8")


def latency(median_ms: float, threads: int = 1, *, samples: bool = True, seed: int = 0, host: str = HOST) -> Latency:
    """50 inferences around a median, or only their percentiles."""
    drawn = median_ms * np.random.default_rng(seed).gamma(8, 1 / 80, 50) + median_ms * 0.9
    made = Latency.from_samples(host, "LiteRT 2.3.0 (XNNPACK)", threads, [float(v) for v in drawn])
    return made if samples else dataclasses.replace(made, p50_ms=median_ms, samples_ms=())


def wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def example(photos: int = 20, layers: int = 64, jpeg: bytes | None = None) -> Report:
    """A report such as the demo's: EfficientNet-Lite0 as float32, float16, dynamic_int8, int8 and ONNX."""
    rng = np.random.default_rng(7)
    names = ["stem_conv", *(f"block{b}{'abc'[r]}_{part}" for b in range(1, 8) for r in range(3)
                            for part in ("expand_conv", "depthwise_conv", "project_conv")), "head_conv"]  # fmt: skip
    noise = [{"layer": f"efficientnet_lite0/{name}/Relu6;efficientnet_lite0/{name}/batch_norm", "sqnr_db": float(v)}
             for name, v in zip(names[:layers] + [f"extra_{n}" for n in range(layers - len(names))],
                                30 - np.linspace(0, 8, layers) + rng.normal(0, 2, layers), strict=False)]  # fmt: skip
    table = (
        (tflite("float32"), "efficientnet_lite0_float32.tflite", 18_577_964, 17_240_113, 18, None, 1.0, 9.8, 42e6),
        (tflite("float16"), "efficientnet_lite0_float16.tflite", 9_342_016, 8_611_402, 18, 72.3, 1.0, 9.9, 61e6),
        (
            tflite("dynamic_int8"),
            "efficientnet_lite0_dynamic_int8.tflite",
            5_023_440,
            4_402_113,
            17,
            20.5,
            0.95,
            26.4,
            38e6,
        ),
        (tflite("int8"), "efficientnet_lite0_int8.tflite", 4_986_312, 4_330_090, 18, 19.8, 0.95, 4.7, 21e6),
        (
            Output("", "onnx", "float32"),
            "efficientnet_lite0_float32.onnx",
            18_590_210,
            17_251_000,
            18,
            118.0,
            1.0,
            11.2,
            55e6,
        ),
    )
    rows = tuple(
        Row(
            output,
            file=file,
            size_bytes=size,
            gzip_bytes=gzip,
            parameters=4_652_008,
            macs=385_000_000,
            images=20,
            top1=right / 20,
            top5=0.95,
            top1_ci95=wilson(right / 20, 20),
            agreement=agreement,
            agreement_ci95=wilson(agreement, 20),
            sqnr_db=sqnr,
            latency=(latency(ms, 1, seed=n), latency(ms * 0.6, 2, seed=n + 9)),
            peak_memory_bytes=int(memory),
            layers=tuple(noise) if output.name == "int8" else (),
        )
        for n, (output, file, size, gzip, right, sqnr, agreement, ms, memory) in enumerate(table)
    )
    classes = [
        "golden retriever",
        "black-and-white colobus monkey",
        "volcano",
        "espresso",
        "lycaenid butterfly",
        "space shuttle",
    ]

    def seen(place: int, swap: bool) -> list[list]:
        order = list(np.roll(classes, -place)[:5])
        order[:2] = order[1::-1] if swap else order[:2]
        return [[str(name), share] for name, share in zip(order, (0.72, 0.13, 0.06, 0.012, 0.003), strict=True)]

    return Report(
        recipe={"name": "demo", "model": "efficientnet_lite0", "schemes": [row[0].name for row in table], "fit": None},
        environment={
            "host": HOST,
            "system": "Linux 6.1, x86_64",
            "python": "3.11.2",
            "date": "2026-03-01",
            "versions": {"tensorflow": "2.21.0", "keras": "3.15.1", "ai-edge-litert": "2.3.0", "numpy": "2.4.1"},
        },
        rows=rows,
        photos=tuple(
            PhotoResult(
                f"imagenet_{n:02d}_{n * 31}.jpg",
                classes[n % len(classes)],
                jpeg,
                {"float32": seen(n, False), "int8": seen(n, n in (4, 11))},
            )
            for n in range(photos)
        ),
        notes=("The 20 photos are ImageNet's, from the foolbox package; calibration used other photos.",),
    )


class Page(HTMLParser):
    """The parts of a page: ids, references, elements, text, images, scripts; `open` is empty if tags are balanced."""

    VOID = ("meta", "img", "wbr", "br", "link", "input", "use", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.references: set[str] = set(re.findall(r"url\(#([^)]*)\)", text))
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self.images: list[dict] = []
        self.scripts: list[str] = []
        self.policy = ""
        self.feed(text)
        self.text = " ".join(self.words).replace("\u00a0", " ").replace("\u2011", "-").replace("\u2060", "")

    def handle_starttag(self, tag: str, attributes: list) -> None:
        fields = dict(attributes)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in fields:
            self.ids.append(fields["id"])
        if tag == "img":
            self.images.append(fields)
        if fields.get("http-equiv") == "Content-Security-Policy":
            self.policy = fields["content"]
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.add(value[1:]) if value.startswith("#") else self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PROBE = """<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;height:2000px"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement
  const past = e => {{ const box = e.getBoundingClientRect()
    return box.width && (box.right > {width} + 1 || box.left < -1) && !e.closest(".scroll, .hidden") }}
  const cut = [...page.querySelectorAll("svg text")].filter(t => {{
    const a = t.getBoundingClientRect(), b = t.closest("figure").getBoundingClientRect()
    return a.left < b.left || a.right > b.right || a.top < b.top || a.bottom > b.bottom }})
  const small = [...page.querySelectorAll("svg text")].filter(t => t.getBoundingClientRect().height < 9)
  document.title = JSON.stringify({{ scroll: root.scrollWidth, sheets: page.styleSheets.length,
    past: [...page.querySelectorAll("body *")].filter(past).map(e => e.tagName + "." + e.className).slice(0, 5),
    cut: cut.map(t => t.textContent), small: small.map(t => t.textContent) }})
}}</script></body>"""


def measured_in_a_browser(folder: Path, width: int) -> dict:
    """The layout of the folder's report.html in a window of that width, as chromium computes it."""
    (folder / "probe.html").write_text(PROBE.format(width=width))
    flags = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", "--allow-file-access-from-files", "--virtual-time-budget=5000",
             f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 100},2000"]  # fmt: skip
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    page = (folder / "probe.html").as_uri()
    out = subprocess.run([CHROMIUM, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", out.stdout, re.S)[1]))
