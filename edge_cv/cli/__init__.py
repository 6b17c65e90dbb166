"""The command line, `edge-cv`."""

from edge_cv.cli.app import main

__all__ = ["main"]
