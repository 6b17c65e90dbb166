"""The web page: its arithmetic in Node compared with Python, its folder, and the page in a real Chromium."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters import Int8, Preprocessing, to_tflite
from converters.errors import InputError
from converters.images.preprocessing import INTERPOLATIONS, RULES
from edge_cv.deploy.web import export, litertjs, sources

MODULE = Path(__file__).parents[1] / "edge_cv" / "deploy" / "web" / "classifier.js"
NODE = shutil.which("node")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_node = pytest.mark.skipif(NODE is None, reason="Node is not installed (apt-get install nodejs)")


@pytest.fixture(scope="module")
def _litertjs() -> None:
    """LiteRT.js in the cache; skips the test if npm or its registry is not available."""
    try:
        litertjs.fetch()
    except InputError as error:
        pytest.skip(str(error))


def in_node(script: str, folder: Path) -> str:
    """Run a script in Node with the module as `classifier` and files of `folder`; return what it prints."""
    text = f"""
import * as classifier from {json.dumps(MODULE.as_uri())}
import {{ readFileSync, writeFileSync }} from "node:fs"
const read = (name) => readFileSync({json.dumps(str(folder))} + "/" + name)
const write = (name, content) => writeFileSync({json.dumps(str(folder))} + "/" + name, content)
const json = (name) => JSON.parse(read(name))
{script}
"""
    (folder / "script.mjs").write_text(text)
    done = subprocess.run([NODE, folder / "script.mjs"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def photos() -> list[np.ndarray]:
    """Photos that are hard to resize exactly: tiny, long, of odd sizes, and of pixels 0 and 255 only."""
    rng = np.random.default_rng(5)
    sizes = [(1, 1), (1, 700), (900, 1), (2, 3), (31, 32), (32, 33), (33, 31), (64, 64), (97, 113), (240, 321)]
    sizes += [(7, 333), (100, 64), (96, 64), (97, 64), (333, 7), (500, 90)]  # columns are resized first, or nearly
    found = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    found += [rng.integers(0, 2, (height, width, 3), np.uint8) * 255 for height, width in ((50, 80), (121, 64))]
    return found


@needs_node
def test_crop_and_resize_equals_python_bit_for_bit(tmp_path):
    preprocessings = [
        Preprocessing(size, resize_to=to, rule=rule, interpolation=interpolation)
        for rule in RULES
        for interpolation in INTERPOLATIONS
        for size, to in ((32, None), (32, 37), (64, 73))
    ]
    cases, expected = [], []
    for number, photo in enumerate(photos()):
        rgba = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
        (tmp_path / f"{number}.rgba").write_bytes(rgba.tobytes())
        for preprocessing in preprocessings:
            cases.append({"photo": f"{number}.rgba", "size": photo.shape[:2], "preprocessing": preprocessing.to_dict()})
            expected.append(preprocessing.crop_and_resize(photo).tobytes())
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    in_node(
        """
const made = json("cases.json").map(({ photo, size: [height, width], preprocessing }) =>
  classifier.cropAndResize({ data: new Uint8ClampedArray(read(photo)), width, height }, preprocessing))
write("made.bin", Buffer.concat(made))
""",
        tmp_path,
    )
    made, at = (tmp_path / "made.bin").read_bytes(), 0
    assert len(made) == sum(map(len, expected))
    for case, reference in zip(cases, expected, strict=True):
        assert made[at : at + len(reference)] == reference, case
        at += len(reference)


@needs_node
@pytest.mark.parametrize("kind", ["pixels", "normalized", "pixel_offset", "quantized"])
def test_the_input_tensor_equals_python(tmp_path, kind):
    from edge_cv.evaluation.open_model import InputEncoder

    preprocessing = Preprocessing(8, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    if kind in ("pixels", "pixel_offset"):
        preprocessing = Preprocessing(8)
    whole = kind in ("pixel_offset", "quantized")
    fields = {"scale": 0.0187, "zero_point": 114} if whole else {"scale": None, "zero_point": None}
    offset = 3 if kind == "pixel_offset" else None
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    dtype = "uint8" if whole else "float32"
    expected = InputEncoder(dtype, **fields, pixel_offset=offset, preprocessing=preprocessing)(pixels[None])[0]
    record = {"input": {"dtype": dtype, **fields, "pixel_offset": offset}, "preprocessing": preprocessing.to_dict()}
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    in_node('write("made", classifier.toInput(new Uint8Array(read("pixels")), json("record.json")))', tmp_path)
    np.testing.assert_array_equal(np.frombuffer((tmp_path / "made").read_bytes(), dtype), expected.ravel())


@needs_node
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_top_five_classes_equal_python_also_for_ties(tmp_path, dtype):
    from edge_cv.evaluation.chunk_results import top5

    stored = np.random.default_rng(2).integers(90, 110, 50).astype(dtype)
    values = (stored.astype(np.float32) - 83) * np.float32(0.0679) if dtype == "uint8" else stored
    indices, probabilities = top5(values[None].astype(np.float32), False, False)
    record = {"output": {"dtype": dtype, "scale": 0.0679, "zero_point": 83, "values": "logits"}, "labels": ["a", "b"]}
    (tmp_path / "in.json").write_text(json.dumps([stored.tolist(), record]))
    found = json.loads(in_node('console.log(JSON.stringify(classifier.topClasses(...json("in.json"))))', tmp_path))
    assert [top["index"] for top in found] == indices[0].tolist()
    np.testing.assert_allclose([top["probability"] for top in found], probabilities[0], rtol=1e-6)
    assert all(top["label"] == {0: "a", 1: "b"}.get(top["index"], f"class {top['index']}") for top in found)


@needs_node
def test_the_record_is_read_with_defaults_and_an_invalid_one_is_rejected(tmp_path):
    record = {
        "file": "net.tflite",
        "size_bytes": 9,
        "labels": ["a", "b"],
        "something": {"new": 1},
        "preprocessing": {"image_size": 8, "resize_to": None},
        "input": {"dtype": "uint8", "shape": [1, 8, 8, 3], "scale": 1.0, "zero_point": 0, "pixel_offset": 0},
        "output": {"dtype": "float32", "shape": [1, 2], "scale": None},
    }
    invalid = [
        {"preprocessing": []},
        {"preprocessing": {"image_size": "8"}},
        {"preprocessing": {"image_size": 8, "mean": [1, 2]}},
        {"input": {"dtype": 3}},
        {"input": {"dtype": "uint8", "zero_point": 0.5}},
        {"labels": [1]},
        {"file": None},
    ]
    (tmp_path / "records.json").write_text(
        json.dumps([record, *({**record, **change} for change in invalid), [], None])
    )
    script = """
const results = json("records.json").map((record) => {
  try { return classifier.readRecord(record) } catch (error) {
    if (!(error instanceof classifier.ClassifierError)) throw error
    return error.message
  }
})
console.log(JSON.stringify(results))
"""
    valid, *errors = json.loads(in_node(script, tmp_path))
    assert valid["preprocessing"] == json.loads(json.dumps(Preprocessing(8, resize_to=8).to_dict()))
    assert valid["input"] == record["input"]
    assert valid["output"]["values"] == "logits"
    assert "something" not in valid
    assert len(errors) == len(invalid) + 2
    assert all(error.startswith("The model's record is invalid: ") and "Received: " in error for error in errors), (
        errors
    )


@pytest.fixture(scope="module")
def artifacts(small_model, pixels, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    schemes = {"float32": "float32", "int8": Int8(), "uint8": Int8(io="uint8"), "float_io": Int8(io="float32")}
    return {
        name: to_tflite(
            small_model,
            scheme,
            calibration=[pixels],
            labels=[f"<b>{n}" for n in range(10)],
            preprocessing=Preprocessing(32),
        ).save(folder / f"small {name}.tflite")
        for name, scheme in schemes.items()
    }


@pytest.mark.usefixtures("_litertjs")
def test_the_folder_has_every_file_of_the_page_and_the_unchanged_model(artifacts, tmp_path):
    page, *others = export(artifacts["uint8"], tmp_path / "web")
    assert page == tmp_path / "web" / "index.html"
    assert {path.relative_to(tmp_path / "web").as_posix() for path in (page, *others)} == {
        *("index.html", "classifier.js", "small uint8.tflite", "small uint8.json", "litert/core.js"),
        "litert/wasm-utils.js",
        *(
            f"litert/wasm/litert_wasm_{kind}internal.{end}"
            for kind in ("", "threaded_", "compat_")
            for end in ("js", "wasm")
        ),
    }
    assert (tmp_path / "web" / "small uint8.tflite").read_bytes() == artifacts["uint8"].read_bytes()
    sidecar = json.loads((tmp_path / "web" / "small uint8.json").read_text())
    assert sidecar == json.loads(artifacts["uint8"].with_suffix(".json").read_text())
    assert "{{" not in page.read_text()


def test_a_model_that_the_runtime_does_not_support_is_rejected_and_nothing_is_written(artifacts, tmp_path):
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(b"x")
    for path, message in (
        (artifacts["int8"], r"must be float32 or uint8.*io=\"float32\".*Received: int8"),
        (foreign, "needs a .tflite file"),
        (tmp_path / "none.tflite", "must be a file that exists"),
    ):
        with pytest.raises(InputError, match=message):
            export(path, tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_a_failure_of_npm_is_an_error_of_one_line(artifacts, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"npm must be installed to fetch @litertjs/core@.*Received: no npm") as caught:
        export(artifacts["uint8"], tmp_path / "web")
    assert "\n" not in str(caught.value)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network\nnpm error no registry' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(InputError, match=r"npm must be able to fetch .* Received: npm error network npm error no"):
        export(artifacts["uint8"], tmp_path / "web")
    npm.write_text('#!/bin/sh\nfor last; do :; done\necho other > "$last/core.tgz"\n')
    with pytest.raises(InputError, match=r"npm's archive of @litertjs/core@.* must be sha512-.*Received: sha512-"):
        export(artifacts["uint8"], tmp_path / "web")
    assert not (tmp_path / "web").exists()
    assert not list(tmp_path.glob("cache/**/*.tgz"))


@pytest.mark.usefixtures("_litertjs")
def test_a_modified_archive_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    from edge_cv.deploy.web.litertjs import cache_folder

    kept = {path.name: path.read_bytes() for path in cache_folder().glob("*.tgz")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_folder().mkdir()
    for name, content in kept.items():
        (cache_folder() / name).write_bytes(content if "core" in name else content[:-1])
    litertjs.fetch()
    assert {path.name: path.read_bytes() for path in cache_folder().glob("*.tgz")} == kept


def test_a_recipe_whose_page_cannot_be_made_is_rejected_before_its_first_stage(tmp_path, monkeypatch):
    from edge_cv.pipeline import run
    from edge_cv.recipe import Model, Recipe, TargetDevice

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    device = TargetDevice("Browser", "any", "LiteRT.js", package="web")
    recipe = Recipe("page", Model("efficientnet_lite0"), schemes=("float32", "int8"), device=device)
    for io, message in (("int8", "must have io float32 or uint8. Received: int8"), ("uint8", "Received: no npm")):
        with pytest.raises(InputError, match=message):
            run(dataclasses.replace(recipe, io=io), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------ in a browser


@contextlib.contextmanager
def served(folder: Path, isolated: bool = False) -> Iterator[str]:
    """The address of a local static server of the folder; `isolated` adds the headers that threads need."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            if isolated:
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@contextlib.contextmanager
def opened(browser, address: str, before: str | None = None):
    """Open the page and wait until its model is ready or has failed; every request must go to that address."""
    page, requests = browser.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    if before is not None:
        page.add_init_script(before)
    page.goto(address)
    page.wait_for_selector("body[data-state]", timeout=60_000)
    yield page
    page.close()
    assert [url for url in requests if not url.startswith((address, "blob:", "data:"))] == []


def classified(page, files: list[Path]) -> list[dict]:
    """The results of the page for each file, in order."""
    page.set_input_files("#files", files)
    page.wait_for_function(
        "n => document.querySelectorAll('article[data-top1], article[data-error]').length >= n",
        arg=len(files),
        timeout=0,
    )
    cards = page.eval_on_selector_all("article", "cards => cards.map(c => ({...c.dataset, text: c.innerText}))")
    return cards[::-1][: len(files)]


@pytest.fixture(scope="module")
def pngs(pixels, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pngs")
    for number in range(6):
        Image.fromarray(pixels[number]).resize((61 + number, 70)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("_litertjs")
@pytest.mark.parametrize(("name", "isolated"), [("float32", False), ("uint8", False), ("float_io", True)])
def test_the_page_predicts_what_python_predicts(browser, artifacts, pngs, tmp_path, name, isolated):
    """All decoders read a PNG alike, so the probabilities are equal too."""
    from edge_cv import data
    from edge_cv.evaluation import evaluate

    export(artifacts[name], tmp_path)
    evaluation = evaluate({"it": artifacts[name]}, data.open_samples(str(pngs[0].parent), classes=()), workers=1)
    expected = {prediction.file.name: prediction.top5["it"][0] for prediction in evaluation.predictions}
    with served(tmp_path, isolated) as address, opened(browser, address) as page:
        found = classified(page, pngs)
        status = page.inner_text("#status")
        assert "Inference: median" in page.inner_text("#timing")
    assert f"small {name}.tflite" in status
    assert ("threads" in status) == (isolated and (os.cpu_count() or 1) > 1)
    for path, card in zip(pngs, found, strict=True):
        assert card["name"] == path.name
        assert int(card["top1"]) == expected[path.name][0]
        assert float(card["probability"]) == pytest.approx(expected[path.name][1], abs=2e-3)
        assert f"<b>{card['top1']}" in card["text"]  # shown as text


@pytest.mark.slow
@pytest.mark.usefixtures("_litertjs")
def test_every_failure_has_a_message(browser, artifacts, pngs, tmp_path):
    export(artifacts["uint8"], tmp_path / "web")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (tmp_path / "empty.png").write_bytes(b"")
    with served(tmp_path / "web") as address:
        with opened(browser, address) as page:
            broken, empty, good = classified(page, [tmp_path / "broken.jpg", tmp_path / "empty.png", pngs[0]])
            assert broken["error"] == "The browser cannot decode this file as a photo."
            assert empty["error"] == "The file is empty."
            assert "top1" in good

            page.click("#camera")
            page.wait_for_selector("article[data-name=camera][data-top1]")
            page.click("#camera")
            refuse = "Promise.reject(new DOMException('', 'NotAllowedError'))"
            page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = () => {refuse} }}")
            page.click("#camera")
            page.wait_for_function(
                "() => document.getElementById('status').innerText === 'Access to the camera was denied.'"
            )

        def failure(before: str | None = None) -> str:
            with opened(browser, address, before) as page:
                assert page.get_attribute("body", "data-state") == "error"
                assert page.is_disabled("#files")
                return page.inner_text("#status")

        assert "does not support WebAssembly" in failure("delete globalThis.WebAssembly")
        model = tmp_path / "web" / "small uint8.tflite"
        content = model.read_bytes()
        model.write_bytes(content[: len(content) // 2])
        assert "The model's file is broken" in failure()
        model.write_bytes(content[:8] + bytes(len(content) - 8))
        assert "its file may be broken" in failure()
        model.unlink()
        assert "The model's file cannot be loaded: 404" in failure()
        (tmp_path / "web" / "small uint8.json").write_text("{")
        assert "The model's record is invalid" in failure()


@pytest.mark.slow
@pytest.mark.usefixtures("_litertjs")
def test_the_page_of_the_recipe_has_pythons_top_1_for_every_sample_photo(browser, tmp_path):
    from edge_cv import pipeline
    from edge_cv import recipe as recipes
    from edge_cv.evaluation.predictions import Predictions
    from edge_cv.pipeline.steps import PREDICTIONS

    recipe = recipes.load(Path(__file__).parents[1] / "recipes" / "browser.py")
    recipe = recipe.with_settings(["measure.runs=5", "measure.threads=1", "analysis.grad_cam=0"])
    report = pipeline.run(recipe, tmp_path)
    predictions = Predictions.load(tmp_path / PREDICTIONS)
    assert len(predictions) == 20
    with served(tmp_path / "web") as address, opened(browser, address) as page:
        found = classified(page, list(predictions.files))
    top1 = [int(card["top1"]) for card in found]
    assert top1 == predictions.top1(recipe.device.scheme)[0].tolist()
    assert (
        sum(np.array(top1) == predictions.labels) / 20
        == {row.scheme: row.top1 for row in report.rows}[recipe.device.scheme]
    )


def test_the_pages_sources_load_nothing_from_other_servers():
    assert set(sources()) == {"classifier.js", "index.html"}
    for text in sources().values():
        assert "src=" not in text.replace('src="./', "")
        assert 'import("http' not in text
        assert "googleapis" not in text
