from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from converters.errors import InputError
from edge_cv import recipe as recipes
from edge_cv.recipe import Analysis, Augment, Data, Limits, Measure, Model, Recipe

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
        lambda: Analysis(corruptions=-1),
        lambda: Analysis(by=(1,)),
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
def test_a_part_refuses_an_invalid_value(make):
    with pytest.raises(InputError, match=r"must|scheme"):
        make()


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("measure.runs=7", ("measure", "runs"), 7),
        ("measure.threads=4", ("measure", "threads"), (4,)),
        ("measure.threads=(1,4)", ("measure", "threads"), (1, 4)),
        ("analysis.by=sex", ("analysis", "by"), ("sex",)),
        ("schemes=('float32','int8')", ("schemes",), ("float32", "int8")),
        ("schemes=float32,int8", ("schemes",), ("float32", "int8")),
        ("notes=one sentence, with a comma", ("notes",), ("one sentence, with a comma",)),
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


def test_a_setting_reaches_one_of_several_phases():
    tuned = dataclasses.replace(RECIPE, fit=recipes.fine_tuning())
    changed = tuned.with_settings(["fit.phases[0].epochs=5", "fit.phases[0].train=block12"]).fit
    assert (changed.phases[0].epochs, changed.phases[0].train) == (5, "block12")
    assert dataclasses.replace(changed, phases=tuned.fit.phases) == tuned.fit
    assert tuned.with_settings(["fit.phases=()"]).fit.phases == ()


def test_few_images_get_more_epochs_unless_the_epochs_are_set():
    tuned = recipes.fine_tuning()
    assert tuned.batch_size == 16  # so that these are few images
    assert [phase.epochs for phase in tuned.for_steps(4).all_phases()] == [25, 25]  # 100 steps
    assert [phase.epochs for phase in tuned.for_steps(50).all_phases()] == [10, 10]
    recipe = dataclasses.replace(RECIPE, fit=tuned).with_settings(["fit.epochs=3", "fit.phases[0].epochs=2"])
    assert [phase.epochs for phase in recipe.fit.for_steps(4).all_phases()] == [2, 3]
    assert recipes.fine_tuning(epochs=3).for_steps(4).epochs == 3
    assert [phase.epochs for phase in tuned.quick().for_steps(4).all_phases()] == [1, 1]
    assert (tuned.ema, tuned.quick().ema) == (0.985, None)  # the average of a few steps is the untrained head's


@pytest.mark.parametrize("setting", ["fit.phases[1].epochs=5", "fit.phases.epochs=5", "fit.phases[0]=5"])
def test_a_setting_of_a_phase_that_does_not_exist_lists_what_may_be_set(setting):
    tuned = dataclasses.replace(RECIPE, fit=recipes.fine_tuning())
    with pytest.raises(InputError, match=r"an index in 0\.\.0 and a field of Phase \(epochs, learning_rate, train, "):
        tuned.with_settings([setting])


@pytest.mark.parametrize("setting", ["measure.runs", "measure.rans=3", "measure.runs=many", "name.x=1", "measure=3"])
def test_an_invalid_setting_is_refused(setting):
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


def test_a_recipe_file_is_run_and_its_recipe_returned(tmp_path):
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
def test_a_recipe_file_without_a_valid_recipe_is_named(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mine\.py"):
        recipes.load(path)


def test_a_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nosuch\.py"):
        recipes.load(tmp_path / "nosuch.py")


def test_io_is_a_type_of_the_converters_and_a_web_page_is_for_a_tflite_output():
    for io in ("int8", "uint8", "float32"):
        assert dataclasses.replace(RECIPE, io=io).io == io
    with pytest.raises(InputError, match=r"unknown Recipe.io: 'int9'"):
        dataclasses.replace(RECIPE, io="int9")
    device = recipes.TargetDevice("d", "p", "r", scheme="onnx_float32", package="web")
    with pytest.raises(InputError, match=r"must be for a TFLite output. Received: scheme='onnx_float32'"):
        dataclasses.replace(RECIPE, onnx=("float32",), device=device)


@pytest.mark.parametrize(("field", "known"), [("effort", "high"), ("weights", "per_tensor")])
def test_an_option_of_int8_is_one_of_the_converters(field, known):
    assert getattr(dataclasses.replace(RECIPE, **{field: known}), field) == known
    with pytest.raises(InputError, match=f"unknown Recipe.{field}: 'most'"):
        dataclasses.replace(RECIPE, **{field: "most"})


def test_each_output_has_a_name_and_a_file():
    recipe = dataclasses.replace(
        RECIPE, schemes=("float32", "int8"), onnx=("float32", "int8"), prune=recipes.Prune(), qat=recipes.Qat()
    )
    assert [output.name for output in recipe.outputs()] == [
        "float32",
        "int8",
        "onnx_float32",
        "onnx_int8",
        "pruned_float32",
        "pruned_int8",
        "pruned_onnx_float32",
        "qat_int8",
    ]
    output = recipes.Output("pruned", "onnx", "float32")
    assert output in recipe.outputs()
    assert output.file_name("mobilenet_v2") == "mobilenet_v2_pruned_onnx_float32.onnx"
    assert recipes.Output("", "tflite", "int8").file_name("mine") == "mine_int8.tflite"


def test_a_model_is_an_architecture_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mobilenet_v2").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    (tmp_path / "model").touch()
    files = ("mine.keras", "mine.h5", "mine.tflite", "folder/mine", "./mine", "saved", "model")
    assert all(Model(name).is_file for name in files)
    assert not Model("mobilenet_v2").is_file  # a folder, but no SavedModel
    assert Model("runs/mine.keras").short_name == "mine"
    assert Model("mobilenet_v2", alpha=0.5).short_name == "mobilenet_v2"
    with pytest.raises(InputError, match=r"Model.weights is for an architecture.* Received: 'imagenet'"):
        Model("mine.keras", weights="imagenet")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: recipes.Device("Pi", "A76", "LiteRT"), recipes.TargetDevice("Pi", "A76", "LiteRT")),
        (lambda: recipes.Explain(attention=2), Analysis(grad_cam=2)),
        (lambda: recipes.Cluster(8), recipes.WeightClustering(8)),
        (lambda: recipes.Tuning(epochs=2), recipes.FineTuning(epochs=2)),
        (
            lambda: recipes.TargetDevice("a", "b", "c", delivery="web"),
            recipes.TargetDevice("a", "b", "c", package="web"),
        ),
        (lambda: recipes.Qat(tuning=recipes.FineTuning(1)), recipes.Qat(fine_tuning=recipes.FineTuning(1))),
        (
            lambda: dataclasses.replace(RECIPE, explain=Analysis(("sex",))),
            dataclasses.replace(RECIPE, analysis=Analysis(("sex",))),
        ),
        (lambda: RECIPE.with_settings(["explain.attention=0"]), RECIPE.with_settings(["analysis.grad_cam=0"])),
        (lambda: RECIPE.explain.attention, RECIPE.analysis.grad_cam),
        (
            lambda: dataclasses.replace(RECIPE, prune=recipes.Prune()).with_settings(["prune.tuning.epochs=1"]),
            dataclasses.replace(
                RECIPE, prune=recipes.Prune(fine_tuning=recipes.FineTuning(1, 3e-4, features=1.0, mixup=1.0))
            ),
        ),
    ],
)
def test_previous_names_work_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=r"edge_cv\.recipe: \w+(\.\w+)? is deprecated .*; use \w+"):
        assert old() == new


def test_a_recipe_file_with_previous_names_still_loads_and_the_warning_names_its_line(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(
        "from edge_cv.recipe import *\n"
        "RECIPE = Recipe('old', Model('alexnet'), explain=Explain(attention=1),\n"
        "  prune=Prune(tuning=Tuning(2)), device=Device('d', 'p', 'r', delivery='web'))\n"
    )
    with pytest.warns(DeprecationWarning, match="Explain") as warnings:
        recipe = recipes.load(path)
    assert (recipe.analysis.grad_cam, recipe.prune.fine_tuning.epochs, recipe.device.package) == (1, 2, "web")
    assert {Path(warning.filename) for warning in warnings} == {path}


def test_the_json_of_a_recipe_has_the_previous_names_too():
    recipe = dataclasses.replace(
        RECIPE, prune=recipes.Prune(fine_tuning=recipes.FineTuning(5)), device=recipes.TargetDevice("d", "p", "r")
    )
    written = recipe.to_dict()
    assert written["explain"] == written["analysis"]
    assert written["explain"]["attention"] == written["analysis"]["grad_cam"] == 9
    assert written["prune"]["tuning"]["epochs"] == 5
    assert written["device"]["delivery"] is None


def test_a_recipe_of_the_project_loads_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipes.load("demo").name == "demo"
    with pytest.raises(InputError, match="Did you mean 'digits'"):
        recipes.load("digit")
