"""From a recipe to a report."""

from edge_cv.pipeline.run import run, train

__all__ = ["run", "train"]
