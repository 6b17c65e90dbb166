"""Grad-CAM: the parts of photos that the float model's predictions depend on."""

from __future__ import annotations

from edge_cv.evaluation.grad_cam import Explained
from edge_cv.report.sections.section import Picture, Section, Strip
from edge_cv.report.values import Report

LEAD = (
    "Colour marks the parts of the photo that increase the logit of a class most in the float model (Grad-CAM, "
    "Selvaraju et al. 2017). Confident mistakes come first, then correct predictions. A model whose evidence is in "
    "the background may have learned the background."
)


def section(report: Report) -> Section | None:
    """The maps of each photo."""
    if not report.explained:
        return None
    return Section("Grad-CAM", (LEAD,), strips=tuple(_strip(photo) for photo in report.explained))


def _strip(photo: Explained) -> Strip:
    is_wrong = photo.answer != photo.label
    predicted = f"{photo.label}, predicted as {photo.answer}" if is_wrong else photo.label
    pictures = [Picture(photo.jpeg, "model input")]
    prefix = "evidence for " if len(photo.overlays) > 1 else ""
    pictures += [Picture(overlay.jpeg, prefix + overlay.name) for overlay in photo.overlays]
    return Strip(f"{predicted} ({100 * photo.probability:.0f} %)", photo.photo, is_wrong, tuple(pictures))
