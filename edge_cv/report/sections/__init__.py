"""The sections of the page, one file each. A new section needs a file here and its line in `SECTIONS`."""

from __future__ import annotations

from edge_cv.report.sections import (
    compression,
    confidence,
    conformance,
    fine_tuning,
    grad_cam,
    groups,
    layers,
    mistakes,
    multilabel,
    package,
    pareto,
    per_class,
    robustness,
    sensitivity,
    training,
)

SECTIONS = (
    package.section,
    pareto.section,
    layers.section,
    sensitivity.section,
    conformance.section,
    compression.section,
    fine_tuning.section,
    training.section,
    per_class.section,
    multilabel.section,
    confidence.section,
    mistakes.section,
    groups.section,
    robustness.section,
    grad_cam.section,
)
"""Each makes a section of a Report, or None where the report has no figures for it; in the page's order."""
