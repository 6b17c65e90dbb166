"""Measuring artifacts: what they answer (`evaluate`), how fast they are (`measure`) and on what (`environment`)."""

from __future__ import annotations

from edge_cv.evaluation.accuracy import Evaluation, Prediction, evaluate
from edge_cv.evaluation.environment import environment
from edge_cv.evaluation.latency import Latency, Performance, measure
from edge_cv.evaluation.scores import Score, sqnr_db, wilson_interval

__all__ = [
    "Evaluation",
    "Latency",
    "Performance",
    "Prediction",
    "Score",
    "environment",
    "evaluate",
    "measure",
    "sqnr_db",
    "wilson_interval",
]
