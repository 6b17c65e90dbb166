"""The inputs of the Android app's build and tests. The app's own tests run on the JVM, by `make android`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from converters.errors import InputError
from edge_cv.deploy import android
from edge_cv.pipeline import run
from edge_cv.recipe import Analysis, Data, Measure, Model, Recipe, TargetDevice

APP = Path(__file__).parents[1] / "android_demo"
PHONE = TargetDevice("a phone", "arm64", "LiteRT", package="android")


def script(path: str) -> ModuleType:
    if str(APP) not in sys.path:
        sys.path.insert(0, str(APP))  # as for a script that Python runs
    spec = importlib.util.spec_from_file_location(Path(path).stem, APP / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app" / android.ASSETS).mkdir(parents=True)
    return tmp_path / "app"


def artifact(folder: Path, name: str, content: bytes = b"model") -> Path:
    path = folder / f"{name}.tflite"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"file": path.name}))
    return path


def test_the_committed_golden_vectors_equal_what_python_computes():
    golden = script("golden/make_golden.py")
    assert golden.golden() == golden.FILE.read_text()
    assert golden.FILE.stat().st_size < 300_000


def test_models_and_their_sidecars_are_copied_into_the_app(tmp_path, app):
    first, second = artifact(tmp_path, "net_int8"), artifact(tmp_path, "net_float32")
    placed = android.install([first], app) + android.install([second], app)
    assert [path.read_bytes() for path in placed] == [b"model", b"model"]
    names = {path.name for path in (app / android.ASSETS).iterdir()}
    assert names == {"net_int8.tflite", "net_int8.json", "net_float32.tflite", "net_float32.json"}


def test_a_model_without_its_sidecar_changes_nothing_in_the_app(tmp_path, app):
    whole, bare = artifact(tmp_path, "whole"), tmp_path / "bare.tflite"
    bare.write_bytes(b"model")
    with pytest.raises(InputError, match=r"bare\.json cannot be read"):
        android.install([whole, bare], app)
    assert not list((app / android.ASSETS).iterdir())


def test_a_recipe_for_the_app_is_rejected_if_there_is_no_app(tmp_path, monkeypatch):
    monkeypatch.setattr(android, "APP", tmp_path / "none")
    recipe = Recipe(name="trial", model=Model("efficientnet_lite0"), schemes=("int8",), device=PHONE)
    with pytest.raises(InputError, match=r"needs a checkout with .*does not exist"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_copies_the_file_of_its_device_into_the_app(tmp_path, app, monkeypatch):
    monkeypatch.setattr(android, "APP", app)
    recipe = Recipe(
        name="trial",
        model=Model("mobilenet_v1", image_size=32, alpha=0.25),
        data=Data(images=4, calibration_images=8),
        schemes=("float32", "dynamic_int8"),
        measure=Measure(threads=(1,), runs=2, warmup=0),
        analysis=Analysis(grad_cam=0),
        device=dataclasses.replace(PHONE, scheme="dynamic_int8"),
    )
    run(recipe, tmp_path / "run")
    placed = app / android.ASSETS / "mobilenet_v1_dynamic_int8.tflite"
    assert {path.name for path in placed.parent.iterdir()} == {placed.name, placed.with_suffix(".json").name}
    sidecar = json.loads(placed.with_suffix(".json").read_text())
    assert sidecar["sha256"] == hashlib.sha256(placed.read_bytes()).hexdigest()
    (placed.parent / "other.tflite").write_bytes(b"another")
    placed.unlink()
    run(dataclasses.replace(recipe, notes=("again",)), tmp_path / "run")
    assert placed.is_file()
    assert (placed.parent / "other.tflite").is_file()


def test_both_builds_of_the_app_have_the_same_versions():
    pom = (APP / "pom.xml").read_text()
    toml = (APP / "gradle/libs.versions.toml").read_text()
    for name in ("agp", "kotlin", "serialization", "junit", "robolectric"):
        by_maven = re.search(rf"<{name}\.version>(.+?)<", pom)[1]
        by_gradle = re.search(rf'^{name} = "(.+?)"', toml, re.MULTILINE)[1]
        assert by_maven == by_gradle
    gradle, build = (APP / "app/build.gradle.kts").read_text(), script("build.py")
    assert f'namespace = "{build.PACKAGE}"' in gradle
    assert f"minSdk = {build.MIN_SDK}\n" in gradle
    assert f"targetSdk = {build.TARGET_SDK}\n" in gradle
    assert f'versionName = "{build.VERSION}"' in gradle


def test_lint_and_the_manifest_merger_are_those_of_the_plugin():
    """Android's tools have the version of the plugin plus 23."""
    plugin = re.search(r"<agp\.version>(\d+)(.+?)<", (APP / "pom.xml").read_text())
    tools = re.search(r"<tools\.version>(.+?)<", (APP / "tools/pom.xml").read_text())[1]
    assert tools == f"{int(plugin[1]) + 23}{plugin[2]}"


def test_the_android_block_becomes_a_function():
    tools = script("google_tools.py")
    block = tools.android_block("plugins {}\n\nandroid {\n    minSdk = 24\n    a {\n    }\n}\n\ndependencies {\n}\n")
    assert block.endswith("fun ApplicationExtension.android() {\n    minSdk = 24\n    a {\n    }\n}\n")
    assert "targetSdk = 36" in tools.android_block((APP / "app/build.gradle.kts").read_text())
    with pytest.raises(ValueError, match="not found"):
        tools.android_block("plugins {}\n")


def test_lint_sees_every_source_of_both_modules(tmp_path):
    text = script("google_tools.py").lint_project(APP, tmp_path / "AndroidManifest.xml", [tmp_path / "a&b.jar"])
    named = set(re.findall(r'<src file="(.+?)"', text))
    assert named == {str(path) for module in ("app", "core") for path in (APP / module / "src/main").rglob("*.kt")}
    assert text.count("a&amp;b.jar") == 2


def test_the_gradle_wrapper_is_the_published_one_and_checks_what_it_fetches():
    wrapper = APP / "gradle/wrapper/gradle-wrapper.jar"
    # https://gradle.org/release-checksums: Gradle 9.4.1
    published = "55243ef57851f12b070ad14f7f5bb8302daceeebc5bce5ece5fa6edb23e1145c"
    assert hashlib.sha256(wrapper.read_bytes()).hexdigest() == published
    properties = wrapper.with_suffix(".properties").read_text()
    assert "gradle-9.4.1-bin.zip" in properties
    assert re.search(r"^distributionSha256Sum=[0-9a-f]{64}$", properties, re.MULTILINE)
    assert os.access(APP / "gradlew", os.X_OK)


def test_the_build_rejects_a_library_with_another_sha256(tmp_path, monkeypatch):
    build = script("build.py")
    monkeypatch.setattr(build, "BUILD", tmp_path)
    (tmp_path / "aar").mkdir()
    (tmp_path / "aar/r8.jar").write_bytes(b"r8")
    monkeypatch.setattr(build, "R8_SHA256", hashlib.sha256(b"r8").hexdigest())
    for name in build.AARS:
        with zipfile.ZipFile(tmp_path / f"aar/{name}.aar", "w") as archive:
            archive.writestr("classes.jar", b"others")
    with pytest.raises(build.BuildError, match=r"tensorflow-lite\.aar must have the SHA-256"):
        build.fetch()
    assert not (tmp_path / "aar/tensorflow-lite.aar").exists()  # the next build fetches it again


def test_the_build_names_missing_tools(monkeypatch):
    build = script("build.py")
    monkeypatch.setattr(build.shutil, "which", lambda tool: None if tool in ("aapt2", "apt-get") else f"/bin/{tool}")
    with pytest.raises(build.BuildError, match=r"must be installed first: apt-get install .*aapt"):
        build.install_tools()


@pytest.mark.slow
def test_make_android_builds_tests_and_signs_the_app():
    build = script("build.py")
    missing = [tool for tool in build.TOOLS if shutil.which(tool) is None]
    if missing or not build.FRAMEWORK.is_file():
        pytest.skip(f"not installed: {', '.join(missing) or build.FRAMEWORK}")
    done = subprocess.run([sys.executable, APP / "build.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    closing = r"^\[INFO\] Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$"
    tests = [int(count) for count in re.findall(closing, done.stdout, re.MULTILINE)]
    assert len(tests) == 2
    assert sum(tests) > 150
    assert build.APK.stat().st_size < 12_000_000
