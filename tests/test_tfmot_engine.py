"""Pruning, clustering and QAT by tfmot itself, on a tf_keras copy of the model."""

from __future__ import annotations

import numpy as np
import pytest

from converters import to_tflite
from converters.errors import InputError
from converters.schemes import Int8FromQat
from converters.tflite.runtime import predict
from edge_cv.compression import cluster, prune, quantization_aware, total_sparsity
from edge_cv.recipe import FineTuning, Prune, Qat, WeightClustering

ONCE = FineTuning(epochs=1, learning_rate=1e-3)


@pytest.mark.slow
def test_tfmot_prunes_clusters_and_trains_for_int8(digits, digits_model):
    batches, images, labels = digits
    pruned = prune(digits_model, Prune(0.5, engine="tfmot", fine_tuning=ONCE), batches)
    assert total_sparsity(pruned) == pytest.approx(0.5, abs=0.02)
    clustered = cluster(pruned, WeightClustering(16, engine="tfmot", fine_tuning=ONCE), batches)
    assert len(np.unique(clustered.get_layer("head_conv").get_weights()[0])) <= 16
    assert total_sparsity(clustered) == pytest.approx(0.5, abs=0.05)
    aware = quantization_aware(digits_model, Qat(engine="tfmot", fine_tuning=ONCE), batches)
    conversion = to_tflite(aware.model, Int8FromQat(aware.ranges), calibration=images[:100])
    outputs = predict(conversion.content, images, pixel_offset=-128)
    assert np.mean(outputs.argmax(1) == labels) >= 0.93
    assert np.mean(outputs.argmax(1) == aware.predict(images).argmax(1)) >= 0.98


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (lambda model, batches: prune(model, Prune(engine="tfmot")), "needs images to train on"),
        (lambda model, batches: cluster(model, WeightClustering(engine="tfmot")), "needs images to train on"),
        (
            lambda model, batches: quantization_aware(model, Qat(engine="tfmot", ranges="lsq"), batches),
            "ranges='ema'",
        ),
        (lambda model, batches: prune(model, Prune(engine="tfmod")), "engine of Prune"),
        (lambda model, batches: Qat(ranges="max"), "ranges of Qat"),
    ],
)
def test_what_tfmot_cannot_do_is_refused(digits, digits_network, stage, message):
    with pytest.raises(InputError, match=message):
        stage(digits_network, digits[0])
