"""A new head on weights that the user has, for each family: it starts at zeros, and phases train the right layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from zoo import DIFFERENT

from edge_cv import models
from edge_cv.recipe import fine_tuning
from edge_cv.training.layers import trainable_layers

QUICK = "mobilenet_v1"


@pytest.mark.parametrize(
    "name", [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DIFFERENT]
)
def test_a_new_head_starts_at_zeros_and_the_phases_of_fine_tuning_leave_batch_norm_alone(name, tmp_path):
    small = {"image_size": 67, "alpha": 0.5}  # the least size of alexnet_2012
    own = models.build(name, classes=3, **small)
    assert np.any(own.get_layer("logits").get_weights()[0])  # from random weights as ever
    own.save_weights(tmp_path / "own.weights.h5")
    tuned = models.build(name, classes=5, weights=tmp_path / "own.weights.h5", **small)
    assert not any(weight.any() for weight in tuned.get_layer("logits").get_weights())

    head, full = fine_tuning().all_phases()
    with trainable_layers(tuned, head):
        assert [v.path for v in tuned.trainable_variables] == [v.path for v in tuned.get_layer("logits").weights]
    with trainable_layers(tuned, full):
        norms = [layer for layer in tuned.layers if isinstance(layer, keras.layers.BatchNormalization)]
        frozen = {v.path for layer in norms for v in layer.weights}
        trained = {v.path for v in tuned.trainable_variables}
        assert not frozen & trained
        assert trained | frozen == {v.path for v in tuned.weights if "seed_generator" not in v.path}
