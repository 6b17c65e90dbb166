"""The linear probe: its weights against scikit-learn, the model made of it, and what the report says."""

from __future__ import annotations

import dataclasses
import importlib.util

import keras
import numpy as np
import pytest
from tiny_training import batches, coloured, network, quick

from converters.errors import InputError
from edge_cv.report.files import from_dict, to_dict
from edge_cv.report.sections.training import section
from edge_cv.report.sentences import beside_probe
from edge_cv.report.values import ProbeResult, Report
from edge_cv.training import fit
from edge_cv.training.features import FeatureBatches, compute_features, head_network, split_network
from edge_cv.training.probe import assign_probe, calibrating_scale, fit_probe, split_for_probe

RESULT = ProbeResult(400, 0.825, (0.784, 0.859), 0.95, (0.924, 0.967), 0.8, (0.77, 0.83), 1400, 0.3, 4.0)


def one_hot(classes: int = 3, count: int = 48) -> list[tuple[np.ndarray, np.ndarray]]:
    images, labels = coloured(count)
    keep = labels < classes
    return [(images[keep], np.eye(classes, dtype=np.float32)[labels[keep]])]


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_backbone_and_head_together_are_the_network(dropout):
    model = network(dropout=dropout)
    split = split_network(model)
    images = coloured()[0].astype(np.float32)
    parts = [(images[i : i + 20], np.zeros((len(images[i : i + 20]), 3))) for i in range(0, 48, 20)]  # 20, 20, 8
    features, _ = compute_features(split.backbone, parts)
    np.testing.assert_allclose(head_network(split).predict(features, verbose=0), model.predict(images, verbose=0), 1e-5)
    assert split.dropout == dropout


def test_a_network_without_a_linear_dense_head_has_no_split():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(pixels))
    assert split_network(keras.Model(pixels, x)) is None
    assert split_network(keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(x))) is None
    with pytest.raises(InputError, match="ends in a dense layer of logits"):
        split_for_probe(keras.Model(pixels, x))


def test_each_view_passes_through_the_backbone_once_and_every_epoch_has_every_image():
    model, every = network(), batches()
    asked = []

    class Counting:
        classes, batch_size, multi_label = every.classes, every.batch_size, False

        def __len__(self):
            return len(every)

        def epoch(self, number, first_step=0):
            asked.append(number)
            return every.epoch(number, first_step)

    made = FeatureBatches(split_network(model), Counting(), views=2, seed=3)
    epochs = [[np.concatenate(parts) for parts in zip(*made.epoch(number), strict=True)] for number in range(4)]
    assert asked == [0, 1]
    order = np.lexsort(epochs[0][0].T)
    for features, targets in epochs[1:]:
        again = np.lexsort(features.T)
        np.testing.assert_allclose(features[again], epochs[0][0][order], atol=1e-6)
        np.testing.assert_array_equal(targets[again], epochs[0][1][order])
    assert not np.array_equal(epochs[0][0], epochs[2][0])  # in another order


@pytest.mark.slow
def test_a_head_phase_on_features_trains_the_head_as_one_on_images_does():
    """Without augmentation and with the whole data in a batch, the gradients of both are the same."""
    settings = quick(epochs=3, batch_size=48, train="head", freeze_batch_norm=True, optimizer="adamw")
    validation = one_hot()
    plain, cached = network(), network()
    wanted = fit(plain, batches(48), settings, validation=validation)
    found = fit(cached, batches(48), dataclasses.replace(settings, views=1), validation=validation)
    for one, other in zip(plain.get_weights(), cached.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert [e["validation_loss"] for e in found.history] == pytest.approx(
        [e["validation_loss"] for e in wanted.history], abs=1e-4
    )


# --- the probe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns_regression_and_becomes_the_head(classes):
    from sklearn.linear_model import LogisticRegression

    model = network(classes=classes)
    split, images = split_for_probe(model), one_hot(classes)
    probe = fit_probe(split, images)
    features, targets = compute_features(split.backbone, images)
    wanted = LogisticRegression(C=probe.inverse_penalty, max_iter=200).fit(features, targets.argmax(1))
    assign_probe(split, probe)
    logits = model.predict(images[0][0].astype(np.float32), verbose=0)
    np.testing.assert_array_equal(logits.argmax(1), wanted.predict(features))
    expected = (
        wanted.decision_function(features)
        if classes == 3
        else np.outer(wanted.decision_function(features), [-0.5, 0.5])
    )
    scale = (logits * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(logits, scale * expected, atol=1e-4 * scale)
    assert scale > 0
    hits = int((logits.argmax(1) == targets.argmax(1)).sum())
    assert probe.hits(split, images) == (hits, len(targets))
    assert 0.5 < probe.cross_validated <= 1


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_scale_of_the_logits_makes_their_probabilities_right(scale):
    """Labels drawn with the probabilities of logits that were multiplied by 1 / scale."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 4))
    labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    assert calibrating_scale(true / scale, labels) == pytest.approx(scale, rel=0.03)


def test_labels_that_are_all_right_give_no_certainty():
    labels = np.arange(40) % 2
    logits = np.where(np.eye(2)[labels] > 0, 0.1, -0.1)
    # by Laplace's rule 40.5 of 41 are right: the difference of the logits is log(40.5 / 0.5)
    assert calibrating_scale(logits, labels) == pytest.approx(np.log(81) / 0.2, rel=1e-3)


def test_a_probe_without_scikit_learn_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(InputError, match=r"pip install 'edge-cv\[probe\]'"):
        fit_probe(split_for_probe(network()), one_hot())


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_says_the_distance_from_the_probe():
    (sentence,) = beside_probe(RESULT)
    assert "12.5 points above that of a linear probe" in sentence
    assert "95.0 %" in sentence
    assert "82.5 %" in sentence
    assert "400 test photos" in sentence
    assert sentence == section(Report({}, {}, probe=RESULT)).finding


def test_a_model_below_the_probe_is_said_with_what_to_try():
    _, advice = beside_probe(dataclasses.replace(RESULT, fine_tuned=0.748, fine_tuned_ci95=(0.70, 0.79)))
    assert "Fine-tuning is worse than the probe" in advice
    assert "--probe" in advice
    assert "fit.learning_rate" in advice


def test_a_report_keeps_its_probe_in_json():
    report = Report({"name": "x"}, {}, probe=RESULT)
    assert from_dict(to_dict(report)).probe == RESULT
    assert from_dict({"rows": []}).probe is None
