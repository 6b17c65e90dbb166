"""Damaged checkpoints of a training are refused in one line, or are equal to the undamaged one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from mutations import damaged

from converters import InputError
from edge_cv.training import checkpoint

CASES = 300


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 3))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))


def outcome(work: Callable[[], Any]) -> tuple[Any, str]:
    """What the work returns, or the one line in which it refuses."""
    try:
        return work(), ""
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return None, message


def test_a_damaged_checkpoint_is_refused_or_whole(tmp_path):
    path, model = tmp_path / "checkpoint.npz", network()
    arrays = {"network": checkpoint.values(model.variables), "metrics": [np.float32(1.5)]}
    checkpoint.save(path, arrays, {"key": "k", "epoch": 3, "history": [{"loss": 0.25}]})
    content, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(CASES):
        path.write_bytes(damaged(content, rng))
        loaded, message = outcome(lambda: checkpoint.load(path))
        if message:
            refused += 1
            assert f"delete {tmp_path} to start over" in message
            continue
        # the change was in a place that is not read, such as a date
        assert (loaded.state["epoch"], loaded.state["history"]) == (3, [{"loss": 0.25}])
        for ours, theirs in zip(arrays["network"], loaded.arrays["network"], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert refused > CASES / 2
