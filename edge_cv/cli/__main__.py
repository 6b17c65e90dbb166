"""`python -m edge_cv.cli` is `edge-cv`."""

from edge_cv.cli.app import program

program()
