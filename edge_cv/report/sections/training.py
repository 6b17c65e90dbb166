"""Training: the curves of loss and score, and the epoch whose weights were kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from edge_cv.intervals import interval_of_share
from edge_cv.progress import duration
from edge_cv.report import sentences
from edge_cv.report.drawing import MUTED, SERIES, legend, locator, svg
from edge_cv.report.sections.section import Figure, Section
from edge_cv.report.values import Epoch, Report

NOTE = (
    "Training images are augmented, and their scores are taken while the weights still change. Validation images are "
    "scored without augmentation after each epoch. Because the epoch is chosen on the validation images, the "
    "accuracy in the first table, measured on other photos, is the better estimate."
)


def section(report: Report) -> Section | None:
    """Loss and score of each epoch, and the duration of the training."""
    epochs, probe = report.training, sentences.beside_probe(report.probe)
    if not epochs:
        return Section("Training", probe[0], tuple(probe[1:])) if probe else None
    return Section(
        "Training",
        _finding(epochs),
        sentences=(_summary(epochs), *probe),
        figures=tuple(
            Figure(title, caption, f"{title}: {_in_words(epochs, what)}", functools.partial(plot, epochs, what))
            for what, title, caption in (
                ("loss", "Loss", "Cross-entropy without weight decay; lower is better."),
                (
                    "score",
                    "Score",
                    "Top-1, or mean average precision for images with several labels. The band is the 95 % interval of "
                    "the validation score: epochs within it may be equally good.",
                ),
            )
        ),
        notes=(NOTE,),
    )


def kept(epochs: Sequence[Epoch]) -> Mapping[str, Any]:
    """The fields of the epoch whose weights were kept."""
    from edge_cv.training.kept_epoch import kept_epoch  # imports NumPy

    return kept_epoch([dataclasses.asdict(epoch) for epoch in epochs])


def _finding(epochs: Sequence[Epoch]) -> str:
    """The score that the training reached, or its loss without validation images."""
    chosen = kept(epochs)
    if chosen["validation_score"] is not None:
        return (
            f"The model reached a validation score of {100 * chosen['validation_score']:.1f} % in epoch "
            f"{chosen['epoch']} of {len(epochs)}."
        )
    losses = [epoch.loss for epoch in epochs if epoch.loss is not None]
    change = f"The training loss went from {losses[0]:.3f} to {losses[-1]:.3f}" if losses else "The model was trained"
    return f"{change} in {len(epochs)} epoch{'s' if len(epochs) > 1 else ''}, without validation images."


def _summary(epochs: Sequence[Epoch]) -> str:
    from edge_cv.training.kept_epoch import why_kept  # imports NumPy

    seconds = sum(epoch.seconds for epoch in epochs)
    speeds = sorted(epoch.images_per_second for epoch in epochs)
    phases = epochs[-1].phase
    text = (
        f"{len(epochs)} epoch{'s' if len(epochs) > 1 else ''}{f' in {phases} phases' if phases > 1 else ''} took "
        f"{duration(seconds)} at {speeds[len(speeds) // 2]:,.0f} images per second."
    )
    return f"{text} {why_kept([dataclasses.asdict(epoch) for epoch in epochs])}"


def _in_words(epochs: Sequence[Epoch], what: str) -> str:
    def value(epoch: Epoch, name: str) -> str:
        number = getattr(epoch, name)
        if number is None:
            return "not measured"
        return f"{100 * number:.1f} %" if what == "score" else f"{number:.3f}"

    first, last = epochs[0], epochs[-1]
    return (
        f"training from {value(first, what)} to {value(last, what)}, "
        f"validation from {value(first, f'validation_{what}')} to {value(last, f'validation_{what}')}."
    )


def intervals(epochs: Sequence[Epoch]) -> list[tuple[int, float, float]]:
    """Epoch, and the ends of Wilson's 95 % interval of its validation score in percent, where it is a share."""
    ends = []
    for epoch in epochs:
        if epoch.validation_images and epoch.validation_score is not None:
            low, high = interval_of_share(epoch.validation_score, epoch.validation_images)
            ends.append((epoch.epoch, 100 * low, 100 * high))
    return ends


def plot(epochs: Sequence[Epoch], what: str) -> str:
    """`loss` or `score` of the training images and, if any, of the validation images, as SVG."""
    scale = 100 if what == "score" else 1

    def draw(figure: Any, axes: Any) -> None:
        for prefix, name, colour in (("", "training", SERIES[0]), ("validation_", "validation", SERIES[3])):
            values = [(epoch.epoch, getattr(epoch, prefix + what)) for epoch in epochs]
            points = [(x, scale * y) for x, y in values if y is not None]
            if points:
                marker = "o" if len(points) == 1 else ""
                axes.plot(*zip(*points, strict=True), marker=marker, color=colour, label=name)
        band = intervals(epochs) if what == "score" else []
        if len(band) > 1:
            numbers, low, high = zip(*band, strict=True)
            axes.fill_between(numbers, low, high, color=SERIES[3], alpha=0.15, linewidth=0)
        for before, after in itertools.pairwise(epochs):
            if after.phase != before.phase:
                axes.axvline(before.epoch + 0.5, color=MUTED, linestyle=":", linewidth=1)
        axes.xaxis.set_major_locator(locator(True))
        axes.grid(axis="y")
        axes.set_xlabel("epoch")
        axes.set_ylabel("score, %" if what == "score" else "cross-entropy")
        if axes.get_legend_handles_labels()[1]:
            legend(axes, "best")

    return svg(f"training-{what}", draw)
