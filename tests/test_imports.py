"""The direction of imports, the cost of importing, and the packages in the wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edge_cv

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization", "onnx", "matplotlib", "PIL", "rich")
LIGHT = ("edge_cv", "converters", "edge_cv.cli.app", "edge_cv.models", "edge_cv.evaluation", "edge_cv.recipe")


def test_imports_run_from_recipes_to_edge_cv_to_converters():
    pytest.importorskip("importlinter", reason="pip install 'edge-cv[test]'")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


IMPORTED = """
import gc, sys
from converters.native_logs import import_tensorflow
from edge_cv.cli.unused_imports import UNUSED, skip_unused_imports
skip_unused_imports()
import_tensorflow()
import keras, matplotlib.pyplot as own  # a recipe, a report
print([package for package, _ in UNUSED if package in sys.modules and package != "matplotlib"])
print(gc.get_freeze_count() > 100_000, keras.ops.add(1, 1).shape, own.plot.__name__)
"""


def test_a_command_imports_nothing_that_only_keras_uses_and_leaves_tensorflow_out_of_collections():
    pytest.importorskip("matplotlib")
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True () plot"]


def test_every_sub_package_is_reachable_from_edge_cv():
    packages = {path.parent.name for path in (ROOT / "edge_cv").glob("*/__init__.py")} - {"cli", "recipes"}
    assert set(edge_cv.__all__) == packages
    assert packages <= set(dir(edge_cv))
    code = "import edge_cv; print(edge_cv.training.fit.__module__, edge_cv.compression.__name__, edge_cv.recipe.Recipe)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nosuch"):
        edge_cv.nosuch  # noqa: B018


@pytest.mark.slow
def test_the_wheel_has_every_package_and_the_recipes_as_edge_cv_recipes(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    source = tmp_path / "source"
    for name in tracked:
        if name.startswith(("converters/", "edge_cv/", "recipes/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    python = {name for name in tracked if name.startswith(("converters/", "edge_cv/")) and name.endswith(".py")}
    shipped = {f"edge_cv/{name}" for name in tracked if name.startswith("recipes/")}
    assert files >= python | shipped | {"edge_cv/report/page.html", "edge_cv/deploy/web/index.html"}
    assert {name.split("/")[0] for name in files if not name.startswith("edge_cv-")} == {"converters", "edge_cv"}
