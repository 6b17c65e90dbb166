"""The command line, `edge-cv`."""

from edge_cv.cli.interruption import interruption

with interruption(at_once=True):  # nothing is to be cleaned up before a command runs
    from edge_cv.cli.app import main, program

__all__ = ["main", "program"]
