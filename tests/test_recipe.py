from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv import recipe as recipes
from edge_cv.recipe import Augment, Data, Explain, Limits, Measure, Model, Recipe

RECIPE = Recipe("trial", Model("efficientnet_lite0"), limits=(Limits("int8", max_size_ratio=0.3),))


def test_a_recipe_is_plain_json():
    assert json.loads(json.dumps(RECIPE.to_dict()))["model"]["name"] == "efficientnet_lite0"


def test_lists_become_tuples():
    assert Measure(threads=[1, 2]).threads == (1, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Model(3),
        lambda: Model("efficientnet_lite0", classes=0),
        lambda: Model("efficientnet_lite0", classes=True),
        lambda: Model("efficientnet_lite0", alpha="wide"),
        lambda: Measure(threads=()),
        lambda: Measure(threads=(0,)),
        lambda: Measure(runs=0),
        lambda: Data(images=0),
        lambda: Explain(corruptions=-1),
        lambda: Explain(by=(1,)),
        lambda: Limits("int8", min_agreement=98),
        lambda: Augment(crop_scale=(0.0, 1.0)),
        lambda: Augment(crop_scale=(0.5, 1.5)),
        lambda: Augment(crop_scale=(1.0,)),
        lambda: Augment(crop_ratio=(2.0, 1.0)),
        lambda: Augment(flip=2.0),
        lambda: Augment(hue=0.6),
        lambda: Augment(label_smoothing=1.0),
        lambda: Augment(mixup=-1.0),
        lambda: Augment(randaugment=-1),
        lambda: Augment(lighting=float("nan")),
        lambda: Recipe("", Model("efficientnet_lite0")),
        lambda: Recipe("../x", Model("efficientnet_lite0")),
        lambda: Recipe("x", "efficientnet_lite0"),
        lambda: Recipe("x", Model("efficientnet_lite0"), schemes=()),
        lambda: Recipe("x", Model("efficientnet_lite0"), schemes=("int8", "int8")),
        lambda: Recipe("x", Model("efficientnet_lite0"), schemes=("float32",), limits=(Limits("int8"),)),
    ],
)
def test_a_part_refuses_a_value_that_cannot_be(make):
    with pytest.raises(InputError, match=r"must|scheme"):
        make()


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("measure.runs=7", ("measure", "runs"), 7),
        ("measure.threads=4", ("measure", "threads"), (4,)),
        ("measure.threads=(1,4)", ("measure", "threads"), (1, 4)),
        ("explain.by=sex", ("explain", "by"), ("sex",)),
        ("schemes=('float32','int8')", ("schemes",), ("float32", "int8")),
        ("model.weights=imagenet", ("model", "weights"), "imagenet"),
        ("data.calibrate=None", ("data", "calibrate"), None),
    ],
)
def test_a_setting_replaces_one_field(setting, path, value):
    changed = RECIPE.with_settings([setting])
    at = changed
    for name in path:
        at = getattr(at, name)
    assert at == value
    assert changed != RECIPE
    assert dataclasses.replace(changed, **{path[0]: getattr(RECIPE, path[0])}) == RECIPE


@pytest.mark.parametrize("setting", ["measure.runs", "measure.rans=3", "measure.runs=many", "name.x=1", "measure=3"])
def test_a_setting_that_does_not_fit_is_refused(setting):
    with pytest.raises(InputError):
        RECIPE.with_settings([setting])


def test_the_nearest_field_is_suggested():
    with pytest.raises(InputError, match="Did you mean 'runs'"):
        RECIPE.with_settings(["measure.rans=3"])


def test_quick_is_smaller_and_has_no_limits():
    quick = RECIPE.quick()
    assert quick.data.images <= 8
    assert quick.measure.runs < RECIPE.measure.runs
    assert quick.limits == ()
    assert quick.schemes == RECIPE.schemes


def test_a_recipe_file_is_run_and_gives_its_recipe(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from edge_cv.recipe import *\nRECIPE = Recipe('mine', Model('efficientnet_lite0'))\n")
    assert recipes.load(path).name == "mine"


@pytest.mark.parametrize(
    "text",
    [
        "RECIPE = 3\n",
        "import nosuch\n",
        "x = 1\n",
        "RECIPE = (\n",
        "raise SystemExit(3)\n",
        "from edge_cv.recipe import *\nModel(3)",
    ],
)
def test_a_recipe_file_that_gives_none_is_named(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.py"):
        recipes.load(path)


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nosuch\.py"):
        recipes.load(tmp_path / "nosuch.py")


RECIPES = sorted(path for path in (Path(__file__).parents[1] / "recipes").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads_tells_its_command_and_has_a_quick_form(path):
    recipe = recipes.load(path)
    assert recipe.name == path.stem
    assert f"edge-cv run recipes/{path.name}" in path.read_text()
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
    for said in ("as its", "section", "Expected top-1:", "images to learn from", "hours"):
        assert said in text, said
    recipe = recipes.load(path)
    assert recipe.model.classes == 1000
    millions = round(recipe.fit.epochs * 1_281_167 / 1e6)
    assert f"{millions} million images" in " ".join(text.split())
