"""Keras models and layers with names that TensorFlow's graphs cannot hold convert as others do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from converters import InputError, load, to_tflite
from converters.sources import open_source
from converters.sources.config_graph import check_graphs
from converters.sources.layer_names import MAX_NAME, with_valid_names

NAMES = ("my conv", "_hidden", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "x" * 900, "a;b:c@d", "my_conv")


def network(names: Sequence[str], image: str, end: str, name: str) -> Any:
    import keras

    keras.utils.set_random_seed(4)
    x = given = keras.Input((16, 16, 3), name=image)
    for layer in names:
        x = keras.layers.Conv2D(3, 3, padding="same", name=layer)(x)
    return keras.Model(given, keras.layers.GlobalAveragePooling2D(name=end)(x), name=name)


@pytest.fixture(scope="module")
def model() -> Any:
    return network(NAMES, "my image", "_out", "mon mod\u00e8le")


def test_a_model_with_such_names_converts_and_keeps_them(model):
    conversion = to_tflite(model, "float32")
    assert conversion.parity.sqnr_db > 60
    assert [layer.name for layer in model.layers[1:-1]] == list(NAMES)
    assert model.name == "mon mod\u00e8le"


@pytest.mark.parametrize("suffix", [".keras", pytest.param(".h5", marks=pytest.mark.slow)])
def test_a_file_with_such_names_is_rebuilt_with_others(suffix, model, tmp_path):
    file = tmp_path / f"odd{suffix}"
    model.save(file)
    names = [layer.name for layer in load(file).layers]
    assert len(set(names)) == len(NAMES) + 2
    assert all(name.isascii() and name[0].isalnum() and " " not in name and len(name) <= MAX_NAME for name in names)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    plain = network([f"conv_{at}" for at in range(len(NAMES))], "image", "out", "plain")
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(open_source(file).predict(images), plain.predict(images, verbose=0), atol=1e-5)


def test_references_follow_the_names():
    layers = [
        {"class_name": "InputLayer", "name": "an input", "config": {"name": "an input"}, "inbound_nodes": []},
        {"class_name": "Dense", "name": "", "config": {"name": ""}, "inbound_nodes": [[["an input", 0, 0, {}]]]},
    ]
    config = {"class_name": "Functional", "config": {"name": "a/b", "layers": layers, "output_layers": [["", 0, 0]]}}
    changed = with_valid_names(config)
    assert json.dumps(config).count("an input") == 3
    assert changed["config"]["name"] == "a_b"
    first, second = changed["config"]["layers"]
    assert first["name"] == first["config"]["name"] == second["inbound_nodes"][0][0][0] == "an_input"
    assert changed["config"]["output_layers"] == [[second["config"]["name"], 0, 0]] == [["layer", 0, 0]]


def test_a_name_that_is_no_text_is_refused():
    layers = [{"class_name": "Dense", "config": {"name": name}} for name in ("a", 7)]
    with pytest.raises(InputError, match="must be text"):
        with_valid_names({"class_name": "Sequential", "config": {"layers": layers}})


def functional(**inputs: list[list[Any]]) -> dict[str, Any]:
    """A configuration of Keras 2: the calls of each layer, each a list of `[layer, call]`."""
    layers = [
        {"class_name": "Add", "name": name, "inbound_nodes": [[[*read, 0, {}] for read in call] for call in calls]}
        for name, calls in inputs.items()
    ]
    return {"class_name": "Functional", "config": {"layers": layers}}


def test_layers_that_are_called_twice_have_an_order():
    check_graphs(functional(image=[], a=[[["image", 0]], [["b", 0]]], b=[[["a", 0]]], c=[[["a", 1], ["image", 0]]]))


@pytest.mark.parametrize(
    "config",
    [
        functional(image=[], a=[[["b", 0]]], b=[[["a", 0]]]),
        functional(image=[], a=[[["a", 0]]]),
        functional(image=[], a=[[["image", 1]]]),
        functional(image=[], a=[[["image", None]]]),
        functional(image=[], a=[[["image", -1]]]),
    ],
)
def test_layers_without_an_order_are_refused(config):
    with pytest.raises(InputError, match=r"must have an order. Received: '[ab]' waits for itself"):
        check_graphs(config)


def test_layers_of_one_name_are_refused():
    config = functional(image=[], a=[[["image", 0]]])
    config["config"]["layers"] *= 2
    with pytest.raises(InputError, match="'image' more than once"):
        check_graphs(config)
