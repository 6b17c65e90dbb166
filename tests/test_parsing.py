"""How often a conversion parses and packs the graph: as often for a deep model as for a shallow one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from converters import DynamicInt8, Float16, Float32, Int8, Int16x8, to_tflite
from converters.quantization import candidates
from converters.sources import open_source
from converters.tflite import graph, operator_files


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """Float TFLite files of 3 and of 9 convolutions."""
    import keras

    folder = tmp_path_factory.mktemp("models")
    for depth in (3, 9):
        keras.utils.set_random_seed(0)
        x = image = keras.Input((16, 16, 3), name="pixels")
        x = keras.layers.Rescaling(1 / 127.5, -1)(x)
        for index in range(depth):
            x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"conv_{index}")(x)
        model = keras.Model(image, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))
        to_tflite(model, "float32").save(folder / f"{depth}.tflite")
    return folder / "3.tflite", folder / "9.tflite"


@pytest.fixture
def counts(monkeypatch) -> Counter:
    counts: Counter = Counter()
    parse, pack = graph.Graph.__init__, graph.pack

    def counted_parse(self, content):
        counts["parsed"] += 1
        parse(self, content)

    def counted_pack(model):
        counts["packed"] += 1
        return pack(model)

    monkeypatch.setattr(graph.Graph, "__init__", counted_parse)
    for module in (graph, operator_files):
        monkeypatch.setattr(module, "pack", counted_pack)
    return counts


@pytest.mark.parametrize(
    "scheme",
    [
        *(Float32(), Int8(correction="none"), Int8()),
        *(pytest.param(s, marks=pytest.mark.slow) for s in (Float16(), DynamicInt8(), Int8(io="float32"), Int16x8())),
    ],
    ids=str,
)
def test_the_graph_is_parsed_and_packed_a_constant_number_of_times(models, counts, monkeypatch, scheme):
    monkeypatch.setattr(candidates, "MARGIN_DB", -1000.0)  # the first candidate is taken, whatever the model
    monkeypatch.setattr(candidates, "HOPELESS_DB", 1000.0)
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
    by_depth = []
    for path in models:
        source = open_source(path)
        counts.clear()
        to_tflite(source, scheme, calibration=images)
        by_depth.append(dict(counts))
    assert by_depth[0] == by_depth[1]
    assert max(by_depth[0].values()) <= 25
