"""Grad-CAM: the parts of photos that the float model's predictions depend on."""

from __future__ import annotations

from edge_cv.evaluation.grad_cam import Explained
from edge_cv.report import formats
from edge_cv.report.sections.section import Picture, Section, Strip
from edge_cv.report.values import Report

LEAD = (
    "Colours mark the parts of a photo that increase the logit of a class most in the float model (Grad-CAM, Selvaraju "
    "et al. 2017). Confident mistakes come first, then correct predictions. If the marked parts are background, the "
    "model may have learned the background instead of the object."
)


def section(report: Report) -> Section | None:
    """The maps of each photo."""
    if not report.explained:
        return None
    wrong, number = sum(photo.answer != photo.label for photo in report.explained), len(report.explained)
    finding = (
        f"The float model classifies {wrong} of these {formats.photos(number)} incorrectly: check whether it looked at "
        "the object."
        if wrong
        else f"The float model classifies all of these {formats.photos(number)} correctly."
    )
    return Section("Grad-CAM", finding, (LEAD,), strips=tuple(_strip(photo) for photo in report.explained))


def _strip(photo: Explained) -> Strip:
    is_wrong = photo.answer != photo.label
    predicted = f"{photo.label}, predicted as {photo.answer}" if is_wrong else photo.label
    pictures = [Picture(photo.jpeg, "model input")]
    prefix = "evidence for " if len(photo.overlays) > 1 else ""
    pictures += [Picture(overlay.jpeg, prefix + overlay.name) for overlay in photo.overlays]
    return Strip(f"{predicted} ({100 * photo.probability:.0f} %)", photo.photo, is_wrong, tuple(pictures))
