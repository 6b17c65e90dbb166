"""The figures of one model in an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """Accuracy of one model, and its agreement with a reference.

    Attributes:
        images: classified images.
        top1, top5: share 0..1 of the labelled images whose label is the first class, or among the first five; None
            without labels.
        top1_ci95: Wilson's 95 % interval of `top1`.
        agreement: share 0..1 of the images with the same first class as the reference, or with the same decision for
            each class where an image may have several; None without a reference.
        agreement_ci95: Wilson's 95 % interval of `agreement`.
        sqnr_db: signal-to-quantization-noise ratio of the logits against the reference's, in dB; None without a
            reference and where the logits are equal to the reference's.
        seconds_per_image: mean duration of an inference while every core is busy; not a latency.
    """

    images: int
    top1: float | None
    top5: float | None
    top1_ci95: tuple[float, float] | None
    agreement: float | None
    agreement_ci95: tuple[float, float] | None
    sqnr_db: float | None
    seconds_per_image: float = field(compare=False)
