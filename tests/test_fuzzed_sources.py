"""Strangers' .keras and .h5 files and SavedModels, changed at random: opened and run, or refused in one line."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isolated_cases import IsolatedCases
from model_files import plain_keras_2_model
from model_mutations import changed_archive, changed_h5, changed_message
from mutations import damaged, refused_or_done

from converters.sources import open_source

KINDS = ("keras_3.keras", "keras_3.h5", "keras_2.h5", "saved")
CASES = {"keras_3.keras": 6, "keras_3.h5": 8, "keras_2.h5": 6, "saved": 2}


@pytest.fixture(scope="module")
def originals(small_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    small_model.save(folder / "keras_3.keras")
    small_model.save(folder / "keras_3.h5")
    plain_keras_2_model().save(folder / "keras_2.h5")
    small_model.export(folder / "saved", verbose=False)
    return folder


def changed(original: Path, folder: Path, rng: random.Random) -> Path:
    """A changed copy of a model in a folder."""
    to = folder / original.name
    if original.suffix == ".keras":
        to.write_bytes(changed_archive(original.read_bytes(), rng))
    elif original.suffix == ".h5":
        changed_h5(original, to, rng)
    else:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(original, to)
        _change_saved_model(to, rng)
    return to


def _change_saved_model(folder: Path, rng: random.Random) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    if rng.random() < 0.2:
        file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        file.write_bytes(damaged(file.read_bytes(), rng))
        return
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    (graph,) = model.meta_graphs
    parts = (graph.graph_def.library, graph.graph_def.library, graph.object_graph_def, graph.signature_def, model)
    part = rng.choice(parts)
    changed_message(graph.signature_def["serving_default"] if part is graph.signature_def else part, rng)
    file.write_bytes(model.SerializeToString())


def opened(path: Path) -> bool:
    """Whether the model was opened, and run on two images."""
    with refused_or_done():
        source = open_source(path)
        source.predict(np.zeros((2, *source.input_shape), np.float32))
        return True
    return False


def fuzz(kind: str, originals: Path, folder: Path, cases: int, seed: int, run: Callable[..., Any]) -> int:
    """The number of cases that were opened."""
    rng, done = random.Random(f"{kind} {seed}"), 0
    for case in range(cases):
        path = changed(originals / kind, folder, rng)
        try:
            done += run(opened, path)
        except BaseException as error:
            raise AssertionError(f"{kind}, seed {seed}, case {case}") from error
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_changed_models_are_opened_or_refused(kind, originals, tmp_path):
    assert fuzz(kind, originals, tmp_path, CASES[kind], 0, lambda work, path: work(path)) < CASES[kind]


@pytest.fixture(scope="module")
def isolated():
    cases = IsolatedCases()
    yield cases
    cases.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_models_are_opened_or_refused(kind, originals, tmp_path, isolated):
    fuzz(kind, originals, tmp_path, 12 * CASES[kind], 1, isolated.run)


def test_unchanged_models_are_opened(originals):
    assert all(opened(originals / kind) for kind in KINDS)
