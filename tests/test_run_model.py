"""The model of a run: trained once, and saved with its labels, preprocessing and history."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv import pipeline
from edge_cv.pipeline.model import RunModel, build_or_train
from edge_cv.progress import silent
from edge_cv.recipe import Data, Fit, Model, Recipe
from edge_cv.stages import Steps

RECIPE = Recipe(
    name="trial",
    model=Model("alexnet", image_size=64, alpha=0.125, preprocessing={"resize_to": None}),
    data=Data(measure="digits", calibrate=None),
    fit=Fit(epochs=2, images=64, batch_size=32, learning_rate=0.001, warmup_epochs=0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pipeline.train(RECIPE, folder)
    return folder


def trained_again(recipe: Recipe, folder: Path) -> tuple[RunModel, list[str]]:
    """The model of a folder, and the titles of the epochs that were trained for it."""
    titles: list[str] = []

    @contextlib.contextmanager
    def noted(title: str):
        titles.append(title)
        yield lambda done, total, note="": None

    model = pipeline.train(recipe, folder, progress=noted)
    return model, [title for title in titles if title.startswith("training")]


def test_the_model_is_saved_with_its_labels_preprocessing_and_history(folder):
    from converters.sources import open_source

    sidecar = json.loads((folder / "model.json").read_text())
    assert sidecar["labels"] == list("0123456789")
    assert (sidecar["preprocessing"]["image_size"], sidecar["preprocessing"]["resize_to"]) == (64, None)
    assert [entry["epoch"] for entry in sidecar["history"]] == [1, 2]
    source = open_source(folder / "model.keras")
    assert json.loads(json.dumps(source.preprocessing.to_dict())) == sidecar["preprocessing"]
    assert source.input_shape == (64, 64, 3)
    assert sidecar["parameters"] == 899_378
    assert not list(folder.rglob(".*"))


def test_a_second_run_trains_nothing(folder):
    before = (folder / "model.keras").stat().st_mtime_ns
    model, epochs = trained_again(RECIPE, folder)
    assert not epochs
    assert (folder / "model.keras").stat().st_mtime_ns == before
    assert [entry["epoch"] for entry in model.history] == [1, 2]
    assert model.labels == list("0123456789")


def test_another_checkpoint_interval_trains_nothing(folder):
    often = dataclasses.replace(RECIPE.fit, checkpoint_seconds=1.0)
    assert not trained_again(dataclasses.replace(RECIPE, fit=often), folder)[1]


@pytest.mark.slow
def test_another_training_has_its_own_folder_and_the_first_one_is_kept(folder, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", folder, run], check=True)
    (first,) = (run / "training").iterdir()
    model, epochs = trained_again(RECIPE.with_settings(["fit.learning_rate=0.002", "fit.epochs=1"]), run)
    assert epochs == ["training, epoch 1 of 1"]
    assert [entry["learning_rate"] for entry in model.history] == [pytest.approx(0.001, abs=0.001)]
    assert len(list((run / "training").iterdir())) == 2
    assert {path.name for path in first.iterdir()} >= {"checkpoint.npz", "best.weights.h5", "history.csv"}
    # model.keras is the other training's: it is written again from the first one's checkpoint
    model, epochs = trained_again(RECIPE, run)
    assert not epochs
    assert len(model.history) == 2


def test_the_classes_of_the_model_must_be_those_of_the_photos(tmp_path):
    with pytest.raises(InputError, match=r"model.classes must be those of the training photos, 10. Received: 7"):
        pipeline.train(RECIPE.with_settings(["model.classes=7"]), tmp_path / "run")
    with pytest.raises(InputError, match=r"the recipe trial must have a part fit. Received: none"):
        pipeline.train(dataclasses.replace(RECIPE, fit=None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


WITHOUT_TENSORFLOW = """
import sys
import zipfile
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(name + " is hidden", name=name)
HIDDEN = sys.argv[3].split(",")
sys.meta_path.insert(0, Block())
sys.path.insert(0, DIRECTORY)
import numpy as np
import test_run_model as t
model = t.pipeline.train(t.RECIPE, sys.argv[1])
pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("float32")
np.savez(sys.argv[2], logits=model.model.predict(pixels, verbose=0), pixels=pixels)
loaded = [name for name in HIDDEN if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["tensorflow", "tensorflow,grain"])
def test_a_model_is_trained_on_jax_without_tensorflow_and_opened_with_it_later(hidden, tmp_path):
    from converters.sources import load

    code = WITHOUT_TENSORFLOW.replace("DIRECTORY", repr(os.path.dirname(__file__)))
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "logits.npz"), hidden]
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    model = load(tmp_path / "run" / "model.keras")
    with np.load(tmp_path / "logits.npz") as found:
        logits = model.predict(found["pixels"], verbose=0)
        np.testing.assert_allclose(logits, found["logits"], rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert json.loads((tmp_path / "run" / "model.json").read_text())["labels"] == list("0123456789")


def test_a_model_that_is_only_built_is_the_same_in_every_run(tmp_path):
    """With random weights, and with dropout, whose seed is stored beside the weights."""
    import keras

    recipe = dataclasses.replace(RECIPE, model=dataclasses.replace(RECIPE.model, classes=10), fit=None)
    weights = []
    for seed, name in enumerate("ab"):
        keras.utils.set_random_seed(seed)
        model = build_or_train(recipe, None, Steps(tmp_path / name), silent)
        with zipfile.ZipFile(model.path) as archive:
            weights.append(archive.read("model.weights.h5"))
    assert weights[0] == weights[1]
