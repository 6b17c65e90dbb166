"""The web page: its folder, and the page in a real Chromium."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converters import Int8, Preprocessing, to_tflite
from converters.errors import InputError
from edge_cv.deploy.web import export, litertjs, sources

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def _litertjs() -> None:
    """LiteRT.js in the cache; skips the test if npm or its registry is not available."""
    try:
        litertjs.fetch()
    except InputError as error:
        pytest.skip(str(error))


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
    from converters.files import cache_folder

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
def test_the_page_of_a_grey_rectangle_predicts_what_python_predicts(browser, pngs, tmp_path):
    import keras

    from edge_cv import data
    from edge_cv.evaluation import evaluate

    keras.utils.set_random_seed(1)
    image = keras.Input((24, 40, 1), name="pixels")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(10)(x))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel - kernel.mean(axis=0), bias])  # the answer is not the photo's brightness
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 40, 1), np.uint8)
    file = to_tflite(model, Int8(io="uint8"), calibration=noise).save(tmp_path / "grey.tflite")
    evaluation = evaluate({"it": file}, data.open_samples(str(pngs[0].parent), classes=()), workers=1)
    expected = {prediction.file.name: prediction.top5["it"][0][0] for prediction in evaluation.predictions}
    export(file, tmp_path / "web")
    with served(tmp_path / "web") as address, opened(browser, address) as page:
        found = classified(page, pngs)
    assert [int(card["top1"]) for card in found] == [expected[path.name] for path in pngs]
    assert len(set(expected.values())) > 1


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
