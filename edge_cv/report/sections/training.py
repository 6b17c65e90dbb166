"""How the model was trained: the section of the page that shows its curves."""

from __future__ import annotations

from edge_cv.report import plots
from edge_cv.report.sections.section import Figure, Section
from edge_cv.report.values import Epoch, Report


def training(report: Report) -> Section | None:
    """Loss and score of each epoch, and what the training took."""
    epochs = report.training
    if not epochs:
        return None
    return Section(
        "How it was trained",
        sentences=(_summary(epochs),),
        figures=tuple(
            Figure(title, caption, f"{title}: {_in_words(epochs, what)}", plots.training(epochs, what))
            for what, title, caption in (
                ("loss", "Loss", "Cross-entropy without weight decay, lower is better."),
                ("score", "Score", "Top-1, or mean average precision where a photo may have several labels."),
            )
        ),
        notes=(
            "Training images are augmented and scored while the weights still move; validation images are seen whole, "
            "after the epoch. The epoch that is kept was chosen by the validation images, so the rows above, measured "
            "on other photos, are the fairer judgement.",
        ),
    )


def best(epochs: tuple[Epoch, ...]) -> Epoch:
    """The epoch whose weights were kept: the first of the highest validation scores, or the last of all."""
    return (
        max(epochs, key=lambda e: (-1.0 if e.validation_score is None else e.validation_score, -e.epoch))
        if any(e.validation_score is not None for e in epochs)
        else epochs[-1]
    )


def _summary(epochs: tuple[Epoch, ...]) -> str:
    seconds = sum(epoch.seconds for epoch in epochs)
    speeds = sorted(epoch.images_per_second for epoch in epochs)
    phases = epochs[-1].phase
    kept = best(epochs)
    parts = [
        f"{len(epochs)} epoch{'s' if len(epochs) > 1 else ''}{f' in {phases} phases' if phases > 1 else ''}, "
        f"{_time(seconds)} of training at {speeds[len(speeds) // 2]:,.0f} images a second."
    ]
    if kept.validation_score is not None:
        parts.append(f"Epoch {kept.epoch} was kept: {kept.validation_score:.1%} on the validation images.")
    return " ".join(parts)


def _in_words(epochs: tuple[Epoch, ...], what: str) -> str:
    def value(number: float | None) -> str:
        if number is None:
            return "not measured"
        return f"{number:.1%}" if what == "score" else f"{number:.3f}"

    first, last = epochs[0], epochs[-1]
    return (
        f"training from {value(getattr(first, what))} to {value(getattr(last, what))}, "
        f"validation from {value(getattr(first, f'validation_{what}'))} to "
        f"{value(getattr(last, f'validation_{what}'))}."
    )


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
