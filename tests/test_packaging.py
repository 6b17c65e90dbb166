"""The sdist and the wheel, the extras, and the errors that name them."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from converters import packages
from converters.errors import InputError
from edge_cv.recipe import Recipe, load

ROOT = Path(__file__).parents[1]
LOWEST = ROOT / "tests" / "lowest-versions.txt"


def requirements() -> dict[str, list[str]]:
    """The requirements of setup.cfg by extra; those of every installation under the empty name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        extra: [line for line in text.splitlines() if line and not line.startswith("#")]
        for extra, text in lists.items()
    }


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


# --- the extras -------------------------------------------------------------------------------------------------------


def test_every_package_that_an_error_names_is_in_the_extra_that_it_names():
    distributions = importlib.metadata.packages_distributions()
    for extra, modules in packages.EXTRAS.items():
        listed = {name_of(requirement) for requirement in requirements()[extra]}
        for module in modules:
            owners = {name.lower().replace("_", "-") for name in distributions.get(module, ())}
            assert not owners or owners & listed, f"edge-cv[{extra}] does not install {module}"


def test_the_base_installation_holds_nothing_that_only_an_extra_needs():
    base = {name_of(requirement) for requirement in requirements()[""]}
    assert not base & {"jinja2", "matplotlib", "onnx", "onnxruntime", "tf2onnx", "tensorboardx", "scikit-learn", "ray"}
    assert not base & {"tensorflow-model-optimization"}  # it wants absl-py 1, other packages want 2


def test_all_missing_packages_are_named_with_one_command(monkeypatch):
    for module in ("jinja2", "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        InputError, match=r"^the demo needs the packages onnx, jinja2: pip install 'edge-cv\[onnx,report\]'$"
    ):
        packages.require("the demo", "onnx", "report")
    packages.require("training", "train")


@pytest.mark.parametrize(
    ("name", "extras"), [("demo", {"onnx"}), ("digits", {"onnx", "train"}), ("android_gpu", set()), ("browser", set())]
)
def test_a_recipe_names_the_extras_that_its_run_needs(name, extras):
    assert set(load(name).extras()) == extras


def test_a_recipe_of_tfmot_needs_the_extra_compress():
    digits = load("digits")
    assert "compress" in digits.with_settings(["prune.engine=tfmot"]).extras()
    assert isinstance(digits, Recipe)


def test_a_run_without_the_packages_of_its_report_writes_nothing(monkeypatch, tmp_path):
    from edge_cv.pipeline import run

    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"the recipe demo needs the package jinja2.*'edge-cv\[report\]'"):
        run(load("demo"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- the bounds -------------------------------------------------------------------------------------------------------


def test_the_lowest_tested_versions_are_the_lower_bounds():
    from packaging.requirements import Requirement
    from packaging.version import Version

    lowest = dict(line.split("==") for line in LOWEST.read_text().splitlines() if "==" in line and line[0] != "#")
    stated = [Requirement(line) for lines in requirements().values() for line in lines if ">=" in line]
    bounds = {one.name: next(s.version for s in one.specifier if s.operator == ">=") for one in stated}
    assert set(lowest) <= set(bounds)
    assert {name: Version(lowest[name]) for name in lowest} == {name: Version(bounds[name]) for name in lowest}
    base = [name_of(line) for line in requirements()[""]]
    assert {name.lower() for name in lowest} >= set(base)


def test_no_requirement_is_bound_to_one_minor_release_unless_its_own_interface_changes_with_each():
    from packaging.requirements import Requirement

    changing = {"tensorflow", "tf-keras", "ai-edge-quantizer", "ai-edge-litert", "tensorflow-model-optimization"}
    for line in requirements()[""]:
        requirement = Requirement(line)
        if requirement.name not in changing and "<" in str(requirement.specifier):
            (upper,) = (s.version for s in requirement.specifier if s.operator == "<")
            assert "." not in upper or upper.startswith("0."), line


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of the sdist and the wheel of the tracked files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the tests do not run in a git checkout")
    pytest.importorskip("build", reason="pip install 'edge-cv[test]'")
    source = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", out, source], capture_output=True, text=True, cwd=out
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The folder of the programs of an environment with the wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (wheel,) = built.glob("*.whl")
    python = folder / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, cwd=folder, env=clean)
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    Path(site, "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def run(program: Path, *words: object, cwd: Path) -> str:
    """What a command prints, in a folder and without this checkout's packages on its path."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [program, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_sdist_and_the_wheel_pass_the_checks_of_an_upload(built):
    pytest.importorskip("twine", reason="pip install 'edge-cv[test]'")
    files = sorted(built.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    contents = subprocess.run(
        [sys.executable, "-m", "check_wheel_contents", "--config", ROOT / "pyproject.toml", files[0]],
        capture_output=True,
        text=True,
    )
    assert contents.returncode == 0, contents.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_data_files_that_the_code_reads(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.check_output(["git", "ls-files", "converters", "edge_cv"], cwd=ROOT, text=True).split()
    assert {name for name in tracked if not name.endswith(".py")} <= names


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(installed, tmp_path):
    command = installed / "edge-cv"
    assert run(command, "--version", cwd=tmp_path).startswith("edge-cv ")
    assert "android" in run(command, "devices", cwd=tmp_path)
    assert "mobilenet" in run(command, "choose", "--max-size", "5MB", cwd=tmp_path)
    script = (
        "import keras, numpy as np, edge_cv, PIL.Image as image, pathlib\n"
        "assert 'environment' in edge_cv.__file__, edge_cv.__file__\n"
        "from edge_cv import models\n"
        "keras.utils.set_random_seed(0)\n"
        "models.build('mobilenet_v1', classes=3, image_size=32, alpha=0.25).save('small.keras')\n"
        "pathlib.Path('photos').mkdir()\n"
        "for i in range(12):\n"
        "    pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)\n"
        "    image.fromarray(pixels).save(f'photos/{i}.png')\n"
    )
    run(installed / "python", "-c", script, cwd=tmp_path)
    run(command, "convert", "small.keras", "--scheme", "int8", "--calibration", "photos", cwd=tmp_path)
    assert (tmp_path / "small_int8.tflite").is_file()
    assert (tmp_path / "small_int8.json").is_file()


@pytest.mark.slow
def test_a_recipe_runs_by_its_name_from_the_wheel(installed, tmp_path):
    smaller = ("--set", "model.image_size=64", "--set", "onnx=()", "--set", "analysis.grad_cam=0")
    run(installed / "edge-cv", "run", "demo", "--quick", *smaller, "--out", "report", cwd=tmp_path)
    assert (tmp_path / "report" / "report.html").is_file()
