"""The recipes of the project: each loads, names its command, and runs in its quick form."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_cv import recipe as recipes

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_names_its_command_and_has_a_quick_form(path):
    recipe = recipes.load(path)
    assert recipe.name == path.stem
    assert f"edge-cv run {path.stem} " in path.read_text()
    quick = recipe.quick()
    assert quick.with_settings(["measure.runs=5"]) == quick
    assert recipes.Recipe(**{field.name: getattr(quick, field.name) for field in dataclasses.fields(quick)}) == quick
    if recipe.fit is not None:
        assert [phase.epochs for phase in quick.fit.all_phases()] == [1] * len(recipe.fit.all_phases())
        assert quick.fit.images <= 256
    moved = recipe.with_data("photos")
    assert (moved.data.measure, moved.data.calibrate) == ("photos", None)


@pytest.mark.parametrize(
    "name", ["alexnet", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_lite0"]
)
def test_recipes_of_papers_name_the_paper_and_what_to_expect(name):
    (path,) = (path for path in RECIPES if path.stem == name)
    text = path.read_text()
    for words in ("trained as", "section", "Expected top-1:", "training images in all", "hours"):
        assert words in text, words
    recipe = recipes.load(path)
    assert recipe.model.classes == 1000
    millions = round(recipe.fit.epochs * 1_281_167 / 1e6)
    assert f"{millions} million training images" in " ".join(text.split())


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Eight crops of each of four ImageNet photos, in class folders."""
    from edge_cv.data import load_image, open_samples

    folder = tmp_path_factory.mktemp("crops")
    samples = open_samples("sample", classes=())
    photos, names = {photo.label: photo for photo in samples.chunk(0, len(samples))}, samples.classes
    for label in sorted(photos)[:4]:
        image = load_image(photos[label].place)
        width, height = image.size
        (folder / names[label].replace("/", " ")).mkdir()
        for number in range(8):
            left, top = number % 4 * width // 8, number // 4 * height // 8
            box = (left, top, left + width // 2, top + height // 2)
            image.crop(box).save(folder / names[label].replace("/", " ") / f"{number}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("finetune", ("model.image_size=96",)),
        ("mobilenet_v2", ("model.image_size=64", "model.alpha=0.35", "model.classes=None")),
    ],
)
def test_a_recipe_that_trains_runs_to_its_report_on_a_folder_of_photos(name, settings, crops, tmp_path):
    command = [sys.executable, "-m", "edge_cv.cli", "run", ROOT / "recipes" / f"{name}.py", "--quick"]
    command += [
        "--data",
        crops,
        "--out",
        tmp_path / "run",
        "--json",
        *(part for s in settings for part in ("--set", s)),
    ]
    done = subprocess.run(
        list(map(str, command)), env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert {row["scheme"] for row in report["rows"]} >= {"float32", "int8"}
    assert all(row["images"] >= 4 for row in report["rows"])
    assert len(report["training"]) == len(recipes.load(ROOT / "recipes" / f"{name}.py").fit.all_phases())
    assert (tmp_path / "run" / "report.html").is_file()
