"""Exit codes, and how a command reports a failure."""

from __future__ import annotations

import sys

from converters.printable import printable

BROKEN = 1  # a limit of the run is exceeded, or a conversion failed its check
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # as of a program that the signal ends


def fail(message: object, code: int) -> int:
    """Print the message in one line on stderr; return the exit code."""
    print(f"edge-cv: {printable(' '.join(str(message).split()))}", file=sys.stderr)
    return code
