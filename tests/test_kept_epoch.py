"""The epoch whose weights a training keeps: ties, phases without effect, and the sentence about it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from tiny_training import batches, coloured, network, quick

from edge_cv.recipe import Phase
from edge_cv.report.sections.training import intervals, plot, section
from edge_cv.report.values import Epoch, Report
from edge_cv.training import fit
from edge_cv.training.kept_epoch import kept_epoch, why_kept
from edge_cv.training.state import TrainingState


def history(
    *scores_and_losses: tuple[float | None, float | None], phases: tuple[int, ...] = (), images: int | None = 5
) -> list[dict]:
    return [
        {
            "epoch": number,
            "phase": phases[number - 1] if phases else 1,
            "learning_rate": 0.1,
            "loss": 1.0,
            "score": 0.5,
            "validation_score": score,
            "validation_loss": loss,
            "validation_images": None if score is None else images,
            "images_per_second": 1.0,
            "seconds": 1.0,
        }
        for number, (score, loss) in enumerate(scores_and_losses, 1)
    ]


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (((0.60, 0.9), (0.80, 0.7), (0.60, 0.1)), 2),  # far below the highest
        (((0.80, 0.9), (0.80, 0.5), (0.80, 0.6)), 3),  # of a tie the latest
        (((0.60, 0.9), (0.80, 0.5), (0.72, 0.6), (0.60, 0.6)), 3),  # 2 photos of 25 fewer, and 5
        (((0.60, 0.9), (0.80, 0.5), (0.72, 0.6), (0.64, 0.6)), 4),  # 4 fewer: p = 0.06
        (((0.80, 0.9), (None, None), (0.30, 0.5)), 1),  # a score that was not finite is the worst
        (((None, None), (None, None), (None, None)), 3),
    ],
)
def test_the_latest_epoch_within_a_standard_error_or_four_images_of_the_highest_score_is_kept(epochs, kept):
    entries = history(*epochs, images=25)
    assert kept_epoch(entries)["epoch"] == kept
    state = TrainingState()
    best = [entry["epoch"] for entry in entries if state.record(entry)]
    assert (best[-1], state.best_epoch, state.best) == (kept, kept, epochs[kept - 1][0])


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (((0.80, 0.9), (0.80, 0.5), (0.80, 0.6)), 2),
        (((0.80, 0.5), (0.80, 0.5)), 2),
        (((0.80, None), (0.80, 0.5)), 2),
        (((0.80, 0.9), (0.79, 0.5)), 1),
    ],
)
def test_of_a_score_without_a_known_error_the_highest_is_kept_and_of_a_tie_the_lower_loss(epochs, kept):
    assert kept_epoch(history(*epochs, images=None))["epoch"] == kept


def test_the_weights_that_are_stored_epoch_by_epoch_are_those_that_the_whole_history_chooses():
    rng = np.random.default_rng(0)
    for _ in range(50):
        entries = history(*((round(hits) / 20, 0.5) for hits in rng.integers(5, 20, 12)), images=20)
        state = TrainingState()
        stored = [entry["epoch"] for entry in entries if state.record(entry)]
        assert stored[-1] == state.best_epoch == kept_epoch(entries)["epoch"]


def test_the_sentence_says_which_epoch_and_why_with_an_interval():
    # Wilson's interval of 20 of 25, by hand: (0.8 + 0.0768 -+ 0.1742) / 1.1537
    assert why_kept(history((0.8, 0.9), (0.8, 0.5), (0.4, 0.6), images=25)) == (
        "The weights of epoch 2 were kept: the highest validation score, 80.0 % (60.9 to 91.1, n = 25)."
    )
    assert why_kept(history((0.75, 0.9), (0.70, 0.5), images=20)) == (
        "The weights of the last epoch, 2, were kept: the validation score, 70.0 % (48.1 to 85.5, n = 20), is not "
        "clearly below the highest, 75.0 %."
    )
    assert why_kept(history((0.8, 0.9), (0.8, 0.5), images=None)) == (
        "The weights of the last epoch, 2, were kept: the highest validation score, 80.0 %, and of the 2 epochs that "
        "reach it the lowest validation loss, 0.5000."
    )
    assert "no validation images" in why_kept(history((None, None)))


def test_a_phase_that_changed_nothing_is_named():
    assert "Phase 2 of 2 was discarded whole" in why_kept(history((0.8, 0.5), (0.4, 0.6), phases=(1, 2), images=25))
    assert "discarded" not in why_kept(history((0.6, 0.5), (0.8, 0.6), phases=(1, 2), images=25))


@pytest.mark.slow
def test_history_and_model_have_the_kept_epoch_and_the_progress_says_it(tmp_path):
    images, labels = coloured()
    validation = [(images[:6], np.eye(3, dtype=np.float32)[labels[:6]])]
    notes: list[str] = []

    class Noted:
        def __init__(self, title: str) -> None: ...
        def __enter__(self):
            return lambda done, total, note="": notes.append(note)

        def __exit__(self, *error) -> None: ...

    model = network()
    settings = quick(epochs=6, learning_rate=0.05, phases=(Phase(1, 0.01, train="head"),))
    fitted = fit(model, batches(), settings, validation=validation, folder=tmp_path, progress=Noted)
    lines = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [int(line["epoch"]) for line in lines if line["kept"] == "1"] == [fitted.best_epoch]
    assert {line["validation_images"] for line in lines} == {"6"}
    assert notes[-1] == fitted.kept == why_kept(fitted.history)
    kept = fitted.history[fitted.best_epoch - 1]
    logits = model.predict(images[:6].astype(np.float32), verbose=0)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert kept["validation_loss"] == pytest.approx(-log_p[np.arange(6), labels[:6]].mean(), abs=1e-4)


def test_the_report_says_the_same_sentence():
    entries = history((0.8, 0.9), (0.8, 0.5))
    report = Report({}, {}, training=tuple(Epoch(**entry) for entry in entries))
    assert why_kept(entries) in section(report).sentences[0]


def test_the_curve_of_the_validation_score_has_the_interval_of_each_epoch():
    entries = history((0.8, 0.9), (None, None), (0.4, 0.5))
    epochs = [Epoch(**entry) for entry in entries]
    # Wilson's intervals of 4 and 2 of 5, by hand: (0.6696 -+ 0.2941) and (0.4435 -+ 0.3260)
    assert intervals(epochs) == [
        (1, pytest.approx(37.55, abs=0.05), pytest.approx(96.38, abs=0.05)),
        (3, pytest.approx(11.76, abs=0.05), pytest.approx(76.93, abs=0.05)),
    ]
    assert "<svg" in plot(epochs, "score")
