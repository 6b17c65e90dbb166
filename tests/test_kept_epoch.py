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


def history(*scores_and_losses: tuple[float | None, float | None], phases: tuple[int, ...] = ()) -> list[dict]:
    return [
        {
            "epoch": number,
            "phase": phases[number - 1] if phases else 1,
            "learning_rate": 0.1,
            "loss": 1.0,
            "score": 0.5,
            "validation_score": score,
            "validation_loss": loss,
            "validation_images": None if score is None else 50,
            "images_per_second": 1.0,
            "seconds": 1.0,
        }
        for number, (score, loss) in enumerate(scores_and_losses, 1)
    ]


# By hand for 50 images: one standard error is 5.8 points at 80 % (41 of 52), 1.9 points at 100 % (51 of 52).
@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (((0.6, 0.9), (0.8, 0.7), (0.6, 0.1)), 2),  # the score decides before the loss
        (((0.8, 0.9), (0.8, 0.5), (0.8, 0.6)), 2),  # of a tie the lower loss
        (((0.8, 0.5), (0.8, 0.5)), 2),  # of equal losses the later epoch
        (((0.8, None), (0.8, 0.5)), 2),  # a loss that was not finite is the worst
        (((0.8, 0.9), (0.76, 0.5)), 2),  # two images fewer are no difference: the lower loss
        (((0.8, 0.9), (0.74, 0.5)), 1),  # three images fewer are one
        (((0.98, 0.3), (1.0, 0.4)), 2),
        (((0.76, 0.5), (0.8, 0.9), (0.9, 0.7)), 3),  # the first is no longer within one standard error
        (((None, None), (None, None), (None, None)), 3),
    ],
)
def test_a_score_within_one_standard_error_of_the_highest_is_a_tie_which_the_lower_loss_decides(epochs, kept):
    entries = history(*epochs)
    assert kept_epoch(entries)["epoch"] == kept
    state = TrainingState()
    best = [entry["epoch"] for entry in entries if state.record(entry)]
    assert (best[-1], state.best_epoch, state.best) == (kept, kept, epochs[kept - 1][0])


def test_a_score_that_is_no_share_of_images_ties_only_with_its_equal():
    entries = [entry | {"validation_images": None} for entry in history((0.8, 0.9), (0.79, 0.5))]
    assert kept_epoch(entries)["epoch"] == 1


def test_the_sentence_says_which_epoch_and_why_with_an_interval():
    # Wilson's interval of 40 of 50, by hand: (0.8 + 0.0384 -+ 0.1173) / 1.0768
    text = why_kept(history((0.8, 0.9), (0.76, 0.5), (0.6, 0.6)))
    assert text == (
        "The weights of epoch 2 were kept: of the 2 epochs whose validation score is within one standard error of the "
        "highest, 80.0 % (67.0 to 88.8, n = 50), the lowest validation loss, 0.5000, with a score of 76.0 %."
    )
    text = why_kept(history((0.6, 0.9), (0.8, 0.5), (0.6, 0.6)))
    assert text == ("The weights of epoch 2 were kept: the highest validation score, 80.0 % (67.0 to 88.8, n = 50).")
    assert "no validation images" in why_kept(history((None, None)))


def test_a_phase_that_changed_nothing_is_named():
    assert "Phase 2 of 2 was discarded whole" in why_kept(history((0.8, 0.5), (0.6, 0.6), phases=(1, 2)))
    assert "discarded" not in why_kept(history((0.6, 0.5), (0.8, 0.6), phases=(1, 2)))


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
    settings = quick(epochs=6, learning_rate=0.3, phases=(Phase(1, 0.01, train="head"),))
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
    # Wilson's intervals of 40 and 20 of 50, by hand: (0.7786 -+ 0.1090) and (0.4071 -+ 0.1310)
    assert intervals(epochs) == [
        (1, pytest.approx(66.96, abs=0.05), pytest.approx(88.76, abs=0.05)),
        (3, pytest.approx(27.61, abs=0.05), pytest.approx(53.82, abs=0.05)),
    ]
    assert "<svg" in plot(epochs, "score")
